//! A split virtqueue, driver side (virtio 1.2, 2.7).
//!
//! A buffer chain goes in with [`Queue::add`], is shown to the device with [`Queue::publish`], and
//! comes back from [`Queue::pop`]. Nobody is called and nothing is waited for. Whoever owns the
//! queue
//!
//! - rings the doorbell when [`Queue::wants_doorbell`] says so, once for all that was published
//!   since it was last asked; before `IDLE`, which is a doorbell for every queue, not at all;
//! - tells with [`Queue::ask`] when the device is to end an `IDLE`, and looks again when that says
//!   that it has already happened.
//!
//! A device that gives back what it was not given breaks the queue: nothing comes back any more,
//! and the owner learns it from [`Queue::is_broken`]. Indices count on and on and wrap at 65536, as
//! the specification has it.
#![allow(
    unsafe_code,
    reason = "a device uses buffers after the call that names them"
)]

#[cfg(test)]
mod tests;

use core::sync::atomic::{Ordering, fence};

use super::mmio::{F_EVENT_IDX, F_INDIRECT_DESC};
use super::ring::{Descriptor, Parts, TABLE_SIZE, Table};

/// Descriptor flag: the chain goes on at `next`.
pub(super) const NEXT: u16 = 1;
/// Descriptor flag: the device writes the buffer; otherwise it reads it.
pub(super) const WRITE: u16 = 2;
/// Descriptor flag: the buffer is a table of descriptors.
pub(super) const INDIRECT: u16 = 4;
/// Used ring flag: the device wants no doorbell.
const NO_NOTIFY: u16 = 1;
/// Available ring flag: the driver wants no rest ended.
pub(super) const NO_INTERRUPT: u16 = 1;

/// One piece of memory in a chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buffer {
    /// Where it begins. In a slice a virtual address is the guest physical one.
    pub(crate) address: u64,
    /// Bytes.
    pub(crate) length: u32,
    /// Whether the device writes it. Buffers that it reads come first in a chain (2.7.4.2).
    pub(crate) device_writes: bool,
}

/// A chain that the device has done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Done {
    /// What [`Queue::add`] returned for it.
    pub(crate) head: u16,
    /// Bytes that the device wrote into it: never more than there was room for.
    pub(crate) written: u32,
}

/// There are fewer free descriptors than the chain needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueFull;

/// When the device is to end an `IDLE` for this queue (2.7.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tell {
    /// Not at all. With `EVENT_IDX` a reminder comes after 65535 chains all the same.
    Never,
    /// When it has given back as many chains as this, at least 1, beyond those popped. Without
    /// `EVENT_IDX`, at each.
    After(u16),
}

impl Tell {
    /// When it gives back anything.
    pub(crate) const AT_NEXT: Self = Self::After(1);
}

/// The driver's end of a queue.
#[derive(Debug)]
pub(crate) struct Queue {
    ring: Parts,
    event_idx: bool,
    /// One table per descriptor; none without indirect descriptors.
    tables: &'static [Table],
    /// First of the free descriptors.
    free: u16,
    free_count: u16,
    /// Chains that the device has or is about to be shown.
    chains_out: u16,
    /// Where the next chain goes in the available ring.
    next_available: u16,
    /// What was published when the doorbell was last thought of.
    doorbell_at: u16,
    /// Where the next chain will appear in the used ring.
    next_used: u16,
    broken: bool,
}

impl Queue {
    /// The only end of `ring`, whose device is in reset, with the features that are negotiated.
    pub(crate) fn new(ring: Parts, features: u64) -> Self {
        ring.clear();
        Self {
            event_idx: features & F_EVENT_IDX != 0,
            tables: match features & F_INDIRECT_DESC {
                0 => &[],
                _ => ring.tables(),
            },
            free: 0,
            free_count: ring.size(),
            chains_out: 0,
            next_available: 0,
            doorbell_at: 0,
            next_used: 0,
            broken: false,
            ring,
        }
    }

    /// The same queue after a reset of its device: all chains that were in it are forgotten.
    pub(crate) fn renew(&mut self) {
        self.ring.clear();
        *self = Self {
            free: 0,
            free_count: self.ring.size(),
            chains_out: 0,
            next_available: 0,
            doorbell_at: 0,
            next_used: 0,
            broken: false,
            ..*self
        };
    }

    /// Its memory.
    pub(crate) fn ring(&self) -> Parts {
        self.ring
    }

    /// Puts a chain of at least one buffer into the ring. The device does not see it before
    /// [`publish`](Self::publish). Returns the chain's head, which is its name until it is done:
    /// a number below the ring's size.
    ///
    /// # Safety
    ///
    /// Until the chain is popped or the device is reset, the buffers must stay valid, nobody may
    /// change those that the device reads, and nobody may touch those that it writes.
    pub(crate) unsafe fn add(&mut self, chain: &[Buffer]) -> Result<u16, QueueFull> {
        debug_assert!(!chain.is_empty(), "a chain without buffers");
        debug_assert!(
            chain.is_sorted_by_key(|buffer| buffer.device_writes),
            "a buffer that the device reads after one that it writes"
        );
        let head = self.free;
        let in_table = chain.len() > 1 && chain.len() <= TABLE_SIZE && !self.tables.is_empty();
        let count = if in_table { 1 } else { chain.len() };
        if count > usize::from(self.free_count) {
            return Err(QueueFull);
        }
        if in_table {
            let table = &self.tables[usize::from(head)];
            for ((buffer, descriptor), next) in chain.iter().zip(table).zip(1..) {
                describe(
                    descriptor,
                    buffer,
                    (next < chain.len()).then_some(next as u16),
                );
            }
            let descriptor = &self.ring.descriptors[usize::from(head)];
            let bytes = chain.len() * size_of::<Descriptor>();
            descriptor
                .address
                .store(table.as_ptr() as u64, Ordering::Relaxed);
            descriptor.length.store(bytes as u32, Ordering::Relaxed);
            descriptor.flags.store(INDIRECT, Ordering::Relaxed);
            self.free = self.next_slot(head);
        } else {
            let mut left = chain.len();
            for buffer in chain {
                let at = self.free;
                self.free = self.next_slot(at);
                left -= 1;
                let descriptor = &self.ring.descriptors[usize::from(at)];
                describe(descriptor, buffer, (left > 0).then_some(self.free));
            }
        }
        let writable = chain.iter().filter(|buffer| buffer.device_writes);
        let writable = writable.map(|buffer| buffer.length).sum();
        let slot = &self.ring.slots[usize::from(head)];
        slot.count.store(count as u16, Ordering::Relaxed);
        slot.writable.store(writable, Ordering::Relaxed);
        self.free_count -= count as u16;
        self.chains_out += 1;
        self.ring.heads[self.place(self.next_available)].store(head, Ordering::Relaxed);
        self.next_available = self.next_available.wrapping_add(1);
        Ok(head)
    }

    /// Shows the device all chains added so far. No doorbell is rung.
    pub(crate) fn publish(&mut self) {
        // Release: the chains before the index (2.7.13.3).
        let index = &self.ring.available.index;
        index.store(self.next_available, Ordering::Release);
        // What a full ring ago was new has been taken since, doorbell or not. So the distance
        // never comes near the wrap of the index.
        if self.next_available.wrapping_sub(self.doorbell_at) > self.ring.size() {
            self.doorbell_at = self.next_available.wrapping_sub(self.ring.size());
        }
    }

    /// Whether the device wants a doorbell for what was published since this was last asked.
    pub(crate) fn wants_doorbell(&mut self) -> bool {
        let new = self.ring.available.index.load(Ordering::Relaxed);
        let old = core::mem::replace(&mut self.doorbell_at, new);
        if new == old {
            return false;
        }
        // The index before the question, or both sides could wait for each other (2.7.13.4).
        fence(Ordering::SeqCst);
        if self.event_idx {
            needs_event(self.ring.available_event.load(Ordering::Relaxed), new, old)
        } else {
            self.ring.used.flags.load(Ordering::Relaxed) & NO_NOTIFY == 0
        }
    }

    /// Says when the device is to end an `IDLE`. Whether that has happened already: then it may
    /// not do so, and there is something to pop.
    pub(crate) fn ask(&mut self, tell: Tell) -> bool {
        let chains = match tell {
            Tell::Never => 0,
            Tell::After(chains) => chains.max(1),
        };
        if self.event_idx {
            let event = self.next_used.wrapping_add(chains).wrapping_sub(1);
            self.ring.used_event.store(event, Ordering::Relaxed);
        } else {
            let flags = if chains == 0 { NO_INTERRUPT } else { 0 };
            self.ring.available.flags.store(flags, Ordering::Relaxed);
        }
        // The wish before the look, or both sides could wait for each other (2.7.7).
        fence(Ordering::SeqCst);
        chains > 0 && self.given_back() >= chains
    }

    /// The next chain that the device has done with, if there is one. Its descriptors are free
    /// again.
    pub(crate) fn pop(&mut self) -> Option<Done> {
        if self.given_back() == 0 {
            return None;
        }
        let chain = &self.ring.chains[self.place(self.next_used)];
        let head = chain.head.load(Ordering::Relaxed);
        let slot = self.ring.slots.get(head as usize);
        let Some(slot) = slot.filter(|slot| slot.count.load(Ordering::Relaxed) > 0) else {
            self.broken = true;
            return None;
        };
        let writable = slot.writable.load(Ordering::Relaxed);
        let written = chain.written.load(Ordering::Relaxed).min(writable);
        let head = head as u16;
        self.release(head);
        self.next_used = self.next_used.wrapping_add(1);
        Some(Done { head, written })
    }

    /// Whether the device has given back all that it was given.
    pub(crate) fn is_empty(&self) -> bool {
        self.chains_out == 0
    }

    /// Descriptors that are free.
    pub(crate) fn room(&self) -> u16 {
        self.free_count
    }

    /// Whether the device broke the rules. Only a reset helps.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Chains that the device has given back and nobody has popped.
    fn given_back(&mut self) -> u16 {
        if self.broken {
            return 0;
        }
        // Acquire: the index before the chains and what the device wrote into them (2.7.14).
        let index = self.ring.used.index.load(Ordering::Acquire);
        let given_back = index.wrapping_sub(self.next_used);
        if given_back > self.chains_out {
            self.broken = true;
            return 0;
        }
        given_back
    }

    /// Puts a whole chain at the front of the free list, where its memory is still in the cache.
    fn release(&mut self, head: u16) {
        let count = self.ring.slots[usize::from(head)]
            .count
            .swap(0, Ordering::Relaxed);
        let mut last = head;
        for _ in 1..count {
            last = self.next_slot(last);
        }
        let slot = &self.ring.slots[usize::from(last)];
        slot.next.store(self.free, Ordering::Relaxed);
        self.free = head;
        self.free_count += count;
        self.chains_out -= 1;
    }

    fn next_slot(&self, at: u16) -> u16 {
        self.ring.slots[usize::from(at)]
            .next
            .load(Ordering::Relaxed)
    }

    /// Where in a ring an index points.
    fn place(&self, index: u16) -> usize {
        usize::from(index) & (self.ring.descriptors.len() - 1)
    }
}

/// Writes a descriptor, whose chain goes on at `next`.
fn describe(descriptor: &Descriptor, buffer: &Buffer, next: Option<u16>) {
    let more = if next.is_some() { NEXT } else { 0 };
    let write = if buffer.device_writes { WRITE } else { 0 };
    descriptor.address.store(buffer.address, Ordering::Relaxed);
    descriptor.length.store(buffer.length, Ordering::Relaxed);
    descriptor.flags.store(more | write, Ordering::Relaxed);
    descriptor
        .next
        .store(next.unwrap_or_default(), Ordering::Relaxed);
}

/// Whether an index that went from `old` to `new` has passed `event` (2.7.10.1).
pub(super) const fn needs_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
