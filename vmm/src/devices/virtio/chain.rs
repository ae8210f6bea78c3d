//! Walks one descriptor chain of a queue and checks everything about it, once, for every device.
//!
//! What comes out lies in the guest's memory, is readable before it is writable (virtio 1.2,
//! 2.7.4.2), is not empty and not longer than the standard allows.

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
    #[error("descriptor {index} is indirect, which was not negotiated")]
    Indirect { index: u16 },
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

/// Walks the chain that begins at descriptor `head` of a table of `size` descriptors.
pub fn walk<M: GuestMemory>(
    memory: &M,
    table: GuestAddress,
    size: u16,
    head: u16,
) -> Result<Chain, ChainError> {
    let mut chain = Chain {
        head,
        ..Default::default()
    };
    let mut index = head;
    let mut total = 0;
    for _ in 0..size {
        if index >= size {
            return Err(ChainError::IndexOutOfRange { index, size });
        }
        let at = table.0.wrapping_add(u64::from(index) * DESCRIPTOR_SIZE);
        let mut raw = [0; DESCRIPTOR_SIZE as usize];
        memory
            .read_slice(&mut raw, GuestAddress(at))
            .map_err(|_| ChainError::Table(at))?;
        let descriptor = u128::from_le_bytes(raw);
        let (address, len) = (descriptor as u64, (descriptor >> 64) as u32);
        let (flags, next) = (
            (descriptor >> 96) as u32 & 0xffff,
            (descriptor >> 112) as u16,
        );

        if flags & VRING_DESC_F_INDIRECT != 0 {
            return Err(ChainError::Indirect { index });
        }
        if len == 0 {
            return Err(ChainError::Empty { index });
        }
        total += u64::from(len);
        if total > MAX_CHAIN_BYTES {
            return Err(ChainError::TooLong { head });
        }
        let buffer = Buffer {
            address: GuestAddress(address),
            len,
        };
        let writes = flags & VRING_DESC_F_WRITE != 0;
        let access = if writes {
            Permissions::Write
        } else {
            Permissions::Read
        };
        if !memory.check_range(buffer.address, len as usize, access) {
            return Err(ChainError::Unreachable {
                index,
                address,
                len,
            });
        }
        if writes {
            chain.writable.push(buffer);
        } else if chain.writable.is_empty() {
            chain.readable.push(buffer);
        } else {
            return Err(ChainError::ReadableAfterWritable { index });
        }
        if flags & VRING_DESC_F_NEXT == 0 {
            return Ok(chain);
        }
        index = next;
    }
    Err(ChainError::Loop { head })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vm_memory::GuestMemoryMmap;

    const TABLE: GuestAddress = GuestAddress(0x1000);
    const SIZE: u16 = 8;

    fn memory() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0x1000), 0x10000)]).unwrap()
    }

    fn put(memory: &GuestMemoryMmap, index: u16, address: u64, len: u32, flags: u32, next: u16) {
        let mut raw = Vec::new();
        raw.extend(address.to_le_bytes());
        raw.extend(len.to_le_bytes());
        raw.extend((flags as u16).to_le_bytes());
        raw.extend(next.to_le_bytes());
        let at = GuestAddress(TABLE.0 + u64::from(index) * DESCRIPTOR_SIZE);
        memory.write_slice(&raw, at).unwrap();
    }

    fn walk_from(memory: &GuestMemoryMmap, head: u16) -> Result<Chain, ChainError> {
        walk(memory, TABLE, SIZE, head)
    }

    #[test]
    fn a_good_chain_is_split_into_what_is_read_and_written() {
        let m = memory();
        put(&m, 2, 0x2000, 10, VRING_DESC_F_NEXT, 5);
        put(&m, 5, 0x3000, 20, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1);
        put(&m, 1, 0x4000, 30, VRING_DESC_F_WRITE, 99);
        let chain = walk_from(&m, 2).unwrap();
        assert_eq!(chain.head, 2);
        assert_eq!(
            chain.readable,
            [Buffer {
                address: GuestAddress(0x2000),
                len: 10
            }]
        );
        assert_eq!(chain.writable.len(), 2);
    }

    #[test]
    fn hostile_chains_are_refused() {
        let m = memory();
        let spoil = |address, len, flags, next| {
            put(&m, 0, address, len, flags, next);
            walk_from(&m, 0).unwrap_err()
        };
        assert_eq!(
            spoil(0x2000, 1, VRING_DESC_F_NEXT, 0),
            ChainError::Loop { head: 0 }
        );
        assert_eq!(
            spoil(0x2000, 1, VRING_DESC_F_NEXT, SIZE),
            ChainError::IndexOutOfRange {
                index: SIZE,
                size: SIZE
            }
        );
        assert_eq!(
            spoil(0x2000, 16, VRING_DESC_F_INDIRECT, 0),
            ChainError::Indirect { index: 0 }
        );
        assert_eq!(spoil(0x2000, 0, 0, 0), ChainError::Empty { index: 0 });
        for (address, len) in [
            (0, 1),
            (0xfff, 2),
            (0x10fff, 2),
            (0x11000, 1),
            (0x2000, u32::MAX),
            (u64::MAX, 1),
            (u64::MAX - 1, 8),
        ] {
            assert_eq!(
                spoil(address, len, 0, 0),
                ChainError::Unreachable {
                    index: 0,
                    address,
                    len
                }
            );
        }
        assert_eq!(
            walk_from(&m, SIZE).unwrap_err(),
            ChainError::IndexOutOfRange {
                index: SIZE,
                size: SIZE
            }
        );
        put(&m, 0, 0x2000, 1, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1);
        put(&m, 1, 0x2000, 1, 0, 0);
        assert_eq!(
            walk_from(&m, 0).unwrap_err(),
            ChainError::ReadableAfterWritable { index: 1 }
        );
    }

    #[test]
    fn a_table_that_is_not_there_is_refused() {
        let m = memory();
        assert!(matches!(
            walk(&m, GuestAddress(0), SIZE, 0),
            Err(ChainError::Table(0))
        ));
        let end = GuestAddress(u64::MAX - 3);
        assert!(matches!(walk(&m, end, SIZE, 0), Err(ChainError::Table(_))));
    }

    #[test]
    fn a_chain_as_long_as_the_queue_is_allowed() {
        let m = memory();
        for i in 0..SIZE {
            let flags = if i + 1 < SIZE { VRING_DESC_F_NEXT } else { 0 };
            put(&m, i, 0x2000, 1, flags, i + 1);
        }
        assert_eq!(walk_from(&m, 0).unwrap().readable.len(), usize::from(SIZE));
    }

    proptest! {
        #[test]
        fn any_table_gives_a_sound_chain_or_a_reason(
            table in prop::collection::vec(any::<u8>(), usize::from(SIZE) * 16), head in 0u16..12,
        ) {
            let m = memory();
            m.write_slice(&table, TABLE).unwrap();
            if let Ok(chain) = walk_from(&m, head) {
                for buffer in chain.readable.iter().chain(&chain.writable) {
                    prop_assert!(buffer.len > 0);
                    prop_assert!(vm_memory::GuestMemoryBackend::check_range(&m, buffer.address, buffer.len as usize));
                }
            }
        }
    }
}
