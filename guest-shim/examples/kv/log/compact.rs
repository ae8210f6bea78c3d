//! Copies what counts to the other half, so that what does not count any more takes no room.

use guest_shim::prelude::*;

use super::index::Location;
use super::record::Record;
use super::scan::Scan;
use super::superblock::Superblock;
use super::{BATCH, Error, Log};
use crate::storage::Storage;

/// The copy, as far as it has come.
#[derive(Debug)]
struct Copied {
    /// Generation of the copies.
    generation: u64,
    /// Where on the disk it begins.
    base: u64,
    /// Bytes that are written.
    written: u64,
    /// Bytes to be written next.
    buffer: Vec<u8>,
    /// Where records were, in rising order, and where they are now.
    moved: Vec<(u64, Location)>,
}

impl<S: Storage> Log<S> {
    /// Makes the other half the one in use, with only what the index points to in it. Readers do
    /// not notice. If it fails nothing has changed.
    pub(super) async fn compact(&mut self) -> Result<(), Error> {
        let old = self.superblock;
        let new = Superblock {
            generation: self.new_generation(),
            half: 1 - old.half,
            first_sequence: self.sequence,
            ..old
        };
        let mut copied = Copied {
            generation: new.generation,
            base: new.base(new.half),
            written: 0,
            buffer: Vec::new(),
            moved: Vec::new(),
        };
        self.copy_live(&mut copied).await?;
        self.write_copied(&mut copied).await?;
        self.reader.0.flush().await?;
        let new = Superblock {
            resumed: copied.written,
            ..new
        };
        self.change_superblock(new).await?;
        self.end = copied.written;
        self.sequence += copied.moved.len() as u64;
        self.counts.compactions += 1;
        self.reader.0.index.lock().relocate(|location| {
            let place = copied
                .moved
                .binary_search_by_key(&location.offset, |(from, _)| *from);
            // Every entry's record was copied, or copying had failed.
            place.map_or(location, |place| copied.moved[place].1)
        });
        Ok(())
    }

    async fn copy_live(&self, copied: &mut Copied) -> Result<(), Error> {
        let disk = &self.reader.0;
        let old = self.superblock;
        let base = old.base(old.half);
        let mut scan = Scan::new(base, self.end, old.first_sequence);
        while scan.at() < self.end {
            let at = base + scan.at();
            let next = scan.next(disk, |_, _| true).await?;
            let (offset, record) = next.ok_or(Error::Damaged { offset: at })?;
            let location = disk.index.lock().find(record.key);
            if location.is_none_or(|location| location.offset != offset) {
                continue;
            }
            let sequence = self.sequence + copied.moved.len() as u64;
            let record = Record {
                generation: copied.generation,
                sequence,
                ..record
            };
            let location = Location {
                offset: copied.base + copied.written + copied.buffer.len() as u64,
                bytes: record.size(),
                sequence,
            };
            record.encode(&mut copied.buffer);
            copied.moved.push((offset, location));
            if copied.buffer.len() as u64 >= BATCH {
                self.write_copied(copied).await?;
            }
        }
        Ok(())
    }

    /// Writes what is in the buffer.
    async fn write_copied(&self, copied: &mut Copied) -> Result<(), Error> {
        if !copied.buffer.is_empty() {
            let offset = copied.base + copied.written;
            self.reader.0.write_at(offset, &copied.buffer).await?;
            copied.written += copied.buffer.len() as u64;
            copied.buffer.clear();
        }
        Ok(())
    }
}
