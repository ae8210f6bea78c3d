//! Opens the log on a disk: finds where it is, reads it to its end, and makes sure that nothing
//! beyond that end will ever count.

use alloc::sync::Arc;
use guest_shim::alloc;
use guest_shim::prelude::*;
use guest_shim::sync::Mutex;

use super::index::{Index, Location};
use super::scan::Scan;
use super::superblock::{COPIES, HALF_UNIT, HALVES, Superblock};
use super::{Counts, Error, Log, Reader, Shared};
use crate::storage::{SECTOR, Storage};

/// The smallest disk: room for a few records in each half.
const MIN_BYTES: u64 = 256 << 10;

/// Makes an empty log on a disk, whatever is there now.
///
/// `first` is its first generation, and another than any earlier log on this disk has had: what is
/// left of that is not taken for part of the new one.
pub(crate) async fn format<S: Storage>(disk: &S, first: u64) -> Result<(), Error> {
    let half_bytes = half_bytes(disk.bytes())?;
    let superblock = Superblock {
        generation: first,
        half: 0,
        half_bytes,
        first_sequence: 0,
        resumed: 0,
    };
    // What is there now goes first: a disk on which this was cut short needs formatting again.
    for (at, sector) in [
        (COPIES[1], vec![0; SECTOR as usize]),
        (COPIES[0], superblock.encode()),
    ] {
        let written = disk.write_at(at, &sector).await;
        written.map_err(|error| Error::disk("writing", error))?;
        let flushed = disk.flush().await;
        flushed.map_err(|error| Error::disk("flushing", error))?;
    }
    Ok(())
}

/// Opens the log on a disk. A disk that holds nothing at all where a log begins gets an empty one,
/// for which `first` is as in [`format`].
pub(crate) async fn open<S: Storage>(disk: S, first: u64) -> Result<Log<S>, Error> {
    half_bytes(disk.bytes())?;
    let shared = Shared {
        disk,
        index: Mutex::new(Index::default()),
    };
    let (copy, superblock) = match newest(&shared).await? {
        Some(found) => found,
        None => {
            format(&shared.disk, first).await?;
            newest(&shared)
                .await?
                .ok_or(Error::Damaged { offset: COPIES[0] })?
        }
    };
    let mut log = Log {
        reader: Reader(Arc::new(shared)),
        superblock,
        copy,
        next_generation: superblock.generation + 1,
        end: 0,
        sequence: 0,
        failed: false,
        counts: Counts::default(),
    };
    log.recover().await?;
    Ok(log)
}

/// The superblock that counts, and which copy it is. `None` if there is nothing at all.
async fn newest<S: Storage>(shared: &Shared<S>) -> Result<Option<(usize, Superblock)>, Error> {
    let mut newest: Option<(usize, Superblock)> = None;
    let mut blank = true;
    for (copy, at) in COPIES.into_iter().enumerate() {
        let mut sector = vec![0; SECTOR as usize];
        shared.read_at(at, &mut sector).await?;
        blank &= sector.iter().all(|byte| *byte == 0);
        let Some(found) = Superblock::decode(&sector, shared.disk.bytes()) else {
            continue;
        };
        if newest.is_none_or(|(_, other)| found.generation > other.generation) {
            newest = Some((copy, found));
        }
    }
    if newest.is_none() && !blank {
        return Err(Error::NotALog);
    }
    Ok(newest)
}

impl<S: Storage> Log<S> {
    /// Reads the log to its end.
    async fn recover(&mut self) -> Result<(), Error> {
        let superblock = self.superblock;
        let disk = &self.reader.0;
        let base = superblock.base(superblock.half);
        let mut scan = Scan::new(base, superblock.half_bytes, superblock.first_sequence);
        // Beyond what was whole when the log was last opened, only what was written since counts.
        let counts =
            |at, generation| at < superblock.resumed || generation == superblock.generation;
        while let Some((offset, record)) = scan
            .next(disk, |at, record| counts(at, record.generation))
            .await?
        {
            let location = record.value.map(|_| Location {
                offset,
                bytes: record.size(),
                sequence: record.sequence,
            });
            disk.index.lock().put(record.key, location);
        }
        if scan.at() < superblock.resumed {
            return Err(Error::Damaged {
                offset: base + scan.at(),
            });
        }
        (self.end, self.sequence) = (scan.at(), scan.sequence());
        // What was found may not be durable yet: it must be, before a superblock says it is whole.
        disk.flush().await?;
        self.renew().await
    }
}

/// Bytes of each half of a disk.
fn half_bytes(disk_bytes: u64) -> Result<u64, Error> {
    if disk_bytes < MIN_BYTES {
        return Err(Error::TooSmall {
            bytes: disk_bytes,
            needed: MIN_BYTES,
        });
    }
    Ok((disk_bytes - HALVES) / 2 / HALF_UNIT * HALF_UNIT)
}
