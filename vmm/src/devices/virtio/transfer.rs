//! Copies between a chain's buffers and bytes, from any place in the chain.
//!
//! The chain was checked when it was taken. A guest cannot take memory away since, so a copy fails
//! only if the monitor itself is wrong, and then the queue is faulted like any other.

use vm_memory::{Bytes, GuestAddress};

use super::chain::{Buffer, Chain};
use super::queue::QueueError;
use crate::kvm::memory::GuestRam;

/// Bytes of these buffers together.
pub fn total(buffers: &[Buffer]) -> u64 {
    buffers.iter().map(|buffer| u64::from(buffer.len)).sum()
}

/// Copies what follows the first `offset` bytes of a chain's readable part, as much as there is and
/// fits into `bytes`. How much that was.
pub fn read_at(
    chain: &Chain,
    offset: u64,
    ram: &GuestRam,
    bytes: &mut [u8],
) -> Result<usize, QueueError> {
    let mut filled = 0;
    for (at, len) in places(&chain.readable, offset, bytes.len()) {
        ram.read_slice(&mut bytes[filled..filled + len], at)
            .map_err(|_| QueueError::Rings)?;
        filled += len;
    }
    Ok(filled)
}

/// Copies `bytes` behind the first `offset` bytes of a chain's writable part, as far as it goes.
/// How much that was.
pub fn write_at(
    chain: &Chain,
    offset: u64,
    ram: &GuestRam,
    bytes: &[u8],
) -> Result<usize, QueueError> {
    let mut copied = 0;
    for (at, len) in places(&chain.writable, offset, bytes.len()) {
        ram.write_slice(&bytes[copied..copied + len], at)
            .map_err(|_| QueueError::Rings)?;
        copied += len;
    }
    Ok(copied)
}

/// Where the `count` bytes behind the first `offset` of `buffers` lie.
fn places(
    buffers: &[Buffer],
    offset: u64,
    count: usize,
) -> impl Iterator<Item = (GuestAddress, usize)> {
    let (mut skip, mut left) = (offset, count as u64);
    buffers.iter().filter_map(move |buffer| {
        let len = u64::from(buffer.len);
        let skipped = skip.min(len);
        skip -= skipped;
        let part = (len - skipped).min(left);
        left -= part;
        let at = GuestAddress(buffer.address.0 + skipped);
        (part > 0).then_some((at, part as usize))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use slice_abi::info::Range;
    use slice_abi::layout::RAM_BASE;

    proptest! {
        #[test]
        fn what_is_written_in_pieces_is_read_back(
            lens in prop::collection::vec(1u32..50, 1..8),
            pieces in prop::collection::vec(1usize..60, 1..40),
        ) {
            let range = Range { start: RAM_BASE, len: 1 << 20 };
            let ram = GuestRam::new(&[range], &[], RAM_BASE).unwrap();
            let buffers: Vec<Buffer> = lens
                .iter()
                .enumerate()
                .map(|(i, &len)| Buffer {
                    address: GuestAddress(RAM_BASE + 64 * i as u64),
                    len,
                })
                .collect();
            let chain = Chain { head: 0, readable: buffers.clone(), writable: buffers };
            let total = total(&chain.writable) as usize;
            let text: Vec<u8> = (0..total).map(|i| i as u8).collect();
            let (mut written, mut sizes) = (0, pieces.iter().cycle());
            while written < total {
                let size = *sizes.next().unwrap();
                let piece = &text[written..total.min(written + size)];
                prop_assert_eq!(write_at(&chain, written as u64, &ram, piece).unwrap(), piece.len());
                written += piece.len();
            }
            prop_assert_eq!(write_at(&chain, total as u64, &ram, b"x").unwrap(), 0);
            let (mut read, mut bytes) = (Vec::<u8>::new(), [0; 60]);
            loop {
                let size = *sizes.next().unwrap();
                match read_at(&chain, read.len() as u64, &ram, &mut bytes[..size]).unwrap() {
                    0 => break,
                    len => read.extend(&bytes[..len]),
                }
            }
            prop_assert_eq!(read, text);
        }
    }
}
