//! What a block device counts, and what it tells its operator.

use crate::devices::virtio::backend::Counter;
use crate::say::say;

use super::request::{Refusal, Request};

/// The counters of one device.
#[derive(Debug, Default)]
pub(super) struct Tally {
    reads: u64,
    read_bytes: u64,
    writes: u64,
    write_bytes: u64,
    flushes: u64,
    discards: u64,
    write_zeroes: u64,
    pub(super) syncs: u64,
    pub(super) bounced: u64,
    pub(super) retries: u64,
    refused: [u64; Refusal::ALL.len()],
    io_errors: u64,
    last_error: i32,
    told: Vec<i32>,
}

impl Tally {
    /// A request was done.
    pub(super) fn count(&mut self, request: &Request) {
        match request {
            Request::Read(extent) => {
                self.reads += 1;
                self.read_bytes += extent.len;
            }
            Request::Write(extent) => {
                self.writes += 1;
                self.write_bytes += extent.len;
            }
            Request::Flush => self.flushes += 1,
            Request::Discard(_) => self.discards += 1,
            Request::WriteZeroes(_) => self.write_zeroes += 1,
            Request::Serial => {}
        }
    }

    /// A request was refused.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        let index = Refusal::ALL.iter().position(|(each, _)| *each == refusal);
        if let Some(count) = index.and_then(|index| self.refused.get_mut(index)) {
            *count += 1;
        }
    }

    /// The disk failed with this error number. The operator is told once of each.
    pub(super) fn fail(&mut self, errno: i32, tag: &str, disk: &str) {
        self.io_errors += 1;
        self.last_error = errno;
        if !self.told.contains(&errno) {
            self.told.push(errno);
            let error = std::io::Error::from_raw_os_error(errno);
            say(&format!(
                "{tag}: disk {disk} fails: {error}; the guest is told of I/O errors"
            ));
        }
    }

    /// All of them; refusals only by the reasons that there were.
    pub(super) fn counters(&self) -> Vec<Counter> {
        let mut counters = vec![
            ("reads", self.reads),
            ("read_bytes", self.read_bytes),
            ("writes", self.writes),
            ("write_bytes", self.write_bytes),
            ("flushes", self.flushes),
            ("discards", self.discards),
            ("write_zeroes", self.write_zeroes),
            ("syncs", self.syncs),
            ("bounced", self.bounced),
            ("retries", self.retries),
            ("refused", self.refused.iter().sum()),
            ("io_errors", self.io_errors),
            ("last_error", self.last_error.unsigned_abs().into()),
        ];
        let reasons = Refusal::ALL.iter().zip(self.refused);
        counters.extend(
            reasons
                .filter(|(_, count)| *count > 0)
                .map(|((_, name), count)| (*name, count)),
        );
        counters
    }
}
