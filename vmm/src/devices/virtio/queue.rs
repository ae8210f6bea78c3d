//! A queue in its two lives: configured by the driver register by register, then running.
//!
//! They are different types. A [`QueueConfig`] holds whatever the driver wrote; starting it checks
//! all of it and gives a [`RunningQueue`], whose rings are known to lie in memory. The first thing
//! wrong with a running queue ends its life: the transport latches the fault until a reset.

#[cfg(test)]
mod tests;

use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC, VRING_AVAIL_F_NO_INTERRUPT,
};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::chain::{self, Chain, ChainError, DESCRIPTOR_SIZE, Table};
use crate::kvm::memory::GuestRam;

/// Bytes before the entries of the available ring (virtio 1.2, 2.7.6).
const AVAILABLE_HEADER: u64 = 4;
/// Offset of the index in the used ring (virtio 1.2, 2.7.8).
const USED_INDEX: u64 = 2;
/// Bytes before the elements of the used ring.
const USED_HEADER: u64 = 4;
/// Bytes of an element of the used ring.
const USED_ELEMENT: u64 = 8;

/// What the driver has written about a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueConfig {
    max_size: u16,
    /// Number of descriptors, as written.
    pub size: u32,
    /// Whether the driver has declared it ready.
    pub ready: bool,
    /// Guest physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest physical address of the available ring.
    pub available: u64,
    /// Guest physical address of the used ring.
    pub used: u64,
}

/// What is wrong with a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub enum QueueError {
    #[error("size {size} is not a power of two from 1 to {max}")]
    Size { size: u32, max: u16 },
    #[error("the {ring} at {address:#x} is not aligned to {align} bytes")]
    Misaligned {
        ring: &'static str,
        address: u64,
        align: u64,
    },
    #[error("the {ring} at {address:#x} does not lie in memory that the device can reach")]
    Unreachable { ring: &'static str, address: u64 },
    #[error("two of its rings overlap")]
    Overlap,
    #[error("the available index moved by more than the queue's size")]
    AvailableIndex,
    #[error("its rings cannot be accessed any more")]
    Rings,
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("a chain has buffers in a direction that this queue does not have")]
    Direction,
    #[error("a chain of {0} bytes is too short for what this queue carries")]
    Short(u64),
    #[error("a chain has no room for the device's answer")]
    Unanswerable,
}

impl QueueConfig {
    /// A queue as it is after reset, of at most `max_size` descriptors.
    pub fn new(max_size: u16) -> Self {
        let size = u32::from(max_size);
        Self {
            max_size,
            size,
            ready: false,
            descriptors: 0,
            available: 0,
            used: 0,
        }
    }

    /// The largest size the driver may set.
    pub fn max_size(&self) -> u16 {
        self.max_size
    }

    /// Checks everything and starts the queue.
    pub fn start(&self, ram: &GuestRam, features: u64) -> Result<RunningQueue, QueueError> {
        use vm_memory::{GuestMemory, Permissions};
        let size_error = QueueError::Size {
            size: self.size,
            max: self.max_size,
        };
        let size = u16::try_from(self.size).map_err(|_| size_error)?;
        if !size.is_power_of_two() || size > self.max_size {
            return Err(size_error);
        }
        // Virtio 1.2, 2.7: alignment and sizes of the three parts.
        let n = u64::from(size);
        let parts = [
            (
                "descriptor table",
                self.descriptors,
                DESCRIPTOR_SIZE * n,
                16,
                Permissions::Read,
            ),
            (
                "available ring",
                self.available,
                6 + 2 * n,
                2,
                Permissions::Read,
            ),
            (
                "used ring",
                self.used,
                6 + USED_ELEMENT * n,
                4,
                Permissions::Write,
            ),
        ];
        for (ring, address, len, align, access) in parts {
            if !address.is_multiple_of(align) {
                return Err(QueueError::Misaligned {
                    ring,
                    address,
                    align,
                });
            }
            if !ram.check_range(GuestAddress(address), len as usize, access) {
                return Err(QueueError::Unreachable { ring, address });
            }
        }
        for (i, a) in parts.iter().enumerate() {
            if parts[..i]
                .iter()
                .any(|b| a.1 < b.1 + b.2 && b.1 < a.1 + a.2)
            {
                return Err(QueueError::Overlap);
            }
        }
        let mut queue = Queue::new(self.max_size).map_err(|_| size_error)?;
        let half = |address: u64| (Some(address as u32), Some((address >> 32) as u32));
        queue.set_size(size);
        let (low, high) = half(self.descriptors);
        queue.set_desc_table_address(low, high);
        let (low, high) = half(self.available);
        queue.set_avail_ring_address(low, high);
        let (low, high) = half(self.used);
        queue.set_used_ring_address(low, high);
        let event_idx = features & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        Ok(RunningQueue {
            queue,
            indirect: features & 1 << VIRTIO_RING_F_INDIRECT_DESC != 0,
            event_idx,
            staged: 0,
            published: 0,
            decided: 0,
        })
    }
}

/// A queue whose rings lie in memory.
///
/// Used chains are first staged, then published together: a frame that fills several chains must
/// appear as one (virtio 1.2, 5.1.6.4). The crate underneath would show each at once, and does not
/// know `VIRTQ_AVAIL_F_NO_INTERRUPT`, so the used side is our own.
#[derive(Debug)]
pub struct RunningQueue {
    queue: Queue,
    indirect: bool,
    event_idx: bool,
    /// The used index with what is staged.
    staged: u16,
    /// The used index that the driver sees.
    published: u16,
    /// The used index when it was last decided whether to notify.
    decided: u16,
}

impl RunningQueue {
    /// Takes the next available chain into `chain`; whether there was one.
    pub fn pop(&mut self, ram: &GuestRam, chain: &mut Chain) -> Result<bool, QueueError> {
        let head = {
            let mut available = self.available(ram)?;
            match available.next() {
                Some(chain) => chain.head_index(),
                None => return Ok(false),
            }
        };
        let table = Table {
            address: GuestAddress(self.queue.desc_table()),
            size: self.queue.size(),
            indirect: self.indirect,
        };
        chain::walk(ram, table, head, chain)?;
        Ok(true)
    }

    /// Makes the last `count` chains that were taken, and neither staged nor given up, available
    /// again.
    pub fn unpop(&mut self, count: u16) {
        let next = self.queue.next_avail().wrapping_sub(count);
        self.queue.set_next_avail(next);
    }

    fn available<'a>(
        &'a mut self,
        ram: &'a GuestRam,
    ) -> Result<virtio_queue::AvailIter<'a, &'a GuestRam>, QueueError> {
        self.queue.iter(ram).map_err(|error| match error {
            virtio_queue::Error::InvalidAvailRingIndex => QueueError::AvailableIndex,
            _ => QueueError::Rings,
        })
    }

    /// Stages the chain from `head` as used, with `written` bytes of its writable part filled.
    pub fn stage(&mut self, ram: &GuestRam, head: u16, written: u32) -> Result<(), QueueError> {
        let slot = u64::from(self.staged % self.queue.size());
        let element = u64::from(written) << 32 | u64::from(head);
        let at = GuestAddress(self.queue.used_ring() + USED_HEADER + slot * USED_ELEMENT);
        ram.write_slice(&element.to_le_bytes(), at)
            .map_err(|_| QueueError::Rings)?;
        self.staged = self.staged.wrapping_add(1);
        Ok(())
    }

    /// Shows the driver what is staged.
    pub fn publish(&mut self, ram: &GuestRam) -> Result<(), QueueError> {
        if self.published == self.staged {
            return Ok(());
        }
        let at = GuestAddress(self.queue.used_ring() + USED_INDEX);
        // Release: the elements and what was written into the chains before the index.
        ram.store(self.staged.to_le(), at, Ordering::Release)
            .map_err(|_| QueueError::Rings)?;
        self.published = self.staged;
        Ok(())
    }

    /// Whether what was published since this was last asked is to be notified (virtio 1.2,
    /// 2.7.7.2).
    pub fn wants_notification(&mut self, ram: &GuestRam) -> Result<bool, QueueError> {
        let old = std::mem::replace(&mut self.decided, self.published);
        if old == self.published {
            return Ok(false);
        }
        // The index before the question, or both sides could wait for each other.
        fence(Ordering::SeqCst);
        let read = |offset| {
            let at = GuestAddress(self.queue.avail_ring() + offset);
            let word: Result<u16, _> = ram.load(at, Ordering::Relaxed);
            word.map(u16::from_le).map_err(|_| QueueError::Rings)
        };
        if !self.event_idx {
            return Ok(u32::from(read(0)?) & VRING_AVAIL_F_NO_INTERRUPT == 0);
        }
        let event = read(AVAILABLE_HEADER + 2 * u64::from(self.queue.size()))?;
        let crossed = self.published.wrapping_sub(event).wrapping_sub(1);
        Ok(crossed < self.published.wrapping_sub(old))
    }

    /// Asks for a doorbell with the next available chain. `true`: there is one already.
    pub fn listen(&mut self, ram: &GuestRam) -> Result<bool, QueueError> {
        self.queue
            .enable_notification(ram)
            .map_err(|_| QueueError::Rings)
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.queue.size()
    }
}
