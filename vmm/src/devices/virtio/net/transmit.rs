//! The transmit side: frames of the guest, judged, then written to the tap from where they lie.

use std::os::fd::AsFd;

use super::frame::{HEADER_BYTES, JUDGED_BYTES, Refusal, Rules, judge_sent};
use super::{PUBLISH_EVERY, Step, is_gone};
use crate::devices::guest_io::{FromGuest, VectorRoom};
use crate::devices::virtio::backend::{BATCH, Counter, Fault, Port};
use crate::devices::virtio::chain::Chain;
use crate::devices::virtio::queue::QueueError;
use crate::devices::virtio::transfer;
use crate::net::tap::Tap;

/// The transmit side of a card.
#[derive(Debug, Default)]
pub(super) struct Transmit {
    chain: Chain,
    room: VectorRoom,
    /// Whether the tap takes frames, as far as is known.
    writable: bool,
    /// Whether the interface was found gone.
    pub(super) gone: bool,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    frames: u64,
    bytes: u64,
    waits: u64,
    short: u64,
    oversized: u64,
    checksum: u64,
    segmentation: u64,
    forged: u64,
    refused: u64,
}

impl Transmit {
    /// The tap may take frames again.
    pub(super) fn ready(&mut self) {
        self.writable = true;
    }

    /// Sends one batch.
    pub(super) fn serve(
        &mut self,
        port: &mut Port<'_>,
        tap: &Tap,
        rules: &Rules,
    ) -> Result<Step, Fault> {
        for turn in 1..=BATCH {
            if !self.writable {
                return Ok(Step::Waiting);
            }
            if !port.pop(&mut self.chain)? {
                if port.listen()? {
                    continue;
                }
                return Ok(Step::Waiting);
            }
            if !self.send(port, tap, rules)? {
                self.writable = false;
                self.counts.waits += 1;
                port.unpop(1);
                return Ok(Step::Waiting);
            }
            port.push(self.chain.head, 0)?;
            if turn.is_multiple_of(PUBLISH_EVERY) {
                port.publish()?;
            }
        }
        Ok(Step::More)
    }

    /// Sends or drops the frame in the present chain. `false` if the tap takes no more for now.
    fn send(&mut self, port: &Port<'_>, tap: &Tap, rules: &Rules) -> Result<bool, Fault> {
        if !self.chain.writable.is_empty() {
            return Err(port.fault(QueueError::Direction));
        }
        let total = transfer::total(&self.chain.readable);
        let mut judged = [0; JUDGED_BYTES];
        let len = transfer::read_at(&self.chain, 0, port.ram(), &mut judged)
            .map_err(|error| port.fault(error))?;
        let header = match judge_sent(&judged[..len], total, rules) {
            Ok(header) => header,
            Err(refusal) => {
                self.refuse(refusal);
                return Ok(true);
            }
        };
        judged[..HEADER_BYTES].copy_from_slice(&header.bytes());
        let mut vectors = self.room.begin::<FromGuest>(port.ram());
        vectors.add_own(&judged);
        vectors
            .add(&self.chain.readable, JUDGED_BYTES as u64, u64::MAX)
            .map_err(|_| port.fault(QueueError::Rings))?;
        match vectors.write(tap.as_fd()) {
            Ok(_) => {
                self.counts.frames += 1;
                self.counts.bytes += total - HEADER_BYTES as u64;
                Ok(true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
            // What the kernel finds wrong in a frame, or an interface that is down.
            Err(error) => {
                self.counts.refused += 1;
                self.gone |= is_gone(&error);
                Ok(true)
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        let count = match refusal {
            Refusal::Short => &mut self.counts.short,
            Refusal::Oversized => &mut self.counts.oversized,
            Refusal::Checksum => &mut self.counts.checksum,
            Refusal::Segmentation => &mut self.counts.segmentation,
            Refusal::ForgedSource => &mut self.counts.forged,
        };
        *count += 1;
    }

    pub(super) fn counters(&self) -> [Counter; 9] {
        let counts = &self.counts;
        [
            ("tx_frames", counts.frames),
            ("tx_bytes", counts.bytes),
            ("tx_waits", counts.waits),
            ("tx_dropped_short", counts.short),
            ("tx_dropped_oversized", counts.oversized),
            ("tx_dropped_checksum", counts.checksum),
            ("tx_dropped_segmentation", counts.segmentation),
            ("tx_forged_source", counts.forged),
            ("tx_dropped_refused", counts.refused),
        ]
    }
}
