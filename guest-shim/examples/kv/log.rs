//! A key-value store as a log on a disk: what was acknowledged is there after any crash.
//!
//! Records are only ever appended. A commit writes the records of many changes at once, flushes
//! the disk once and only then changes the [`Index`], which says where each key's newest record is.
//! What a crash leaves behind the last whole record is never taken for a record: see
//! [`Superblock::resumed`].
//!
//! The disk holds two halves. When the one in use is full, the records that the index points to are
//! copied to the other, and a new superblock says so. Values may take seven eighths of a half, so
//! that a removal always finds room and copying always frees some.

mod compact;
mod error;
mod index;
mod open;
mod record;
mod scan;
mod superblock;
#[cfg(test)]
mod tests;

use alloc::sync::Arc;
use guest_shim::alloc;
use guest_shim::prelude::*;
use guest_shim::sync::Mutex;

pub(crate) use error::Error;
use index::{Index, Location, Staged};
pub(crate) use open::{format, open};
use record::Record;
pub(crate) use record::{MAX_KEY, MAX_RECORD, MAX_VALUE};
use superblock::{COPIES, Superblock};

use crate::storage::Storage;

/// Bytes that are written at once, or one record if that is longer.
const BATCH: u64 = 128 << 10;

/// Memory that keys may take.
const MAX_INDEX: usize = 16 << 20;

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Set { key: Vec<u8>, value: Vec<u8> },
    Remove { key: Vec<u8> },
}

/// The writing side. There is one of it.
#[derive(Debug)]
pub(crate) struct Log<S> {
    reader: Reader<S>,
    superblock: Superblock,
    /// Which copy on the disk `superblock` is.
    copy: usize,
    /// Higher than any that was ever tried.
    next_generation: u64,
    /// Where in the half the next record goes.
    end: u64,
    /// Sequence of the next record.
    sequence: u64,
    /// The disk failed, and what it holds beyond `end`, or as the other superblock, is not known.
    failed: bool,
    counts: Counts,
}

/// The reading side, for any number of readers while the log is written.
#[derive(Debug)]
pub(crate) struct Reader<S>(Arc<Shared<S>>);

#[derive(Debug)]
struct Shared<S> {
    disk: S,
    index: Mutex<Index>,
}

/// What a log has done since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Commits, each with one flush.
    pub(crate) commits: u64,
    /// Changes that were committed.
    pub(crate) changes: u64,
    /// Times the log was copied to the other half.
    pub(crate) compactions: u64,
}

/// How much is stored, and how much can be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Keys that have a value.
    pub(crate) keys: usize,
    /// Bytes of their records.
    pub(crate) live: u64,
    /// Bytes that records of keys can take.
    pub(crate) room: u64,
}

/// What records are written together, and what they change.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    staged: Staged,
    records: u64,
}

impl<S: Storage> Log<S> {
    /// A reader of it.
    pub(crate) fn reader(&self) -> Reader<S> {
        self.reader.clone()
    }

    /// What it has done.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// How much is stored.
    pub(crate) fn usage(&self) -> Usage {
        let index = self.reader.0.index.lock();
        Usage {
            keys: index.keys(),
            live: index.live(),
            room: self.room_for_values(),
        }
    }

    /// Makes the changes, in their order, and makes them durable. Of each, whether it was made: for
    /// a removal, whether there was anything to remove.
    ///
    /// What an error says of one change need not be so for the next.
    pub(crate) async fn commit(&mut self, changes: &[Change]) -> Vec<Result<bool, Error>> {
        let mut results = Vec::with_capacity(changes.len());
        while results.len() < changes.len() {
            let start = results.len();
            if let Err(error) = self.commit_some(changes, &mut results).await {
                // None of this batch has been made; those behind it may have better luck.
                let length = results.len().max(start + 1);
                results.truncate(start);
                results.resize(length, Err(error));
            }
        }
        results
    }

    /// Makes as many of the changes from `results.len()` on as are written together.
    async fn commit_some(
        &mut self,
        changes: &[Change],
        results: &mut Vec<Result<bool, Error>>,
    ) -> Result<(), Error> {
        if self.failed {
            self.renew().await?;
        }
        let mut batch = Batch::default();
        while let Some(change) = changes.get(results.len()) {
            let size = change.size();
            if let Err(error) = change.check(self.largest_record()) {
                results.push(Err(error));
                continue;
            }
            let full = self.end + batch.length() + size > self.superblock.half_bytes;
            if batch.records > 0 && (full || batch.length() + size > BATCH) {
                break;
            }
            if full {
                self.compact().await?;
            }
            results.push(self.stage(&mut batch, change));
        }
        self.write(batch).await
    }

    /// Adds a change to a batch that has room for it.
    fn stage(&self, batch: &mut Batch, change: &Change) -> Result<bool, Error> {
        let index = self.reader.0.index.lock();
        let key = change.key();
        let present = batch.staged.find(&index, key).is_some();
        let value = change.value();
        if value.is_none() && !present {
            return Ok(false);
        }
        let location = Location {
            offset: self.superblock.base(self.superblock.half) + self.end + batch.length(),
            bytes: change.size(),
            sequence: self.sequence + batch.records,
        };
        let after = batch.staged.with(&index, key, value.map(|_| location));
        if value.is_some() {
            if after.live > self.room_for_values() {
                return Err(Error::Full {
                    bytes: self.room_for_values(),
                });
            }
            if after.memory > MAX_INDEX {
                return Err(Error::TooManyKeys { bytes: MAX_INDEX });
            }
        }
        batch.staged.put(key, value.map(|_| location), after);
        let record = Record {
            generation: self.superblock.generation,
            sequence: location.sequence,
            key,
            value,
        };
        record.encode(&mut batch.bytes);
        batch.records += 1;
        Ok(true)
    }

    /// Writes a batch at the end of the log, flushes, and lets readers see it.
    async fn write(&mut self, batch: Batch) -> Result<(), Error> {
        if batch.records == 0 {
            return Ok(());
        }
        let offset = self.superblock.base(self.superblock.half) + self.end;
        self.failed = true;
        self.reader.0.write_at(offset, &batch.bytes).await?;
        self.reader.0.flush().await?;
        self.failed = false;
        self.end += batch.length();
        self.sequence += batch.records;
        self.counts.commits += 1;
        self.counts.changes += batch.records;
        self.reader.0.index.lock().apply(batch.staged);
        Ok(())
    }

    /// After a failure: has nothing count that lies beyond the end, whatever the disk has made of
    /// it.
    async fn renew(&mut self) -> Result<(), Error> {
        let superblock = Superblock {
            generation: self.new_generation(),
            resumed: self.end,
            ..self.superblock
        };
        self.change_superblock(superblock).await
    }

    /// A generation that no record on the disk has, also none that a failure has left behind.
    fn new_generation(&mut self) -> u64 {
        let generation = self.next_generation;
        self.next_generation += 1;
        generation
    }

    /// Makes `superblock` the one that counts. Everything it speaks of must be durable.
    async fn change_superblock(&mut self, superblock: Superblock) -> Result<(), Error> {
        self.failed = true;
        let copy = 1 - self.copy;
        let disk = &self.reader.0;
        disk.write_at(COPIES[copy], &superblock.encode()).await?;
        disk.flush().await?;
        self.failed = false;
        self.superblock = superblock;
        self.copy = copy;
        Ok(())
    }

    /// Bytes that records of keys can take. The rest is for removals and for changes in between.
    fn room_for_values(&self) -> u64 {
        self.superblock.half_bytes - self.superblock.half_bytes / 8
    }

    fn largest_record(&self) -> u64 {
        MAX_RECORD.min(self.superblock.half_bytes / 8)
    }
}

impl<S: Storage> Reader<S> {
    /// The value of a key.
    pub(crate) async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        loop {
            let Some(location) = self.find(key) else {
                return Ok(None);
            };
            let mut bytes = vec![0; location.bytes as usize];
            self.0.read_at(location.offset, &mut bytes).await?;
            let found = Record::decode(&bytes);
            let found = found.filter(|it| it.sequence == location.sequence && it.key == key);
            if let Some(value) = found.and_then(|record| record.value) {
                return Ok(Some(value.to_vec()));
            }
            // Its place may have been given to another record in the meantime.
            if self.find(key) == Some(location) {
                return Err(Error::Damaged {
                    offset: location.offset,
                });
            }
        }
    }

    /// Whether a key has a value.
    pub(crate) fn has(&self, key: &[u8]) -> bool {
        self.find(key).is_some()
    }

    /// At least `count` keys from `cursor` on, unless there are no more, and the cursor to go on
    /// with, 0 at the end. A key that is there all the while comes once if all are asked for.
    pub(crate) fn scan(&self, cursor: u64, count: usize) -> (u64, Vec<Vec<u8>>) {
        self.0.index.lock().scan(cursor, count)
    }

    fn find(&self, key: &[u8]) -> Option<Location> {
        self.0.index.lock().find(key)
    }
}

impl<S> Clone for Reader<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Storage> Shared<S> {
    async fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let read = self.disk.read_at(offset, buffer).await;
        read.map_err(|error| Error::disk("reading", error))
    }

    async fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let written = self.disk.write_at(offset, bytes).await;
        written.map_err(|error| Error::disk("writing", error))
    }

    async fn flush(&self) -> Result<(), Error> {
        let flushed = self.disk.flush().await;
        flushed.map_err(|error| Error::disk("flushing", error))
    }
}

impl Change {
    fn key(&self) -> &[u8] {
        match self {
            Self::Set { key, .. } | Self::Remove { key } => key,
        }
    }

    fn value(&self) -> Option<&[u8]> {
        match self {
            Self::Set { value, .. } => Some(value),
            Self::Remove { .. } => None,
        }
    }

    fn size(&self) -> u64 {
        record::size(self.key().len(), self.value().map(<[u8]>::len))
    }

    fn check(&self, largest_record: u64) -> Result<(), Error> {
        let (key, value) = (self.key().len(), self.value().map_or(0, <[u8]>::len));
        if key > MAX_KEY {
            Err(Error::KeyTooLong { bytes: key })
        } else if value > MAX_VALUE || self.size() > largest_record {
            Err(Error::ValueTooLong { bytes: value })
        } else {
            Ok(())
        }
    }
}

impl Batch {
    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }
}
