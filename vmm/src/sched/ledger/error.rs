//! Why a sliver has no place in a ledger, and what has happened to one.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::layout::{Flaw, SLOTS};
use crate::spec::MilliCpu;

/// Why a sliver cannot use a ledger, or not with this claim.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The node has promised too much already.
    #[error("{0}")]
    Refused(Refusal),
    /// The uplink has been promised already.
    #[error("{0}")]
    NetRefused(NetRefusal),
    /// Something else is there.
    #[error("ledger {}: is {what}, not a file; name another", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// It would be on a disk.
    #[error(
        "ledger {}: is not in memory, and who writes to it could have to wait for a disk; name one \
         in /dev/shm or another tmpfs", .0.display()
    )]
    NotInMemory(PathBuf),
    /// Slivers of another version share it.
    #[error(
        "ledger {}: is of version {version} and in use; name another, or end the slivers of that \
         version", path.display()
    )]
    OtherVersion {
        /// The path.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// Somebody keeps it locked.
    #[error("ledger {}: is kept locked or replaced by others all the time", .0.display())]
    Busy(PathBuf),
    /// No slot is left.
    #[error("ledger {}: all of its {SLOTS} slots are taken", .0.display())]
    Full(PathBuf),
    /// It cannot be made.
    #[error("ledger {}: cannot be made: {source}", path.display())]
    Make {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be used.
    #[error("ledger {}: cannot be used: {source}", path.display())]
    Use {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl LedgerError {
    /// Whether the reserve is the reason: the node will not keep such a promise. Anything else only
    /// means that there is no ledger.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::NetRefused(_))
    }

    pub(super) fn make(path: &Path, source: io::Error) -> Self {
        Self::Make {
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn use_of(path: &Path, source: io::Error) -> Self {
        Self::Use {
            path: path.to_owned(),
            source,
        }
    }
}

/// A reserve that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// What was asked for.
    pub wanted: MilliCpu,
    /// What others have.
    pub taken: MilliCpu,
    /// What can be reserved in all.
    pub total: MilliCpu,
    /// Processors of the node.
    pub processors: u32,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |cpu: u64| cpu as f64 / f64::from(self.processors.max(1)) / 10.0;
        let left = u64::from(self.total.0).saturating_sub(self.taken.0.into());
        // What is left is rounded down to a step: it is an offer.
        let left = (percent(left) * 10.0).floor() / 10.0;
        write!(
            f,
            "cpu_pct: {} % of the node's processors cannot be reserved: of {} %, others have {} %; \
             {left} % are left",
            percent(self.wanted.0.into()),
            percent(self.total.0.into()),
            percent(self.taken.0.into()),
        )
    }
}

/// A guarantee that an uplink cannot keep. Rates are in kbit/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetRefusal {
    /// Whose guarantees are too much.
    pub to: Guaranteed,
    /// What was asked for.
    pub wanted: u64,
    /// What the others have.
    pub taken: u64,
    /// What can be guaranteed in all.
    pub total: u64,
    /// What the uplink carries.
    pub rate: u64,
}

/// Whose guarantees are added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guaranteed {
    /// All slivers of the node.
    ToAll,
    /// Those of the same slice.
    ToSlice,
}

impl fmt::Display for NetRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            wanted,
            taken,
            total,
            rate,
            ..
        } = self;
        let (what, others) = match self.to {
            Guaranteed::ToAll => ("", "others have"),
            Guaranteed::ToSlice => (" to one slice", "its other slivers have"),
        };
        write!(
            f,
            "net_min_rate: {wanted} kbit/s cannot be guaranteed: with the {taken} that {others}, \
             the sum is {}, and of this uplink's {rate} kbit/s at most {total} can be \
             guaranteed{what}; {} are left",
            wanted + taken,
            total.saturating_sub(*taken),
        )
    }
}

/// What has happened to a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerEvent {
    /// What was there was no sound ledger, and another has taken its place.
    Replaced {
        /// What was wrong with it.
        flaw: Flaw,
        /// Where it is now, if it was no ledger at all.
        kept: Option<PathBuf>,
    },
}

impl fmt::Display for LedgerEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Replaced { flaw, kept } = self;
        write!(f, "the ledger was replaced: {flaw}")?;
        match kept {
            Some(kept) => write!(f, "; what was there is now {}", kept.display()),
            None => Ok(()),
        }
    }
}
