//! A record of the log: one key set to a value, or removed. It begins on a sector and is padded to
//! the end of its last one, so that writing the next record never touches it.
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | magic |
//! | 4..8 | CRC32C of all that follows, without the padding |
//! | 8..16 | generation of the log in which it was written |
//! | 16..24 | sequence: one more than that of the record before |
//! | 24..28 | length of the key |
//! | 28..32 | length of the value; all ones: the key is removed |
//! | 32.. | key, value, zeros to the end of the sector |
//!
//! Numbers are little endian.

use crc::{CRC_32_ISCSI, Crc, Table};
use guest_shim::prelude::*;

use crate::storage::SECTOR;

/// The longest key.
pub(crate) const MAX_KEY: usize = 1 << 10;

/// The longest value.
pub(crate) const MAX_VALUE: usize = 64 << 10;

/// Bytes of the longest record.
pub(crate) const MAX_RECORD: u64 = padded(HEADER + MAX_KEY + MAX_VALUE);

const HEADER: usize = 32;

const MAGIC: u32 = u32::from_le_bytes(*b"kvr1");

/// In place of a value's length.
const REMOVED: u32 = u32::MAX;

pub(super) const CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// A record as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) generation: u64,
    pub(super) sequence: u64,
    pub(super) key: &'a [u8],
    /// `None` if the key is removed.
    pub(super) value: Option<&'a [u8]>,
}

/// Bytes of a record on the disk.
pub(super) const fn size(key: usize, value: Option<usize>) -> u64 {
    padded(match value {
        Some(value) => HEADER + key + value,
        None => HEADER + key,
    })
}

const fn padded(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(SECTOR)
}

impl<'a> Record<'a> {
    /// Bytes of it on the disk.
    pub(super) fn size(&self) -> u64 {
        size(self.key.len(), self.value.map(<[u8]>::len))
    }

    /// Appends it as it is on the disk.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let value_length = self.value.map_or(REMOVED, |value| value.len() as u32);
        out.extend(MAGIC.to_le_bytes());
        out.extend([0; 4]);
        out.extend(self.generation.to_le_bytes());
        out.extend(self.sequence.to_le_bytes());
        out.extend((self.key.len() as u32).to_le_bytes());
        out.extend(value_length.to_le_bytes());
        out.extend(self.key);
        out.extend(self.value.unwrap_or_default());
        let crc = CRC32C.checksum(&out[start + 8..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
        out.resize(start + self.size() as usize, 0);
    }

    /// The record at the beginning of `bytes`, if it is there and whole.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let [magic, crc] = [0, 4].map(|at| word(bytes, at));
        let (key_length, value_length) = (word(bytes, 24)? as usize, word(bytes, 28)?);
        let value_length = (value_length != REMOVED).then_some(value_length as usize);
        if magic? != MAGIC || key_length > MAX_KEY || value_length.unwrap_or(0) > MAX_VALUE {
            return None;
        }
        let value_at = HEADER + key_length;
        let end = value_at + value_length.unwrap_or(0);
        let whole = bytes.get(..end)?;
        if crc? != CRC32C.checksum(&whole[8..]) {
            return None;
        }
        Some(Self {
            generation: long(whole, 8)?,
            sequence: long(whole, 16)?,
            key: &whole[HEADER..value_at],
            value: value_length.map(|_| &whole[value_at..]),
        })
    }
}

/// The number of 4 bytes at `at`.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The number of 8 bytes at `at`.
pub(super) fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_comes_back_as_it_went_and_not_at_all_if_a_bit_is_wrong(
            key in proptest::collection::vec(any::<u8>(), 0..40),
            value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..1200)),
            (generation, sequence, flip) in any::<(u64, u64, u64)>(),
        ) {
            let value = value.as_deref();
            let record = Record { generation, sequence, key: &key, value };
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            prop_assert_eq!(bytes.len() as u64, record.size());
            prop_assert_eq!(bytes.len() as u64 % SECTOR, 0);
            prop_assert_eq!(Record::decode(&bytes), Some(record));
            let covered = HEADER + key.len() + value.map_or(0, <[u8]>::len);
            let bit = flip as usize % (covered * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Record::decode(&bytes), None);
        }
    }

    #[test]
    fn what_ends_too_early_is_no_record() {
        let mut bytes = Vec::new();
        let record = Record {
            generation: 1,
            sequence: 2,
            key: b"k",
            value: Some(&[7; 700]),
        };
        record.encode(&mut bytes);
        for length in 0..HEADER + 701 {
            assert_eq!(Record::decode(&bytes[..length]), None, "{length}");
        }
    }
}
