//! Memory for frames on their way out, used round and round, each with its header before it.
//!
//! A frame is written where the device will read it. Segments that can be [merged](super::merge)
//! are written one behind the other, so that joining them moves nothing. Memory is taken into use
//! only as far as there are frames to hold: a quiet card needs a page. Pure.

#[cfg(test)]
mod tests;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::merge::{Run, offload};
use super::vnet::{self, Header};

/// Frames begin on cache lines.
const ALIGN: usize = 64;

/// More than the headers of any segment that is merged.
const HEADERS: usize = 128;

/// What the device does for its driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Offloads {
    /// Completes checksums.
    pub(crate) checksum: bool,
    /// Takes TCP over IPv4 apart into segments.
    pub(crate) segments4: bool,
    /// Takes TCP over IPv6 apart into segments.
    pub(crate) segments6: bool,
}

/// Where a header and its frame are, for the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parcel {
    /// Its name, until it is released.
    pub(crate) id: u64,
    /// Address of the header.
    pub(crate) address: u64,
    /// Bytes of header and frame.
    pub(crate) length: u32,
}

/// The frames on their way out.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// Its capacity is reserved once, so that it never moves.
    memory: Vec<u8>,
    offloads: Offloads,
    /// The longest frame that may come.
    longest: usize,
    /// In the order in which they were written, which is that of memory, round and round.
    spans: VecDeque<Span>,
    /// Name of the first span.
    first: u64,
    /// The last span, while it may grow.
    run: Option<Run>,
    /// Spans at the end that have not been taken.
    fresh: usize,
}

#[derive(Debug)]
struct Span {
    /// Where the header begins.
    start: usize,
    end: usize,
    done: bool,
    /// Size of segments.
    size: Option<u16>,
}

impl Outbox {
    /// For frames of at most `longest` bytes, in `capacity` bytes of memory.
    pub(crate) fn new(capacity: usize, longest: usize, offloads: Offloads) -> Self {
        Self {
            memory: Vec::with_capacity(capacity),
            offloads,
            longest,
            spans: VecDeque::new(),
            first: 0,
            run: None,
            fresh: 0,
        }
    }

    /// Whether the longest frame can be written now.
    pub(crate) fn has_room(&self) -> bool {
        self.place(vnet::LEN + self.longest).is_some()
    }

    /// Frames that have been written and not been taken.
    pub(crate) fn waiting(&self) -> usize {
        self.fresh
    }

    /// Lets `fill` write a frame of `length` bytes, to be taken apart into segments of `size` if
    /// that is given. Without room the frame is lost.
    pub(crate) fn write(
        &mut self,
        length: usize,
        size: Option<u16>,
        fill: &mut dyn FnMut(&mut [u8]),
    ) {
        let Some(start) = self.place(vnet::LEN + length) else {
            // What was promised room has it; what is written all the same is nobody's loss.
            fill(&mut alloc::vec![0; length]);
            return;
        };
        let frame = start + vnet::LEN;
        let end = frame + length;
        self.grow(end);
        match self.run.take() {
            Some(run) if self.extend(run, start, length, fill) => return,
            Some(_) => {}
            None => fill(&mut self.memory[frame..end]),
        }
        self.spans.push_back(Span {
            start,
            end,
            size,
            done: false,
        });
        self.fresh += 1;
        if size.is_none() {
            self.run = Run::begin(&self.memory[frame..end]).filter(|run| self.may_grow(run));
        }
    }

    /// The next frame for the device, which sees it as it is from now on.
    pub(crate) fn take(&mut self) -> Option<Parcel> {
        if let Some(run) = self.run.take() {
            self.finish(run);
        }
        let index = self.spans.len().checked_sub(self.fresh)?;
        let span = self.spans.get(index)?;
        self.fresh -= 1;
        let (header, frame) = self.memory[span.start..span.end].split_at_mut(vnet::LEN);
        let to_do = if self.offloads.checksum {
            offload(frame, span.size)
        } else {
            Header::default()
        };
        header.copy_from_slice(&to_do.encode());
        Some(Parcel {
            id: self.first + index as u64,
            address: header.as_ptr() as u64,
            length: (span.end - span.start) as u32,
        })
    }

    /// Takes note that the device has done with a frame.
    pub(crate) fn release(&mut self, id: u64) {
        let index = id.wrapping_sub(self.first) as usize;
        if let Some(span) = self.spans.get_mut(index) {
            span.done = true;
        }
        while self.spans.front().is_some_and(|span| span.done) {
            self.spans.pop_front();
            self.first += 1;
        }
    }

    /// Forgets all frames, after a reset of the device.
    pub(crate) fn clear(&mut self) {
        self.first += self.spans.len() as u64;
        self.spans.clear();
        self.run = None;
        self.fresh = 0;
    }

    /// Writes a frame so that it would go on from the last span, its headers over the end of that,
    /// and looks whether it does. Otherwise it moves to where a frame of its own begins.
    fn extend(
        &mut self,
        mut run: Run,
        start: usize,
        length: usize,
        fill: &mut dyn FnMut(&mut [u8]),
    ) -> bool {
        let frame = start + vnet::LEN;
        let last = self
            .spans
            .back()
            .map_or(0..0, |span| span.start + vnet::LEN..span.end);
        if frame < last.end || length < run.headers() {
            // The memory begins anew, so what follows the last span is not free; or no segment.
            self.finish(run);
            fill(&mut self.memory[frame..frame + length]);
            return false;
        }
        let over = last.end - run.headers();
        let mut kept = [0; HEADERS];
        let kept = &mut kept[..run.headers()];
        kept.copy_from_slice(&self.memory[over..last.end]);
        fill(&mut self.memory[over..over + length]);
        let (joined, segment) =
            self.memory[last.start..over + length].split_at_mut(over - last.start);
        let joins = run.join(joined, last.len(), segment);
        if !joins {
            self.memory.copy_within(over..over + length, frame);
        }
        self.memory[over..last.end].copy_from_slice(kept);
        if joins {
            if let Some(span) = self.spans.back_mut() {
                span.end = over + length;
            }
            self.run = Some(run);
        } else {
            self.finish(run);
        }
        joins
    }

    /// Makes one frame of the last span.
    fn finish(&mut self, run: Run) {
        if let Some(span) = self.spans.back_mut() {
            span.size = run.finish(&mut self.memory[span.start + vnet::LEN..span.end]);
        }
    }

    /// Whether the device takes such a run, and its headers fit over the payload of its end.
    fn may_grow(&self, run: &Run) -> bool {
        let offered = if run.is_v6() {
            self.offloads.segments6
        } else {
            self.offloads.segments4
        };
        offered && run.headers() <= HEADERS && run.size() >= HEADERS
    }

    /// Where there is room for `length` bytes.
    fn place(&self, length: usize) -> Option<usize> {
        let (Some(front), Some(back)) = (self.spans.front(), self.spans.back()) else {
            return (length <= self.memory.capacity()).then_some(0);
        };
        let start = back.end.next_multiple_of(ALIGN);
        if back.start < front.start {
            (start + length <= front.start).then_some(start)
        } else if start + length <= self.memory.capacity() {
            Some(start)
        } else {
            (length <= front.start).then_some(0)
        }
    }

    /// Takes memory into use up to `end`, a page or more at a time.
    fn grow(&mut self, end: usize) {
        if self.memory.len() < end {
            let end = end.next_multiple_of(4096).min(self.memory.capacity());
            self.memory.resize(end, 0);
        }
    }
}
