//! The receive side: frames from the tap, read straight into the buffers that the guest offers.
//!
//! How long a frame is shows only when it has been read. So that none is cut off, each read has a
//! spill of our own behind the guest's buffers: what lands there is copied into further chains, as
//! soon as there are some. How much room is offered to a read follows the frames that come, and the
//! copy stays the exception. Without buffers the tap is not read: it keeps the frames, and drops
//! them when it is full, at no cost to anybody here.

use std::io;
use std::os::fd::AsFd;

use super::frame::{
    HEADER_BYTES, Header, MAX_FRAME, Refusal, TapOffloads, judge_received, longest_plain,
};
use super::stock::Stock;
use super::watch::Watch;
use super::{PUBLISH_EVERY, Step, is_gone};
use crate::devices::guest_io::{ToGuest, VectorRoom};
use crate::devices::virtio::backend::{BATCH, Counter, Fault, Port};
use crate::devices::virtio::queue::QueueError;
use crate::net::gate::MAX_REPLY;
use crate::net::packet::HEAD_BYTES;
use crate::net::tap::Tap;

/// First bytes of a frame, with its header, that are read into our own memory and looked at there.
const HEAD: usize = HEADER_BYTES + HEAD_BYTES;

/// Room behind the guest's buffers: for the longest frame, and a byte that tells a longer one.
const SPILL_BYTES: usize = HEADER_BYTES + MAX_FRAME as usize + 1;

/// How frames are handed to the driver.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Manner {
    /// A frame may fill several chains.
    pub(super) mergeable: bool,
    /// What the driver does itself.
    pub(super) work: TapOffloads,
    /// The largest packet that is not a bundle of segments.
    pub(super) mtu: u16,
}

impl Manner {
    /// Bytes of a frame that is no bundle, with its header.
    fn plain(self) -> u64 {
        HEADER_BYTES as u64 + longest_plain(self.mtu)
    }

    /// Bytes of the longest frame, with its header.
    fn longest(self) -> u64 {
        if self.work.tso4 || self.work.tso6 {
            HEADER_BYTES as u64 + MAX_FRAME
        } else {
            self.plain()
        }
    }
}

/// The receive side of a card.
#[derive(Debug)]
pub(super) struct Receive {
    manner: Manner,
    stock: Stock,
    room: VectorRoom,
    spill: Vec<u8>,
    /// A frame that waits for chains to hold the rest of it.
    pending: Option<Frame>,
    /// Bytes that the next frame is likely to have.
    expected: u64,
    /// Whether the tap has frames, as far as is known.
    readable: bool,
    /// Whether the driver was last seen to offer no buffers.
    starving: bool,
    /// Whether the interface was found gone.
    pub(super) gone: bool,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    frames: u64,
    bytes: u64,
    starved: u64,
    spilled: u64,
    truncated: u64,
    offload: u64,
    errors: u64,
    guarded: u64,
}

/// A frame that has been read.
#[derive(Debug, Clone, Copy)]
struct Frame {
    header: Header,
    /// Its bytes, with the header.
    total: u64,
    /// So many of them lie in the first chains of the stock, counting the header; the rest spilled.
    direct: u64,
}

/// What came of one turn.
enum Turn {
    /// A frame was handed over or dropped.
    Moved,
    /// The tap has no frame.
    Empty,
    /// There may be a frame, but there are no buffers for it.
    Hungry,
}

impl Receive {
    /// Of a card whose driver is not up.
    pub(super) fn new() -> Self {
        Self {
            manner: Manner::default(),
            stock: Stock::default(),
            room: VectorRoom::default(),
            spill: vec![0; SPILL_BYTES],
            pending: None,
            expected: 0,
            readable: false,
            starving: false,
            gone: false,
            counts: Counts::default(),
        }
    }

    /// The driver is up.
    pub(super) fn start(&mut self, manner: Manner) {
        self.manner = manner;
        self.expected = manner.plain();
        self.readable = true;
    }

    /// The driver is gone, and its buffers with it.
    pub(super) fn stop(&mut self) {
        self.stock = Stock::default();
        self.pending = None;
        self.starving = false;
    }

    /// The tap may have frames again.
    pub(super) fn ready(&mut self) {
        self.readable = true;
    }

    /// Receives one batch.
    pub(super) fn serve(
        &mut self,
        port: &mut Port<'_>,
        tap: &Tap,
        watch: &mut Watch<'_>,
    ) -> Result<Step, Fault> {
        for turn in 1..=BATCH {
            let turned = match self.pending {
                Some(frame) => self.hand_over(port, frame)?,
                None if watch.has_reply() => self.reply(port, watch)?,
                None if !self.readable => return Ok(Step::Waiting),
                None => match watch.may_receive() {
                    Ok(()) => self.receive(port, tap, watch)?,
                    Err(until) => return Ok(Step::At(until)),
                },
            };
            match turned {
                Turn::Moved => self.starving = false,
                Turn::Empty => return Ok(Step::Waiting),
                Turn::Hungry => {
                    self.counts.starved += u64::from(!self.starving);
                    self.starving = true;
                    if !port.listen()? {
                        return Ok(Step::Waiting);
                    }
                }
            }
            if turn.is_multiple_of(PUBLISH_EVERY) {
                port.publish()?;
            }
        }
        Ok(Step::More)
    }

    /// Reads one frame and hands it over, as far as there are buffers.
    fn receive(
        &mut self,
        port: &mut Port<'_>,
        tap: &Tap,
        watch: &mut Watch<'_>,
    ) -> Result<Turn, Fault> {
        let wanted = if self.manner.mergeable {
            self.expected
        } else {
            1
        };
        self.stock.fill(port, wanted)?;
        if self.stock.is_empty() {
            return Ok(Turn::Hungry);
        }
        // What is looked at stays in our own memory until then: the guest could change it.
        let own = if watch.is_there() { HEAD } else { HEADER_BYTES };
        if self.manner.mergeable
            && self.stock.bytes() < own as u64
            && !self.stock.is_all_there_can_be(port.size())
        {
            return Ok(Turn::Hungry);
        }
        let mut head = [0; HEAD];
        let mut vectors = self.room.begin::<ToGuest>(port.ram());
        vectors.add_own(&mut head[..own]);
        let offered = self
            .stock
            .offer(&mut vectors, own as u64, wanted)
            .map_err(|_| port.fault(QueueError::Rings))?;
        vectors.add_own(&mut self.spill);
        let total = match vectors.read(tap.as_fd()) {
            Ok(total) => total as u64,
            Err(error) => {
                self.readable = false;
                if error.kind() != io::ErrorKind::WouldBlock {
                    self.counts.errors += 1;
                    self.gone |= is_gone(&error);
                }
                return Ok(Turn::Empty);
            }
        };
        let header = head.first_chunk().unwrap_or(&[0; HEADER_BYTES]);
        let Some(frame) = self.judge(header, total, offered.max(own as u64)) else {
            return Ok(Turn::Moved);
        };
        let read = own.min(total as usize);
        let bytes = (total - HEADER_BYTES as u64) as usize;
        if !watch.received(&mut head[HEADER_BYTES..read], bytes, &frame.header) {
            self.counts.guarded += 1;
            return Ok(Turn::Moved);
        }
        if total > offered && offered < own as u64 {
            // The guest's buffers are smaller than what is looked at.
            self.counts.truncated += 1;
            return Ok(Turn::Moved);
        }
        self.stock
            .copy_in(HEADER_BYTES as u64, &head[HEADER_BYTES..read], port.ram())
            .map_err(|error| port.fault(error))?;
        self.hand_over(port, frame)
    }

    /// Hands over a frame that somebody has written who watches.
    fn reply(&mut self, port: &mut Port<'_>, watch: &mut Watch<'_>) -> Result<Turn, Fault> {
        let wanted = (HEADER_BYTES + MAX_REPLY) as u64;
        self.stock
            .fill(port, if self.manner.mergeable { wanted } else { 1 })?;
        if self.stock.is_empty() {
            return Ok(Turn::Hungry);
        }
        let Some(reply) = watch.take_reply() else {
            return Ok(Turn::Moved);
        };
        let total = (HEADER_BYTES + reply.len()) as u64;
        // It is a courtesy: a driver with so little room does without.
        if self.stock.room(self.manner.mergeable) >= total {
            self.stock
                .copy_in(HEADER_BYTES as u64, &reply, port.ram())
                .map_err(|error| port.fault(error))?;
            self.stock.use_up(port, Header::default(), total)?;
        }
        Ok(Turn::Moved)
    }

    /// Judges a frame of which `offered` bytes had room in the guest's buffers. `None` drops it.
    fn judge(&mut self, header: &[u8; HEADER_BYTES], total: u64, offered: u64) -> Option<Frame> {
        let len = total.saturating_sub(HEADER_BYTES as u64);
        match judge_received(header, len, self.manner.work) {
            Ok(_) if total > offered && !self.manner.mergeable => self.counts.truncated += 1,
            Ok(header) => {
                self.expect(total);
                return Some(Frame {
                    header,
                    total,
                    direct: total.min(offered),
                });
            }
            Err(Refusal::Oversized) => self.counts.truncated += 1,
            Err(_) => self.counts.offload += 1,
        }
        None
    }

    /// After one long frame the next is offered room for the longest; that wears off.
    fn expect(&mut self, total: u64) {
        let plain = self.manner.plain();
        self.expected = if total > plain {
            self.manner.longest()
        } else {
            (self.expected - self.expected / 16).max(plain)
        };
    }

    /// Hands a frame over, or keeps it while what has spilled has no chains to go to.
    fn hand_over(&mut self, port: &mut Port<'_>, frame: Frame) -> Result<Turn, Fault> {
        self.pending = None;
        let spilled = (frame.total - frame.direct) as usize;
        if spilled > 0 {
            self.stock.fill(port, frame.total)?;
            if self.stock.bytes() < frame.total {
                if self.stock.is_all_there_can_be(port.size()) {
                    self.counts.truncated += 1;
                    return Ok(Turn::Moved);
                }
                self.pending = Some(frame);
                return Ok(Turn::Hungry);
            }
            self.stock
                .copy_in(frame.direct, &self.spill[..spilled], port.ram())
                .map_err(|error| port.fault(error))?;
            self.counts.spilled += 1;
        }
        self.stock.use_up(port, frame.header, frame.total)?;
        self.counts.frames += 1;
        self.counts.bytes += frame.total - HEADER_BYTES as u64;
        Ok(Turn::Moved)
    }

    pub(super) fn counters(&self) -> [Counter; 8] {
        let counts = &self.counts;
        [
            ("rx_frames", counts.frames),
            ("rx_bytes", counts.bytes),
            ("rx_starved", counts.starved),
            ("rx_spilled", counts.spilled),
            ("rx_dropped_truncated", counts.truncated),
            ("rx_dropped_offload", counts.offload),
            ("rx_errors", counts.errors),
            ("rx_dropped_guard", counts.guarded),
        ]
    }
}
