//! Block storage: disks of a sliver, read and written in whole sectors.
//!
//! ```
//! use guest_shim::block::{Disk, Error};
//! use guest_shim::task;
//!
//! async fn count_starts(disk: &Disk) -> Result<u64, Error> {
//!     let mut sector = [0; 512];
//!     disk.read_at(0, &mut sector).await?;
//!     let starts = 1 + sector.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
//!     sector[..8].copy_from_slice(&starts.to_le_bytes());
//!     disk.write_at(0, &sector).await?;
//!     disk.flush().await?;
//!     Ok(starts)
//! }
//!
//! match Disk::open("disk0") {
//!     Ok(disk) => println!("start {:?}", task::block_on(count_starts(&disk))),
//!     Err(error) => println!("{error}"),
//! }
//! ```
//!
//! Many requests may be under way at once, on any task; the device may carry them out in any
//! order. What [`Disk::flush`] promises holds for writes that had ended when it was called.
//!
//! Offsets and lengths are in bytes, and multiples of [`SECTOR`]. Borrowed slices are copied to and
//! from memory that the device may use even when nobody waits for the request any more; who wants
//! no copy hands over a [`Buffer`] and gets it back.
//!
//! On a desktop the disks are the files named in `SLICE_DISKS`, separated by colons.

mod buffer;
mod error;
#[cfg(test)]
mod tests;

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use crate::backend::block as backend;
pub use buffer::Buffer;
pub use error::{Error, ErrorKind};

/// Bytes of a sector: the unit of offsets and lengths.
pub const SECTOR: u64 = 512;

/// What a borrowed slice is copied through at a time.
const COPY_MAX: usize = 1 << 20;

/// What is known of a disk from the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) name: String,
    pub(crate) serial: String,
    pub(crate) size: u64,
    pub(crate) block_size: u32,
    pub(crate) read_only: bool,
}

/// Which way the data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// A disk. Cloning it gives another handle of the same disk.
#[derive(Debug, Clone)]
pub struct Disk(Arc<backend::Disk>);

impl Disk {
    /// All disks of this sliver, in the order of its spec.
    pub fn all() -> Vec<Self> {
        backend::disks().iter().cloned().map(Self).collect()
    }

    /// The disk of this name, as in `disk0`, or else with this serial.
    pub fn open(name: &str) -> Result<Self, Error> {
        let disks = Self::all();
        let by_name = disks.iter().find(|disk| disk.name() == name);
        let found = by_name.or_else(|| disks.iter().find(|disk| disk.serial() == name));
        found.cloned().ok_or_else(|| Error {
            disk: name.to_string(),
            kind: ErrorKind::NotFound,
        })
    }

    /// Its name: `disk0` is the first.
    pub fn name(&self) -> &str {
        &self.0.about().name
    }

    /// Its serial, as its owner chose it; may be empty.
    pub fn serial(&self) -> &str {
        &self.0.about().serial
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.0.about().size
    }

    /// Bytes that the host reads or writes at least: requests that keep to multiples of it are
    /// quicker.
    pub fn block_size(&self) -> u32 {
        self.0.about().block_size
    }

    /// Whether writes are refused.
    pub fn is_read_only(&self) -> bool {
        self.0.about().read_only
    }

    /// Fills `bytes` with what is at `offset`.
    ///
    /// If nobody waits for the end, nothing is changed in `bytes`.
    pub async fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
        self.check(offset, bytes.len() as u64)?;
        for (offset, piece) in (offset..).step_by(COPY_MAX).zip(bytes.chunks_mut(COPY_MAX)) {
            let (result, buffer) = self.read_owned(offset, Buffer::zeroed(piece.len())).await;
            result?;
            piece.copy_from_slice(&buffer);
        }
        Ok(())
    }

    /// Writes `bytes` to `offset`. They are durable only after a [`flush`](Self::flush).
    ///
    /// If nobody waits for the end, all, some or none of them are written.
    pub async fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.check_write(offset, bytes.len() as u64)?;
        for (offset, piece) in (offset..).step_by(COPY_MAX).zip(bytes.chunks(COPY_MAX)) {
            self.write_owned(offset, Buffer::from(piece)).await.0?;
        }
        Ok(())
    }

    /// Fills a whole buffer with what is at `offset`, without copying, and gives it back.
    ///
    /// ```
    /// # async fn example(disk: &guest_shim::block::Disk) -> Result<(), guest_shim::block::Error> {
    /// use guest_shim::block::Buffer;
    ///
    /// let (result, buffer) = disk.read_owned(0, Buffer::zeroed(4096)).await;
    /// result?;
    /// println!("it begins with {:?}", &buffer[..4]);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn read_owned(&self, offset: u64, buffer: Buffer) -> (Result<(), Error>, Buffer) {
        if let Err(error) = self.check(offset, buffer.len() as u64) {
            return (Err(error), buffer);
        }
        self.transfer(Direction::Read, offset, buffer).await
    }

    /// Writes a whole buffer to `offset`, without copying, and gives it back.
    pub async fn write_owned(&self, offset: u64, buffer: Buffer) -> (Result<(), Error>, Buffer) {
        if let Err(error) = self.check_write(offset, buffer.len() as u64) {
            return (Err(error), buffer);
        }
        self.transfer(Direction::Write, offset, buffer).await
    }

    /// Makes durable what was written: when this has ended well, it is there after a power cut.
    pub async fn flush(&self) -> Result<(), Error> {
        self.tell(self.0.flush().await)
    }

    /// Says that a range is not needed any more. What is read there afterwards is not defined.
    pub async fn discard(&self, range: Range<u64>) -> Result<(), Error> {
        let len = self.check_range(&range)?;
        self.tell(self.0.discard(range.start, len).await)
    }

    /// Makes a range read as zeros, without sending any.
    pub async fn write_zeroes(&self, range: Range<u64>) -> Result<(), Error> {
        let len = self.check_range(&range)?;
        match self.0.write_zeroes(range.start, len).await {
            Err(ErrorKind::Unsupported(_)) => {}
            result => return self.tell(result),
        }
        // It has to be sent after all.
        let mut at = range.start;
        let mut zeros = Buffer::zeroed((COPY_MAX as u64).min(len) as usize);
        while at < range.end {
            if range.end - at < zeros.len() as u64 {
                zeros = Buffer::zeroed((range.end - at) as usize);
            }
            let written;
            (written, zeros) = self.write_owned(at, zeros).await;
            written?;
            at += zeros.len() as u64;
        }
        Ok(())
    }

    async fn transfer(
        &self,
        direction: Direction,
        offset: u64,
        buffer: Buffer,
    ) -> (Result<(), Error>, Buffer) {
        let (result, buffer) = self.0.transfer(direction, offset, buffer).await;
        (self.tell(result), buffer)
    }

    fn tell(&self, result: Result<(), ErrorKind>) -> Result<(), Error> {
        result.map_err(|kind| Error {
            disk: self.name().to_string(),
            kind,
        })
    }

    fn check(&self, offset: u64, len: u64) -> Result<(), Error> {
        let size = self.size();
        let sectors = offset.is_multiple_of(SECTOR) && len.is_multiple_of(SECTOR);
        self.tell(if !sectors {
            Err(ErrorKind::Misaligned { offset, len })
        } else if offset.checked_add(len).is_none_or(|end| end > size) {
            Err(ErrorKind::OutOfRange { offset, len, size })
        } else {
            Ok(())
        })
    }

    fn check_write(&self, offset: u64, len: u64) -> Result<(), Error> {
        if self.is_read_only() {
            return self.tell(Err(ErrorKind::ReadOnly));
        }
        self.check(offset, len)
    }

    /// The length of a range that may be written.
    fn check_range(&self, range: &Range<u64>) -> Result<u64, Error> {
        let len = range.end.saturating_sub(range.start);
        self.check_write(range.start, len)?;
        Ok(len)
    }
}
