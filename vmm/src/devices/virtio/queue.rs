//! A queue in its two lives: configured by the driver register by register, then running.
//!
//! They are different types. A [`QueueConfig`] holds whatever the driver wrote; starting it checks
//! all of it and gives a [`RunningQueue`], whose rings are known to lie in memory. The first thing
//! wrong with a running queue ends its life: the transport latches the fault until a reset.

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::GuestAddress;

use super::chain::{self, Chain, ChainError, DESCRIPTOR_SIZE};
use crate::kvm::memory::GuestRam;

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
    pub fn start(&self, ram: &GuestRam) -> Result<RunningQueue, QueueError> {
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
            ("used ring", self.used, 6 + 8 * n, 4, Permissions::Write),
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
        queue.set_ready(true);
        Ok(RunningQueue { queue })
    }
}

/// A queue whose rings lie in memory.
#[derive(Debug)]
pub struct RunningQueue {
    queue: Queue,
}

impl RunningQueue {
    /// Takes the next available chain, if there is one.
    pub fn pop(&mut self, ram: &GuestRam) -> Result<Option<Chain>, QueueError> {
        let head = {
            let mut available = self.queue.iter(ram).map_err(|error| match error {
                virtio_queue::Error::InvalidAvailRingIndex => QueueError::AvailableIndex,
                _ => QueueError::Rings,
            })?;
            match available.next() {
                Some(chain) => chain.head_index(),
                None => return Ok(None),
            }
        };
        let table = GuestAddress(self.queue.desc_table());
        Ok(Some(chain::walk(ram, table, self.queue.size(), head)?))
    }

    /// Gives a chain back, with `written` bytes of its writable part filled.
    pub fn push(&mut self, ram: &GuestRam, chain: &Chain, written: u32) -> Result<(), QueueError> {
        self.queue
            .add_used(ram, chain.head, written)
            .map_err(|_| QueueError::Rings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slice_abi::info::Range;
    use slice_abi::layout::RAM_BASE;

    fn ram() -> GuestRam {
        let range = Range {
            start: RAM_BASE,
            len: 1 << 20,
        };
        GuestRam::new(range, Range::default(), RAM_BASE + 0x1000).unwrap()
    }

    fn config() -> QueueConfig {
        QueueConfig {
            descriptors: RAM_BASE + 0x2000,
            available: RAM_BASE + 0x3000,
            used: RAM_BASE + 0x4000,
            ..QueueConfig::new(8)
        }
    }

    #[test]
    fn a_good_configuration_starts_and_is_empty() {
        let ram = ram();
        let mut queue = config().start(&ram).unwrap();
        assert_eq!(queue.pop(&ram).unwrap(), None);
    }

    #[test]
    fn bad_configurations_are_refused() {
        let ram = ram();
        let refuses = |config: QueueConfig| config.start(&ram).unwrap_err();
        for size in [0, 3, 16, 0x1_0008, u32::MAX] {
            assert_eq!(
                refuses(QueueConfig { size, ..config() }),
                QueueError::Size { size, max: 8 }
            );
        }
        let misaligned = QueueConfig {
            descriptors: RAM_BASE + 0x2008,
            ..config()
        };
        assert!(matches!(refuses(misaligned), QueueError::Misaligned { .. }));
        for address in [0, RAM_BASE - 16, RAM_BASE + (1 << 20) - 16, u64::MAX - 15] {
            let outside = QueueConfig {
                descriptors: address,
                ..config()
            };
            assert!(matches!(refuses(outside), QueueError::Unreachable { .. }));
        }
        // The used ring is written by the device: it may not lie in text.
        let in_text = QueueConfig {
            used: RAM_BASE,
            ..config()
        };
        assert!(matches!(refuses(in_text), QueueError::Unreachable { .. }));
        let overlapping = QueueConfig {
            used: RAM_BASE + 0x2040,
            ..config()
        };
        assert_eq!(refuses(overlapping), QueueError::Overlap);
    }

    #[test]
    fn an_available_index_that_jumps_is_refused() {
        let ram = ram();
        let mut queue = config().start(&ram).unwrap();
        ram.write_any(&9u16.to_le_bytes(), RAM_BASE + 0x3002)
            .unwrap();
        assert_eq!(queue.pop(&ram), Err(QueueError::AvailableIndex));
        ram.write_any(&0xffffu16.to_le_bytes(), RAM_BASE + 0x3002)
            .unwrap();
        assert_eq!(queue.pop(&ram), Err(QueueError::AvailableIndex));
    }
}
