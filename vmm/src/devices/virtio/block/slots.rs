//! The requests that are being done, each in a slot whose memory is used again.

use crate::devices::guest_io::VectorRoom;
use crate::devices::virtio::chain::Chain;
use crate::disk::engine::Extent;

use super::request::Request;

/// Number of a slot; also the token of its job.
pub(super) type Index = u32;

/// How zeros are made, from the best way to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ZeroBy {
    /// By giving up the room.
    Unmapping,
    /// By noting that it holds zeros.
    Marking,
    /// By writing them.
    Writing,
}

/// One request.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) chain: Chain,
    pub(super) request: Request,
    /// The segment it is at.
    pub(super) segment: usize,
    /// Bytes that are done, of the whole or of that segment.
    pub(super) done: u64,
    pub(super) zero_by: ZeroBy,
    /// Whether what was written has to be made durable before it is done.
    pub(super) sync: bool,
    /// How often its job has come back without having been done.
    pub(super) retries: u32,
    /// What its job's vectors lie in.
    pub(super) room: VectorRoom,
}

impl Slot {
    fn new() -> Self {
        Self {
            chain: Chain::default(),
            request: Request::Flush,
            segment: 0,
            done: 0,
            zero_by: ZeroBy::Writing,
            sync: false,
            retries: 0,
            room: VectorRoom::default(),
        }
    }

    /// So many bytes more are done.
    pub(super) fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        self.retries = 0;
        if let Request::Discard(segments) | Request::WriteZeroes(segments) = &self.request {
            let segment = segments.as_slice().get(self.segment);
            if segment.is_some_and(|segment| self.done >= segment.extent.len) {
                (self.segment, self.done) = (self.segment + 1, 0);
                self.choose_way();
            }
        }
    }

    /// Chooses how zeros are made in the segment it is at.
    fn choose_way(&mut self) {
        if let Request::WriteZeroes(segments) = &self.request {
            let segment = segments.as_slice().get(self.segment);
            self.zero_by = match segment {
                Some(segment) if segment.unmap => ZeroBy::Unmapping,
                _ => ZeroBy::Marking,
            };
        }
    }

    /// What is left to do: of the whole, or of the segment it is at. `None`: nothing.
    pub(super) fn left(&self) -> Option<Extent> {
        let extent = match &self.request {
            Request::Read(extent) | Request::Write(extent) => *extent,
            Request::Discard(segments) | Request::WriteZeroes(segments) => {
                segments.as_slice().get(self.segment)?.extent
            }
            Request::Flush | Request::Serial => return None,
        };
        let len = extent.len.checked_sub(self.done).filter(|len| *len > 0)?;
        Some(Extent {
            at: extent.at + self.done,
            len,
        })
    }
}

/// All slots: as many as were ever needed at a time.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<Index>,
}

impl Slots {
    /// Puts a request into a slot. Its chain is exchanged for one whose memory can be used.
    pub(super) fn begin(&mut self, chain: &mut Chain, request: Request, sync: bool) -> Index {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::new());
            self.slots.len() as Index - 1
        });
        let slot = self.get(index);
        std::mem::swap(&mut slot.chain, chain);
        slot.request = request;
        (slot.segment, slot.done, slot.retries) = (0, 0, 0);
        slot.sync = sync;
        slot.choose_way();
        index
    }

    /// One of them.
    pub(super) fn get(&mut self, index: Index) -> &mut Slot {
        &mut self.slots[index as usize]
    }

    /// It is free again.
    pub(super) fn end(&mut self, index: Index) {
        self.free.push(index);
    }

    /// All are free again.
    pub(super) fn end_all(&mut self) {
        self.free.clear();
        self.free.extend(0..self.slots.len() as Index);
    }

    /// How many are in use.
    pub(super) fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// How many were ever in use at a time.
    pub(super) fn most_used(&self) -> usize {
        self.slots.len()
    }
}
