//! A ledger as people look at it: read, and nothing else.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::file;
use super::layout::{Flaw, SLOTS};
use super::mapping::Pages;
use super::net::NetStatement;
use crate::nanos::Nanos;
use crate::sched::fair::Claim;

/// A ledger to look at.
#[derive(Debug)]
pub struct LedgerView {
    reader: File,
    pages: Pages,
}

/// Why a ledger cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// It cannot be opened or read.
    #[error("ledger {}: cannot be read: {source}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no sound ledger.
    #[error("ledger {}: {flaw}; the next sliver that starts will replace it", path.display())]
    Corrupt {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        flaw: Flaw,
    },
}

/// How an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its owner lives, and keeps it up to date or does not want to run.
    Live,
    /// Its owner lives, but has not written it for some time, though it says that it wants to run.
    Stale,
    /// Its owner has died.
    Dead,
    /// Somebody has it, and what is in it makes no sense.
    Nonsense,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewedEntry {
    /// Its slot.
    pub slot: usize,
    /// How it is.
    pub state: State,
    /// Name of the sliver, as it says.
    pub name: String,
    /// What else it says; `None` if that makes no sense.
    pub said: Option<Statement>,
    /// What it says of its traffic, if it shares an uplink.
    pub net: Option<NetStatement>,
}

/// What an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    /// Process id of the monitor.
    pub pid: u32,
    /// What it claims.
    pub claim: Claim,
    /// vCPUs that want to run.
    pub demand: u32,
    /// Whether it has stepped back.
    pub waiting: bool,
    /// Its virtual time.
    pub vtime: u64,
    /// Processor time that its process has used.
    pub service: Nanos,
    /// When it said so.
    pub updated: Nanos,
}

impl LedgerView {
    /// Opens the ledger at `path`.
    pub fn open(path: &Path) -> Result<Self, ViewError> {
        let read = |source| ViewError::Read {
            path: path.to_owned(),
            source,
        };
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let reader = File::options()
            .read(true)
            .custom_flags(flags.bits() as i32)
            .open(path)
            .map_err(read)?;
        let corrupt = |flaw| ViewError::Corrupt {
            path: path.to_owned(),
            flaw,
        };
        file::check(&reader).map_err(corrupt)?;
        let pages = Pages::map(&reader).map_err(read)?;
        Ok(Self { reader, pages })
    }

    /// All entries that somebody has, or had when they died.
    pub fn entries(&self, now: Nanos) -> Vec<ViewedEntry> {
        let used = self.pages.header().used();
        let entry = |slot| {
            let locked = file::is_slot_locked(&self.reader, slot);
            // A page that was never used is not read: that would take memory for it.
            if !locked && (slot >= used || self.pages.entry(slot).is_free()) {
                return None;
            }
            Some(self.look(slot, locked, now))
        };
        (0..SLOTS).filter_map(entry).collect()
    }

    /// What the entry in a slot says now.
    pub fn said(&self, slot: usize) -> Option<Statement> {
        let record = self.pages.entry(slot).read()?;
        Some(Statement {
            pid: record.pid,
            claim: record.claim,
            demand: record.demand,
            waiting: record.waiting,
            vtime: record.vtime,
            service: record.service,
            updated: record.updated,
        })
    }

    fn look(&self, slot: usize, locked: bool, now: Nanos) -> ViewedEntry {
        let entry = self.pages.entry(slot);
        let state = match entry.read() {
            _ if !locked => State::Dead,
            None => State::Nonsense,
            Some(record) if record.demand > 0 && !record.is_fresh(now) => State::Stale,
            Some(_) => State::Live,
        };
        ViewedEntry {
            slot,
            state,
            name: entry.name(),
            said: self.said(slot),
            net: entry.net().said(),
        }
    }
}
