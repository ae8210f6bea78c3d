//! Where the log is: two copies at the beginning of the disk, of which the one with the higher
//! generation counts. A new one is written over the other copy, so there is always one that is whole.
//!
//! Each takes one sector: magic, CRC32C of what follows, and five numbers of 8 bytes each. Between
//! the copies is a gap: a disk with larger sectors below does not lose both at once.

use guest_shim::prelude::*;

use super::record::{CRC32C, long, word};
use crate::storage::SECTOR;

/// Where the two copies are.
pub(super) const COPIES: [u64; 2] = [0, 4096];

/// Where the first half begins.
pub(super) const HALVES: u64 = 8192;

/// The halves' sizes are multiples of this.
pub(super) const HALF_UNIT: u64 = 4096;

const MAGIC: u32 = u32::from_le_bytes(*b"kvs1");

const NUMBERS: usize = 5;

/// Where the log is and how far it is known to be whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Superblock {
    /// Grows with every superblock; new records carry it.
    pub(super) generation: u64,
    /// Which half holds the log: 0 or 1.
    pub(super) half: u64,
    /// Bytes of each half.
    pub(super) half_bytes: u64,
    /// Sequence of the half's first record.
    pub(super) first_sequence: u64,
    /// Bytes of the half that were whole and durable when this was written. What follows counts
    /// only if it carries this generation: anything else was left behind by a crash.
    pub(super) resumed: u64,
}

impl Superblock {
    /// Where on the disk a half begins.
    pub(super) fn base(&self, half: u64) -> u64 {
        HALVES + half * self.half_bytes
    }

    /// The sector that holds it.
    pub(super) fn encode(&self) -> Vec<u8> {
        let numbers = [
            self.generation,
            self.half,
            self.half_bytes,
            self.first_sequence,
            self.resumed,
        ];
        let mut bytes = Vec::with_capacity(SECTOR as usize);
        bytes.extend(MAGIC.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        let crc = CRC32C.checksum(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes.resize(SECTOR as usize, 0);
        bytes
    }

    /// The one in this sector, if there is one and it makes sense on a disk of `disk_bytes`.
    pub(super) fn decode(sector: &[u8], disk_bytes: u64) -> Option<Self> {
        let covered = sector.get(8..8 + 8 * NUMBERS)?;
        if word(sector, 0)? != MAGIC || word(sector, 4)? != CRC32C.checksum(covered) {
            return None;
        }
        let found = Self {
            generation: long(covered, 0)?,
            half: long(covered, 8)?,
            half_bytes: long(covered, 16)?,
            first_sequence: long(covered, 24)?,
            resumed: long(covered, 32)?,
        };
        let fits = found.half <= 1
            && found.half_bytes <= disk_bytes.saturating_sub(HALVES) / 2
            && found.resumed <= found.half_bytes;
        fits.then_some(found)
    }
}
