//! The lane for what cannot go past the page cache as it is: through aligned memory of our own.
//!
//! Memory that is not aligned is copied. Places that are not are widened: what surrounds a write is
//! read first and written back with it. One request at a time, so that two of them never write back
//! each other's surroundings, and so that no guest makes the monitor hold much memory.

use std::collections::VecDeque;

use crate::devices::guest_io::{FromGuest, ToGuest};
use crate::devices::virtio::chain::Buffer;
use crate::devices::virtio::transfer::{read_at, write_at};
use crate::disk::Alignment;
use crate::disk::aligned::Pages;
use crate::disk::engine::{Extent, Vectors};
use crate::kvm::memory::GuestRam;

use super::request::{HEADER_BYTES, Request};
use super::slots::Index;
use super::work::Work;

/// The most that is moved at once.
pub(super) const LANE_BYTES: u64 = 256 << 10;

/// Where the lane's request is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    /// It reads for the guest.
    #[default]
    Read,
    /// It reads what surrounds a write.
    Fill,
    /// It writes.
    Write,
}

/// The lane.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pages: Option<Pages>,
    owner: Option<Index>,
    waiting: VecDeque<Index>,
    phase: Phase,
    /// What is read or written, aligned.
    whole: Extent,
    /// What of it was asked for.
    part: Extent,
}

impl Lane {
    /// Whether this request is in it.
    pub(super) fn is_of(&self, index: Index) -> bool {
        self.owner == Some(index)
    }

    /// This request is in it no more, if it was.
    pub(super) fn leave(&mut self, index: Index) {
        if self.is_of(index) {
            self.owner = None;
        }
    }

    /// The next request that may enter.
    pub(super) fn take_next(&mut self) -> Option<Index> {
        match self.owner {
            None => self.waiting.pop_front(),
            Some(_) => None,
        }
    }

    /// Nobody is in it or waits for it.
    pub(super) fn end_all(&mut self) {
        self.owner = None;
        self.waiting.clear();
    }

    /// Where the part asked for lies in the pages.
    fn place(&self) -> std::ops::Range<usize> {
        let start = (self.part.at - self.whole.at) as usize;
        start..start + self.part.len as usize
    }
}

/// Whether what is left to do can be done as it is: its place, and each buffer after the first `skip`
/// bytes.
pub(super) fn suits(alignment: Alignment, left: Extent, buffers: &[Buffer], skip: u64) -> bool {
    let Alignment { memory, place } = alignment;
    let (mut skip, mut len) = (skip, left.len);
    let placed = left.at.is_multiple_of(place) && left.len.is_multiple_of(place);
    placed
        && buffers.iter().all(|buffer| {
            let skipped = skip.min(buffer.len.into());
            skip -= skipped;
            let part = (u64::from(buffer.len) - skipped).min(len);
            len -= part;
            let at = buffer.address.0 + skipped;
            part == 0 || at.is_multiple_of(memory) && part.is_multiple_of(place)
        })
}

impl Work {
    /// Does a piece of what is left of a request through the lane, when it is free.
    pub(super) fn use_lane(
        &mut self,
        index: Index,
        left: Extent,
        alignment: Alignment,
        ram: &GuestRam,
    ) {
        if self.lane.owner.is_some_and(|owner| owner != index) {
            return self.lane.waiting.push_back(index);
        }
        self.tally.bounced += 1;
        let unit = alignment.place.max(1);
        let start = left.at - left.at % unit;
        // At least one unit fits in beside what is widened at the front.
        let end = left.end().min(start + LANE_BYTES);
        let lane = &mut self.lane;
        lane.owner = Some(index);
        lane.whole = Extent {
            at: start,
            len: (end - start).next_multiple_of(unit),
        };
        lane.part = Extent {
            at: left.at,
            len: end - left.at,
        };
        let reads = matches!(self.slots.get(index).request, Request::Read(_));
        match (reads, lane.whole == lane.part) {
            (true, _) => self.lane_read(index, Phase::Read, ram),
            (false, false) => self.lane_read(index, Phase::Fill, ram),
            (false, true) => self.lane_write(index, ram),
        }
    }

    /// The lane's job moved so many bytes.
    pub(super) fn lane_moved(&mut self, index: Index, bytes: u64, ram: &GuestRam) {
        let part = self.lane.part;
        let before = part.at - self.lane.whole.at;
        let reached = bytes.saturating_sub(before).min(part.len);
        match self.lane.phase {
            Phase::Fill => self.lane_filled(index, bytes, ram),
            // The file has become shorter, or what was asked for was not reached.
            _ if reached == 0 => self.fail(index, libc::EIO),
            Phase::Write => self.lane_done(index, reached, ram),
            Phase::Read => {
                let place = self.lane.place();
                let pages = self.lane.pages.get_or_insert_with(new_pages);
                let bytes = &pages.bytes()[place][..reached as usize];
                let slot = self.slots.get(index);
                match write_at(&slot.chain, slot.done, ram, bytes) {
                    Ok(_) => self.lane_done(index, reached, ram),
                    Err(_) => self.fail(index, libc::EFAULT),
                }
            }
        }
    }

    /// So much of what surrounds a write was read: as much is written now.
    fn lane_filled(&mut self, index: Index, bytes: u64, ram: &GuestRam) {
        let unit = self.disk.direct().map_or(1, |alignment| alignment.place);
        let lane = &mut self.lane;
        let len = bytes.min(lane.whole.len);
        lane.whole.len = len - len % unit;
        if lane.whole.len == 0 {
            return self.fail(index, libc::EIO);
        }
        lane.part.len = lane.part.end().min(lane.whole.end()) - lane.part.at;
        self.lane_write(index, ram);
    }

    fn lane_done(&mut self, index: Index, bytes: u64, ram: &GuestRam) {
        self.slots.get(index).advance(bytes);
        self.step(index, ram);
    }

    fn lane_read(&mut self, index: Index, phase: Phase, ram: &GuestRam) {
        self.lane.phase = phase;
        let Extent { at, len } = self.lane.whole;
        let pages = self.lane.pages.get_or_insert_with(new_pages);
        let mut vectors = self.slots.get(index).room.begin::<ToGuest>(ram);
        vectors.add_own(&mut pages.bytes_mut()[..len as usize]);
        let vectors = Vectors {
            first: vectors.as_ptr(),
            count: vectors.count() as u32,
        };
        self.queue_move(index, Ok(vectors), at, true);
    }

    /// Copies the part asked for into the pages and writes them.
    fn lane_write(&mut self, index: Index, ram: &GuestRam) {
        self.lane.phase = Phase::Write;
        let place = self.lane.place();
        let Extent { at, len } = self.lane.whole;
        let pages = self.lane.pages.get_or_insert_with(new_pages);
        let slot = self.slots.get(index);
        let part = &mut pages.bytes_mut()[place];
        match slot.request {
            Request::Write(_) => {
                let skip = slot.done + HEADER_BYTES as u64;
                if read_at(&slot.chain, skip, ram, part).is_err() {
                    return self.fail(index, libc::EFAULT);
                }
            }
            _ => part.fill(0),
        }
        let mut vectors = slot.room.begin::<FromGuest>(ram);
        vectors.add_own(&pages.bytes()[..len as usize]);
        let vectors = Vectors {
            first: vectors.as_ptr(),
            count: vectors.count() as u32,
        };
        self.queue_move(index, Ok(vectors), at, false);
    }
}

fn new_pages() -> Pages {
    Pages::new(LANE_BYTES as usize)
}
