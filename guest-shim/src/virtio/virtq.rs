//! A split virtqueue, driver side (virtio 1.2, 2.7).
//!
//! [`Ring`] is the memory that driver and device share; [`Queue`] is the driver's end of it. A
//! buffer chain goes in with [`Queue::add`], is shown to the device with [`Queue::publish`], and
//! comes back from [`Queue::pop`]. Nobody is called and nothing is waited for: whoever owns the
//! queue rings the doorbell when `publish` says so, and idles when there is nothing to pop.
//!
//! All shared memory is made of atomics, so the device may write at any time. Indices count on
//! and on and wrap at 65536, as the specification has it.
#![allow(
    unsafe_code,
    reason = "a device uses buffers after the call that names them"
)]

#[cfg(test)]
mod tests;

use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

/// Descriptor flag: the chain goes on at `next`.
const NEXT: u16 = 1;
/// Descriptor flag: the device writes the buffer; otherwise it reads it.
const WRITE: u16 = 2;
/// Used ring flag: the device wants no doorbell.
const NO_NOTIFY: u16 = 1;

/// A queue's shared memory, for `N` descriptors: a power of two, at most 32768.
#[repr(C, align(16))]
#[derive(Debug)]
pub(crate) struct Ring<const N: usize> {
    descriptors: [Descriptor; N],
    available: Available<N>,
    used: Used<N>,
}

#[repr(C)]
#[derive(Debug)]
struct Descriptor {
    address: AtomicU64,
    length: AtomicU32,
    flags: AtomicU16,
    next: AtomicU16,
}

/// What the driver offers. The word after the ring is only used with `EVENT_IDX`.
#[repr(C)]
#[derive(Debug)]
struct Available<const N: usize> {
    flags: AtomicU16,
    index: AtomicU16,
    heads: [AtomicU16; N],
    used_event: AtomicU16,
}

/// What the device gives back. The word after the ring is only used with `EVENT_IDX`.
#[repr(C)]
#[derive(Debug)]
struct Used<const N: usize> {
    flags: AtomicU16,
    index: AtomicU16,
    chains: [UsedChain; N],
    available_event: AtomicU16,
}

#[repr(C)]
#[derive(Debug)]
struct UsedChain {
    head: AtomicU32,
    written: AtomicU32,
}

impl<const N: usize> Ring<N> {
    /// An empty ring, all zero.
    pub(crate) const fn new() -> Self {
        const { assert!(N.is_power_of_two() && N <= 1 << 15) };
        Self {
            descriptors: [const {
                Descriptor {
                    address: AtomicU64::new(0),
                    length: AtomicU32::new(0),
                    flags: AtomicU16::new(0),
                    next: AtomicU16::new(0),
                }
            }; N],
            available: Available {
                flags: AtomicU16::new(0),
                index: AtomicU16::new(0),
                heads: [const { AtomicU16::new(0) }; N],
                used_event: AtomicU16::new(0),
            },
            used: Used {
                flags: AtomicU16::new(0),
                index: AtomicU16::new(0),
                chains: [const {
                    UsedChain {
                        head: AtomicU32::new(0),
                        written: AtomicU32::new(0),
                    }
                }; N],
                available_event: AtomicU16::new(0),
            },
        }
    }

    /// Where the device finds the descriptors.
    pub(crate) fn descriptors_address(&self) -> u64 {
        (&raw const self.descriptors) as u64
    }

    /// Where the device finds what the driver offers.
    pub(crate) fn available_address(&self) -> u64 {
        (&raw const self.available) as u64
    }

    /// Where the device puts what it gives back.
    pub(crate) fn used_address(&self) -> u64 {
        (&raw const self.used) as u64
    }
}

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
    /// Bytes that the device wrote into it.
    pub(crate) written: u32,
}

/// There are fewer free descriptors than the chain has buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueFull;

/// The driver's end of a queue.
#[derive(Debug)]
pub(crate) struct Queue<const N: usize> {
    ring: &'static Ring<N>,
    /// First of the free descriptors, which are linked through their `next`.
    free: u16,
    free_count: u16,
    /// Where the next chain goes in the available ring.
    next_available: u16,
    /// Where the next chain will appear in the used ring.
    next_used: u16,
}

impl<const N: usize> Queue<N> {
    /// The only end of `ring`, which must be as new.
    pub(crate) fn new(ring: &'static Ring<N>) -> Self {
        for (i, descriptor) in ring.descriptors.iter().enumerate() {
            descriptor.next.store(i as u16 + 1, Ordering::Relaxed);
        }
        Self {
            ring,
            free: 0,
            free_count: N as u16,
            next_available: 0,
            next_used: 0,
        }
    }

    /// Puts a chain of at least one buffer into the ring. The device does not see it before
    /// [`publish`](Self::publish). Returns the chain's head, which is its name until it is done.
    ///
    /// # Safety
    ///
    /// Until the chain is popped, the buffers must stay valid, nobody may change those that the
    /// device reads, and nobody may touch those that it writes.
    pub(crate) unsafe fn add(&mut self, chain: &[Buffer]) -> Result<u16, QueueFull> {
        debug_assert!(!chain.is_empty(), "a chain without buffers");
        debug_assert!(
            chain.is_sorted_by_key(|buffer| buffer.device_writes),
            "a buffer that the device reads after one that it writes"
        );
        if chain.len() > usize::from(self.free_count) {
            return Err(QueueFull);
        }
        let head = self.free;
        let mut left = chain.len();
        for buffer in chain {
            let descriptor = &self.ring.descriptors[usize::from(self.free)];
            left -= 1;
            let more = if left > 0 { NEXT } else { 0 };
            let write = if buffer.device_writes { WRITE } else { 0 };
            descriptor.address.store(buffer.address, Ordering::Relaxed);
            descriptor.length.store(buffer.length, Ordering::Relaxed);
            descriptor.flags.store(more | write, Ordering::Relaxed);
            self.free = descriptor.next.load(Ordering::Relaxed);
        }
        self.free_count -= chain.len() as u16;
        let slot = usize::from(self.next_available) % N;
        self.ring.available.heads[slot].store(head, Ordering::Relaxed);
        self.next_available = self.next_available.wrapping_add(1);
        Ok(head)
    }

    /// Shows the device all chains added so far. Returns whether it wants a doorbell.
    pub(crate) fn publish(&mut self) -> bool {
        // Release: the chains before the index (2.7.13.3).
        let index = &self.ring.available.index;
        index.store(self.next_available, Ordering::Release);
        // The index before the question, or both sides could wait for each other (2.7.13.4).
        fence(Ordering::SeqCst);
        self.ring.used.flags.load(Ordering::Relaxed) & NO_NOTIFY == 0
    }

    /// The next chain that the device has done with, if there is one. Its descriptors are free
    /// again.
    pub(crate) fn pop(&mut self) -> Option<Done> {
        // Acquire: the index before the chains and what the device wrote into them (2.7.14).
        if self.ring.used.index.load(Ordering::Acquire) == self.next_used {
            return None;
        }
        let chain = &self.ring.used.chains[usize::from(self.next_used) % N];
        let done = Done {
            head: chain.head.load(Ordering::Relaxed) as u16,
            written: chain.written.load(Ordering::Relaxed),
        };
        self.next_used = self.next_used.wrapping_add(1);
        self.release(done.head);
        Some(done)
    }

    /// Whether the device has given back all that it was given.
    pub(crate) fn is_empty(&self) -> bool {
        usize::from(self.free_count) == N
    }

    /// Puts a whole chain at the front of the free list, where its memory is still in the cache.
    fn release(&mut self, head: u16) {
        let mut at = head;
        loop {
            let descriptor = &self.ring.descriptors[usize::from(at)];
            self.free_count += 1;
            if descriptor.flags.load(Ordering::Relaxed) & NEXT == 0 {
                descriptor.next.store(self.free, Ordering::Relaxed);
                self.free = head;
                return;
            }
            at = descriptor.next.load(Ordering::Relaxed);
        }
    }
}
