//! The configuration space of a block device (virtio 1.2, 5.2.4), and its features.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO,
    VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};

use super::request::{MAX_SEGMENT_SECTORS, MAX_SEGMENTS};
use crate::disk::{Disk, SECTOR};

/// Its length, up to what write-zeroes needs.
const BYTES: usize = 60;
/// Plain files are kept in blocks of this size nearly everywhere.
const PHYSICAL_BLOCK: u64 = 4096;

/// Features of a device for this disk.
pub(super) fn features(disk: &Disk) -> u64 {
    let always = [
        VIRTIO_BLK_F_SEG_MAX,
        VIRTIO_BLK_F_BLK_SIZE,
        VIRTIO_BLK_F_TOPOLOGY,
        VIRTIO_BLK_F_FLUSH,
    ];
    let others: &[u32] = if disk.read_only() {
        &[VIRTIO_BLK_F_RO]
    } else {
        &[VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES]
    };
    always.iter().chain(others).map(|bit| 1 << bit).sum()
}

/// Its configuration space, with chains of at most `queue_size` descriptors.
pub(super) fn space(disk: &Disk, queue_size: u16) -> [u8; BYTES] {
    let block = disk.block_bytes();
    let physical = PHYSICAL_BLOCK.max(block);
    let alignment = (block / SECTOR) as u32;
    let mut space = [0; BYTES];
    let mut put = |at: usize, bytes: &[u8]| space[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(disk.bytes() / SECTOR).to_le_bytes());
    // Header and status take a descriptor each.
    put(12, &u32::from(queue_size - 2).to_le_bytes());
    put(20, &(block as u32).to_le_bytes());
    // Topology: logical blocks of a physical one as a power of two, no offset, the smallest and
    // the best size of a request in logical blocks.
    put(24, &[(physical / block).trailing_zeros() as u8, 0]);
    put(26, &((physical / block) as u16).to_le_bytes());
    put(34, &1u16.to_le_bytes());
    if !disk.read_only() {
        put(36, &MAX_SEGMENT_SECTORS.to_le_bytes());
        put(40, &(MAX_SEGMENTS as u32).to_le_bytes());
        put(44, &alignment.to_le_bytes());
        put(48, &MAX_SEGMENT_SECTORS.to_le_bytes());
        put(52, &(MAX_SEGMENTS as u32).to_le_bytes());
        // Zeros may be made by unmapping.
        put(56, &[1]);
    }
    space
}
