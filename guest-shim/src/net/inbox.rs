//! Memory for frames on their way in: slots that are given to the device again and again in the
//! order in which it gives them back.
//!
//! A frame may fill several slots. As they lie one behind the other and come in order, it usually
//! is in one piece already and nothing is copied. The device may say anything; what makes no
//! sense is dropped.
#![allow(unsafe_code, reason = "a device writes the memory")]

#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem::MaybeUninit;
use core::slice;

use super::card::Frame;
use super::vnet::{self, Header};

/// The longest frame a card may give: the longest packet, with an Ethernet header and a tag.
const LONGEST: usize = 65535 + 18;

/// The frames that have come.
#[derive(Debug)]
pub(crate) struct Inbox {
    memory: Box<[MaybeUninit<u8>]>,
    /// Bytes of a slot.
    slot: usize,
    /// Slots that the device may have, in order.
    free: VecDeque<u16>,
    /// Slots that the device has filled, in order.
    filled: VecDeque<Filled>,
    /// The frame to be looked at.
    front: Option<Front>,
    /// A frame that was not in one piece.
    gathered: Vec<u8>,
    /// Whether a frame may fill several slots.
    mergeable: bool,
}

#[derive(Debug, Clone, Copy)]
struct Filled {
    slot: u16,
    written: usize,
}

#[derive(Debug, Clone, Copy)]
struct Front {
    slots: usize,
    /// Where it begins, if it is in one piece.
    start: Option<usize>,
    length: usize,
    verified: bool,
}

impl Inbox {
    /// With so many slots of so many bytes, all free; a frame may fill several if it is `mergeable`.
    pub(crate) fn new(slots: u16, slot: usize, mergeable: bool) -> Self {
        Self {
            memory: Box::new_uninit_slice(usize::from(slots) * slot),
            slot,
            free: (0..slots).collect(),
            filled: VecDeque::with_capacity(slots.into()),
            front: None,
            gathered: Vec::new(),
            mergeable,
        }
    }

    /// The next slot that the device may have, with its address and length.
    pub(crate) fn give(&mut self) -> Option<(u16, u64, u32)> {
        let slot = self.free.pop_front()?;
        let start = usize::from(slot) * self.slot;
        let address = self.memory[start..].as_mut_ptr() as u64;
        Some((slot, address, self.slot as u32))
    }

    /// Forgets all frames and takes all slots back, from a device in reset.
    pub(crate) fn clear(&mut self) {
        let slots = (self.memory.len() / self.slot) as u16;
        self.free = (0..slots).collect();
        self.filled.clear();
        self.front = None;
    }

    /// Slots that the device may have.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// Takes back a slot into which the device has written.
    ///
    /// # Safety
    ///
    /// The slot was given and not taken back since, and the device has written as much of it as is
    /// said, or all of it if that is more, and is done with it.
    pub(crate) unsafe fn take(&mut self, slot: u16, written: u32) {
        let written = written as usize;
        self.filled.push_back(Filled { slot, written });
    }

    /// The frame that has come first and has not been dropped.
    pub(crate) fn front(&mut self) -> Option<Frame<'_>> {
        while self.front.is_none() {
            match self.assemble() {
                Assembled::Frame(front) => self.front = Some(front),
                Assembled::Nothing => return None,
                Assembled::Nonsense(slots) => self.free_slots(slots),
            }
        }
        let front = self.front?;
        let bytes = match front.start {
            // SAFETY: `assemble` found it inside slots, all of which the device wrote, by the word
            // of `take`; it has none of them until they are given again.
            Some(start) => unsafe { initialised(&self.memory[start..start + front.length]) },
            None => &self.gathered,
        };
        Some(Frame {
            bytes,
            verified: front.verified,
        })
    }

    /// Drops the frame that has come first.
    pub(crate) fn drop_front(&mut self) {
        if let Some(front) = self.front.take() {
            self.free_slots(front.slots);
        }
    }

    fn free_slots(&mut self, slots: usize) {
        let freed = self.filled.drain(..slots);
        self.free.extend(freed.map(|filled| filled.slot));
    }

    /// Looks at what the next slots hold.
    fn assemble(&mut self) -> Assembled {
        let Some(&first) = self.filled.front() else {
            return Assembled::Nothing;
        };
        if first.written <= vnet::LEN || first.written > self.slot {
            return Assembled::Nonsense(1);
        }
        let start = usize::from(first.slot) * self.slot;
        // SAFETY: the device wrote more than a header into the slot, by the word of `take`.
        let bytes = unsafe { initialised(&self.memory[start..start + first.written]) };
        let header = bytes.first_chunk().map(Header::decode).unwrap_or_default();
        let slots = if self.mergeable {
            usize::from(header.buffers)
        } else {
            1
        };
        if slots == 0 || slots > self.memory.len() / self.slot {
            return Assembled::Nonsense(1);
        }
        if slots > self.filled.len() {
            return Assembled::Nothing;
        }
        let pieces = self.filled.range(..slots);
        let length = pieces.clone().map(|piece| piece.written).sum::<usize>() - vnet::LEN;
        let sound = pieces
            .clone()
            .all(|piece| (1..=self.slot).contains(&piece.written));
        if !sound || length > LONGEST {
            return Assembled::Nonsense(slots);
        }
        let in_one_piece = pieces
            .clone()
            .zip(pieces.clone().skip(1))
            .all(|(this, next)| this.written == self.slot && next.slot == this.slot + 1);
        if !in_one_piece {
            self.gathered.clear();
            for piece in pieces {
                let start = usize::from(piece.slot) * self.slot;
                // SAFETY: as for the first slot; `sound` says that it is not longer than a slot.
                let bytes = unsafe { initialised(&self.memory[start..start + piece.written]) };
                self.gathered.extend_from_slice(bytes);
            }
            self.gathered.drain(..vnet::LEN);
        }
        Assembled::Frame(Front {
            slots,
            start: in_one_piece.then_some(start + vnet::LEN),
            length,
            verified: header.is_verified(),
        })
    }
}

enum Assembled {
    Frame(Front),
    /// The rest of a frame is yet to come.
    Nothing,
    /// So many slots are of no use.
    Nonsense(usize),
}

/// What a device has written.
///
/// # Safety
///
/// It has written all of it.
unsafe fn initialised(bytes: &[MaybeUninit<u8>]) -> &[u8] {
    // SAFETY: the caller says that the bytes are initialised; the types have the same layout.
    unsafe { slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
}
