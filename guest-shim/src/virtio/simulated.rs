//! The other end of a queue, for tests: takes chains as a device does and gives them back in any
//! order it likes. It asks for a doorbell when it rests.
#![allow(unsafe_code, reason = "a device reads what descriptors name")]

use std::sync::atomic::{Ordering, fence};

use super::mmio::F_EVENT_IDX;
use super::ring::{Descriptor, Parts};
use super::virtq::{INDIRECT, NEXT, NO_INTERRUPT, WRITE, needs_event};

/// A buffer as the device sees it: address, length, and whether it may write.
pub(crate) type SeenBuffer = (u64, u32, bool);

/// A device's end of a queue.
pub(crate) struct SimulatedDevice {
    ring: Parts,
    event_idx: bool,
    next: u16,
    used: u16,
}

impl SimulatedDevice {
    pub(crate) fn new(ring: Parts, features: u64) -> Self {
        Self {
            ring,
            event_idx: features & F_EVENT_IDX != 0,
            next: 0,
            used: 0,
        }
    }

    /// The next chain: its head and its buffers.
    pub(crate) fn take(&mut self) -> Option<(u16, Vec<SeenBuffer>)> {
        if self.ring.available.index.load(Ordering::Acquire) == self.next {
            return None;
        }
        let place = usize::from(self.next) % self.ring.descriptors.len();
        let head = self.ring.heads[place].load(Ordering::Relaxed);
        self.next = self.next.wrapping_add(1);
        let first = &self.ring.descriptors[usize::from(head)];
        let mut table = self.ring.descriptors;
        let mut at = head;
        if first.flags.load(Ordering::Relaxed) & INDIRECT != 0 {
            let address = first.address.load(Ordering::Relaxed);
            let count = first.length.load(Ordering::Relaxed) as usize / 16;
            // SAFETY: the driver leaks its tables and names them with their length.
            table = unsafe { std::slice::from_raw_parts(address as *const Descriptor, count) };
            at = 0;
        }
        let mut buffers = Vec::new();
        loop {
            let descriptor = &table[usize::from(at)];
            let flags = descriptor.flags.load(Ordering::Relaxed);
            buffers.push((
                descriptor.address.load(Ordering::Relaxed),
                descriptor.length.load(Ordering::Relaxed),
                flags & WRITE != 0,
            ));
            assert!(buffers.len() <= table.len(), "a chain that loops");
            if flags & NEXT == 0 {
                return Some((head, buffers));
            }
            at = descriptor.next.load(Ordering::Relaxed);
        }
    }

    /// Wants a doorbell for the next chain; false if there is one already.
    pub(crate) fn rest(&self) -> bool {
        self.ring
            .available_event
            .store(self.next, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.ring.available.index.load(Ordering::Acquire) == self.next
    }

    /// Gives a chain back. Whether the driver wants to be told.
    pub(crate) fn give_back(&mut self, head: u32, written: u32) -> bool {
        let chain = &self.ring.chains[usize::from(self.used) % self.ring.descriptors.len()];
        chain.head.store(head, Ordering::Relaxed);
        chain.written.store(written, Ordering::Relaxed);
        let old = self.used;
        self.used = self.used.wrapping_add(1);
        self.ring.used.index.store(self.used, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.event_idx {
            needs_event(self.ring.used_event.load(Ordering::Relaxed), self.used, old)
        } else {
            self.ring.available.flags.load(Ordering::Relaxed) & NO_INTERRUPT == 0
        }
    }

    /// Claims to have given back `chains` more.
    pub(crate) fn pretend(&mut self, chains: u16) {
        self.used = self.used.wrapping_add(chains);
        self.ring.used.index.store(self.used, Ordering::Release);
    }
}
