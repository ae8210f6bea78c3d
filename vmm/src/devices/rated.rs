//! An [`Output`] through which a guest may print so much in a second, and no more.

use std::os::fd::BorrowedFd;

use super::output::{Output, PIECE};
use crate::nanos::Nanos;
use crate::net::bucket::Bucket;

/// Bytes that may be printed at once after a silence.
pub(crate) const BURST: u64 = 1 << 20;

/// Whoever has to wait for its rate waits for this part of a second's worth: each wait wakes
/// somebody, and lines are short.
const GRAINS_PER_SECOND: u64 = 100;

/// The output.
#[derive(Debug)]
pub struct RatedOutput {
    output: Output,
    bucket: Bucket,
    grain: u64,
    written_bytes: u64,
}

/// What became of a piece of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrote {
    /// So many bytes of it, at least one, were written.
    Some(usize),
    /// Nothing: the output has no room, and its descriptor tells when it has.
    Full,
    /// Nothing before this moment.
    Wait(Nanos),
}

impl RatedOutput {
    /// Writes to `output` at most `bytes_per_second`.
    pub fn new(output: Output, bytes_per_second: u64) -> Self {
        Self {
            output,
            bucket: Bucket::new(bytes_per_second, BURST),
            grain: (bytes_per_second / GRAINS_PER_SECOND).max(1),
            written_bytes: 0,
        }
    }

    /// Writes what it may of `bytes`, of which there is at least one, at most [`PIECE`].
    pub fn write(&mut self, bytes: &[u8], now: Nanos) -> Wrote {
        let len = bytes.len().min(PIECE) as u64;
        let allowed = self.bucket.available(now);
        if allowed < self.grain.min(len) {
            return Wrote::Wait(self.bucket.ready_at(self.grain, now));
        }
        let written = self.output.write(&bytes[..allowed.min(len) as usize]);
        if written == 0 {
            return Wrote::Full;
        }
        self.bucket.take(written as u64);
        self.written_bytes += written as u64;
        Wrote::Some(written)
    }

    /// Bytes written so far.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// The descriptor, to watch for room.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.output.fd()
    }
}
