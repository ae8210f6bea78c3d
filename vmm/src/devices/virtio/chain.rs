//! Walks one descriptor chain of a queue and checks everything about it, once, for every device.
//!
//! What comes out lies in the guest's memory, is readable before it is writable (virtio 1.2,
//! 2.7.4.2), is not empty and not longer than the standard allows.

#[cfg(test)]
mod tests;

use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};

/// Bytes of a descriptor (virtio 1.2, 2.7.5).
pub const DESCRIPTOR_SIZE: u64 = 16;

/// A chain may not hold more bytes (virtio 1.2, 2.7.5.2).
const MAX_CHAIN_BYTES: u64 = 1 << 32;

/// A piece of guest memory that a chain names, known to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// Guest physical address.
    pub address: GuestAddress,
    /// Length in bytes, not 0.
    pub len: u32,
}

/// A chain, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Index of its first descriptor.
    pub head: u16,
    /// What the device may read.
    pub readable: Vec<Buffer>,
    /// What the device may write.
    pub writable: Vec<Buffer>,
}

/// What is wrong with a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub enum ChainError {
    #[error("descriptor index {index} is beyond the queue of {size}")]
    IndexOutOfRange { index: u16, size: u16 },
    #[error("the chain from descriptor {head} is longer than the queue: it has a loop")]
    Loop { head: u16 },
    #[error("descriptor {index} is indirect, which was not negotiated or is nested")]
    Indirect { index: u16 },
    #[error("indirect descriptor {index} goes on or names a table of {len} bytes")]
    IndirectTable { index: u16, len: u32 },
    #[error("descriptor {index} is empty")]
    Empty { index: u16 },
    #[error("descriptor {index} names {len} bytes at {address:#x}, which the device cannot reach")]
    Unreachable { index: u16, address: u64, len: u32 },
    #[error("descriptor {index} is readable but follows a writable one")]
    ReadableAfterWritable { index: u16 },
    #[error("the chain from descriptor {head} has more than 4 GiB")]
    TooLong { head: u16 },
    #[error("the descriptor table at {0:#x} cannot be read")]
    Table(u64),
}

/// Where a chain is to be found.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Guest physical address of the queue's descriptor table.
    pub address: GuestAddress,
    /// Descriptors in it, which is also the most that a chain may have (virtio 1.2, 2.7.5.3.1).
    pub size: u16,
    /// Whether indirect descriptors were negotiated.
    pub indirect: bool,
}

/// Walks the chain that begins at descriptor `head` of `table` and leaves it in `chain`, whose
/// memory is used again.
pub fn walk<M: GuestMemory>(
    memory: &M,
    table: Table,
    head: u16,
    chain: &mut Chain,
) -> Result<(), ChainError> {
    chain.head = head;
    chain.readable.clear();
    chain.writable.clear();
    let mut place = (table.address, table.size);
    let mut inside = false;
    let mut index = head;
    let mut total = 0;
    let mut left = table.size;
    loop {
        let (address, size) = place;
        if index >= size {
            return Err(ChainError::IndexOutOfRange { index, size });
        }
        let descriptor = Descriptor::read(memory, address, index)?;
        if descriptor.flags & VRING_DESC_F_INDIRECT != 0 {
            if inside || !table.indirect {
                return Err(ChainError::Indirect { index });
            }
            place = descriptor.indirect_table(memory, index)?;
            (inside, index) = (true, 0);
            continue;
        }
        if left == 0 {
            return Err(ChainError::Loop { head });
        }
        left -= 1;
        total += u64::from(descriptor.len);
        if total > MAX_CHAIN_BYTES {
            return Err(ChainError::TooLong { head });
        }
        let writes = descriptor.flags & VRING_DESC_F_WRITE != 0;
        let buffer = descriptor.buffer(memory, index, writes)?;
        if writes {
            chain.writable.push(buffer);
        } else if chain.writable.is_empty() {
            chain.readable.push(buffer);
        } else {
            return Err(ChainError::ReadableAfterWritable { index });
        }
        if descriptor.flags & VRING_DESC_F_NEXT == 0 {
            return Ok(());
        }
        index = descriptor.next;
    }
}

/// One descriptor as the guest wrote it (virtio 1.2, 2.7.5).
struct Descriptor {
    address: u64,
    len: u32,
    flags: u32,
    next: u16,
}

impl Descriptor {
    /// Reads it once: the guest may change it at any moment.
    fn read<M: GuestMemory>(
        memory: &M,
        table: GuestAddress,
        index: u16,
    ) -> Result<Self, ChainError> {
        let at = table.0.wrapping_add(u64::from(index) * DESCRIPTOR_SIZE);
        let mut raw = [0; DESCRIPTOR_SIZE as usize];
        memory
            .read_slice(&mut raw, GuestAddress(at))
            .map_err(|_| ChainError::Table(at))?;
        let raw = u128::from_le_bytes(raw);
        Ok(Self {
            address: raw as u64,
            len: (raw >> 64) as u32,
            flags: (raw >> 96) as u32 & 0xffff,
            next: (raw >> 112) as u16,
        })
    }

    fn buffer<M: GuestMemory>(
        &self,
        memory: &M,
        index: u16,
        writes: bool,
    ) -> Result<Buffer, ChainError> {
        if self.len == 0 {
            return Err(ChainError::Empty { index });
        }
        let access = if writes {
            Permissions::Write
        } else {
            Permissions::Read
        };
        let address = GuestAddress(self.address);
        if !memory.check_range(address, self.len as usize, access) {
            return Err(ChainError::Unreachable {
                index,
                address: self.address,
                len: self.len,
            });
        }
        Ok(Buffer {
            address,
            len: self.len,
        })
    }

    /// The table that an indirect descriptor names: where, and how many descriptors (virtio 1.2,
    /// 2.7.5.3).
    fn indirect_table<M: GuestMemory>(
        &self,
        memory: &M,
        index: u16,
    ) -> Result<(GuestAddress, u16), ChainError> {
        let whole = self.len != 0 && u64::from(self.len).is_multiple_of(DESCRIPTOR_SIZE);
        let size = u16::try_from(u64::from(self.len) / DESCRIPTOR_SIZE);
        let (true, Ok(size), 0) = (whole, size, self.flags & VRING_DESC_F_NEXT) else {
            return Err(ChainError::IndirectTable {
                index,
                len: self.len,
            });
        };
        let table = self.buffer(memory, index, false)?;
        Ok((table.address, size))
    }
}
