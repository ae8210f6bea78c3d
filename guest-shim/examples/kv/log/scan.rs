//! Reads a half of the disk record by record, in large pieces.

use guest_shim::prelude::*;

use super::record::{MAX_RECORD, Record};
use super::{Error, Shared};
use crate::storage::Storage;

/// Bytes that are read at once.
const WINDOW: u64 = 4 * MAX_RECORD;

/// Where a scan is.
#[derive(Debug)]
pub(super) struct Scan {
    /// Where on the disk the half begins.
    base: u64,
    /// Bytes of the half to look at.
    length: u64,
    /// Sequence that the next record must have.
    sequence: u64,
    /// Where in the half the next record must be.
    at: u64,
    window: Vec<u8>,
    /// Where in the half the window begins.
    window_at: u64,
}

impl Scan {
    /// A scan of the `length` bytes from `base` on, whose first record has this sequence.
    pub(super) fn new(base: u64, length: u64, sequence: u64) -> Self {
        Self {
            base,
            length,
            sequence,
            at: 0,
            window: Vec::new(),
            window_at: 0,
        }
    }

    /// Where in the half the next record must be.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Sequence that it must have.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The next record and where on the disk it is. `None` where there is no whole one, or one
    /// that `counts` does not accept, or one with another sequence.
    pub(super) async fn next<S: Storage>(
        &mut self,
        disk: &Shared<S>,
        counts: impl Fn(u64, &Record<'_>) -> bool,
    ) -> Result<Option<(u64, Record<'_>)>, Error> {
        self.fill(disk).await?;
        let bytes = &self.window[(self.at - self.window_at) as usize..];
        let Some(record) = Record::decode(bytes) else {
            return Ok(None);
        };
        if record.sequence != self.sequence || !counts(self.at, &record) {
            return Ok(None);
        }
        let offset = self.base + self.at;
        self.at += record.size();
        self.sequence += 1;
        Ok(Some((offset, record)))
    }

    /// Has the window hold the longest record that can be here.
    async fn fill<S: Storage>(&mut self, disk: &Shared<S>) -> Result<(), Error> {
        let left = self.length - self.at;
        let have = self.window_at + self.window.len() as u64 - self.at;
        if have < MAX_RECORD.min(left) {
            self.window_at = self.at;
            self.window.resize(WINDOW.min(left) as usize, 0);
            let offset = self.base + self.at;
            disk.read_at(offset, &mut self.window).await?;
        }
        Ok(())
    }
}
