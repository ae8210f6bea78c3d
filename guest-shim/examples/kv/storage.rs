//! What the log needs of a disk. Behind a trait, so that tests can give it one that loses power.

use core::fmt::Display;
use core::future::Future;

use guest_shim::block::{self, Disk};

/// The unit that is written whole or not at all.
pub(crate) const SECTOR: u64 = 512;

/// A disk of whole sectors. All offsets and lengths are multiples of [`SECTOR`].
pub(crate) trait Storage: Send + Sync + 'static {
    /// Why something cannot be read or written.
    type Error: Display + Send;

    /// How large it is.
    fn bytes(&self) -> u64;

    /// Fills `buffer` with what is at `offset`.
    fn read_at(
        &self,
        offset: u64,
        buffer: &mut [u8],
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Puts `bytes` at `offset`. Until the next flush each sector may be there or not, in any
    /// combination.
    fn write_at(
        &self,
        offset: u64,
        bytes: &[u8],
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Makes durable all that was written before.
    fn flush(&self) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

impl Storage for Disk {
    type Error = block::Error;

    fn bytes(&self) -> u64 {
        self.size()
    }

    async fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), block::Error> {
        Disk::read_at(self, offset, buffer).await
    }

    async fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), block::Error> {
        Disk::write_at(self, offset, bytes).await
    }

    async fn flush(&self) -> Result<(), block::Error> {
        Disk::flush(self).await
    }
}
