//! The transmit side: frames of the guest, judged, then written to the tap from where they lie.

use std::os::fd::AsFd;

use super::frame::{HEADER_BYTES, JUDGED_BYTES, Refusal, Rules, judge_sent};
use super::watch::Watch;
use super::{PUBLISH_EVERY, Step, is_gone};
use crate::devices::guest_io::{FromGuest, VectorRoom};
use crate::devices::virtio::backend::{BATCH, Counter, Fault, Port};
use crate::devices::virtio::chain::Chain;
use crate::devices::virtio::queue::QueueError;
use crate::devices::virtio::transfer;
use crate::net::gate::{Admitted, Held};
use crate::net::packet::HEAD_BYTES;
use crate::net::tap::Tap;

/// First bytes of a chain that are read once, judged, and sent as they were read.
const READ_BYTES: usize = HEADER_BYTES + HEAD_BYTES;

/// The transmit side of a card.
#[derive(Debug)]
pub(super) struct Transmit {
    chain: Chain,
    room: VectorRoom,
    /// The frame in `chain`, if it waits to be sent.
    pending: Option<Frame>,
    /// The first bytes of that frame, with its header.
    read: Box<[u8; READ_BYTES]>,
    /// Whether the tap takes frames, as far as is known.
    writable: bool,
    /// Whether the interface was found gone.
    pub(super) gone: bool,
    counts: Counts,
}

/// A frame that may be sent.
#[derive(Debug, Clone, Copy)]
struct Frame {
    /// Its bytes, with the header.
    total: u64,
    /// So many of them were read.
    read: usize,
    /// What is known of it, if somebody watches, and whether its rate allows it.
    watched: Option<(Admitted, bool)>,
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
    guarded: u64,
}

impl Default for Transmit {
    fn default() -> Self {
        Self {
            chain: Chain::default(),
            room: VectorRoom::default(),
            pending: None,
            read: Box::new([0; READ_BYTES]),
            writable: false,
            gone: false,
            counts: Counts::default(),
        }
    }
}

impl Transmit {
    /// The tap may take frames again.
    pub(super) fn ready(&mut self) {
        self.writable = true;
    }

    /// The driver is gone, and with it what was to be sent.
    pub(super) fn stop(&mut self) {
        self.pending = None;
    }

    /// Sends one batch.
    pub(super) fn serve(
        &mut self,
        port: &mut Port<'_>,
        tap: &Tap,
        rules: &Rules,
        watch: &mut Watch<'_>,
    ) -> Result<Step, Fault> {
        for turn in 1..=BATCH {
            if !self.writable {
                return Ok(Step::Waiting);
            }
            let frame = match self.pending.take() {
                Some(frame) => Some(frame),
                None if port.pop(&mut self.chain)? => self.judge(port, rules, watch)?,
                None if port.listen()? => continue,
                None => return Ok(Step::Waiting),
            };
            if let Some(mut frame) = frame {
                match watch.admit(&mut frame.watched) {
                    Err(Held::Until(until)) => {
                        self.pending = Some(frame);
                        return Ok(Step::At(until));
                    }
                    Err(Held::Dropped) => self.counts.guarded += 1,
                    Ok(()) if self.send(port, tap, &frame, watch)? => {}
                    Ok(()) => {
                        self.pending = Some(frame);
                        self.writable = false;
                        self.counts.waits += 1;
                        return Ok(Step::Waiting);
                    }
                }
            }
            port.push(self.chain.head, 0)?;
            if turn.is_multiple_of(PUBLISH_EVERY) {
                port.publish()?;
            }
        }
        Ok(Step::More)
    }

    /// Judges the frame in the present chain; `None` drops it.
    fn judge(
        &mut self,
        port: &Port<'_>,
        rules: &Rules,
        watch: &mut Watch<'_>,
    ) -> Result<Option<Frame>, Fault> {
        if !self.chain.writable.is_empty() {
            return Err(port.fault(QueueError::Direction));
        }
        let total = transfer::total(&self.chain.readable);
        let wanted = if watch.is_there() {
            READ_BYTES
        } else {
            JUDGED_BYTES
        };
        let read = transfer::read_at(&self.chain, 0, port.ram(), &mut self.read[..wanted])
            .map_err(|error| port.fault(error))?;
        let header = match judge_sent(&self.read[..read.min(JUDGED_BYTES)], total, rules) {
            Ok(header) => header,
            Err(refusal) => {
                self.refuse(refusal);
                return Ok(None);
            }
        };
        self.read[..HEADER_BYTES].copy_from_slice(&header.bytes());
        let frame = &mut self.read[HEADER_BYTES..read];
        let bytes = (total - HEADER_BYTES as u64) as usize;
        let Some(watched) = watch.judge(frame, bytes, &header) else {
            self.counts.guarded += 1;
            return Ok(None);
        };
        Ok(Some(Frame {
            total,
            read,
            watched: watched.map(|admitted| (admitted, false)),
        }))
    }

    /// Sends the frame in the present chain. `false` if the tap takes no more for now.
    fn send(
        &mut self,
        port: &Port<'_>,
        tap: &Tap,
        frame: &Frame,
        watch: &mut Watch<'_>,
    ) -> Result<bool, Fault> {
        let mut vectors = self.room.begin::<FromGuest>(port.ram());
        vectors.add_own(&self.read[..frame.read]);
        vectors
            .add(&self.chain.readable, frame.read as u64, u64::MAX)
            .map_err(|_| port.fault(QueueError::Rings))?;
        match vectors.write(tap.as_fd()) {
            Ok(_) => {
                self.counts.frames += 1;
                self.counts.bytes += frame.total - HEADER_BYTES as u64;
                if let Some((admitted, _)) = &frame.watched {
                    watch.sent(admitted, &self.read[HEADER_BYTES..frame.read]);
                }
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

    pub(super) fn counters(&self) -> [Counter; 10] {
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
            ("tx_dropped_guard", counts.guarded),
        ]
    }
}
