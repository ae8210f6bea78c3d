//! What can go wrong with the log.

use core::fmt::{self, Display};

use guest_shim::prelude::*;

use super::record::{MAX_KEY, MAX_VALUE};

/// Why something could not be read or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Error {
    /// The disk failed.
    Disk { doing: &'static str, why: String },
    /// The disk is too small for a log.
    TooSmall { bytes: u64, needed: u64 },
    /// The disk holds something, and that is no log.
    NotALog,
    /// A record that was whole is not any more.
    Damaged { offset: u64 },
    /// There is no room for the value on the disk.
    Full { bytes: u64 },
    /// There is no room for the key in memory.
    TooManyKeys { bytes: usize },
    /// The key is too long.
    KeyTooLong { bytes: usize },
    /// The value is too long, for any disk or for this one.
    ValueTooLong { bytes: usize },
}

impl Error {
    pub(super) fn disk(doing: &'static str, error: impl Display) -> Self {
        let why = error.to_string();
        Self::Disk { doing, why }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk { doing, why } => write!(f, "{doing} the disk: {why}"),
            Self::TooSmall { bytes, needed } => {
                write!(
                    f,
                    "the disk has {bytes} bytes, at least {needed} are needed"
                )
            }
            Self::NotALog => f.write_str("the disk holds something else; --format overwrites it"),
            Self::Damaged { offset } => {
                write!(f, "the record at byte {offset} of the disk is damaged")
            }
            Self::Full { bytes } => {
                write!(
                    f,
                    "the disk is full: it has room for {bytes} bytes of records"
                )
            }
            Self::TooManyKeys { bytes } => {
                write!(f, "the keys take more than {bytes} bytes of memory")
            }
            Self::KeyTooLong { bytes } => {
                write!(
                    f,
                    "the key has {bytes} bytes, at most {MAX_KEY} are allowed"
                )
            }
            Self::ValueTooLong { bytes } => write!(
                f,
                "the value has {bytes} bytes, at most {MAX_VALUE} are allowed and an eighth of \
                 half the disk"
            ),
        }
    }
}

impl core::error::Error for Error {}
