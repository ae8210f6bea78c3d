//! Where each key's newest record is. In memory, made anew from the log whenever it is opened.
//!
//! Keys are kept in the order of a hash of them. So a scan can go on from a number, whatever has
//! changed since: its cursor is the hash to go on from.

use alloc::collections::BTreeMap;
use guest_shim::alloc;
use guest_shim::prelude::*;

/// Memory that an entry takes besides its key, about.
const ENTRY: usize = 96;

/// Bytes of the hash before the key.
const HASH: usize = size_of::<u64>();

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    /// Its offset on the disk.
    pub(super) offset: u64,
    /// Its size there.
    pub(super) bytes: u64,
    /// Its sequence, by which it is known from others that were there before it.
    pub(super) sequence: u64,
}

/// Sums over all entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// Bytes of the records.
    pub(super) live: u64,
    /// Memory that the keys take.
    pub(super) memory: usize,
}

/// Where each key's newest record is.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: BTreeMap<Vec<u8>, Location>,
    sums: Sums,
}

/// Changes that an index does not show yet.
#[derive(Debug, Default)]
pub(super) struct Staged {
    changes: BTreeMap<Vec<u8>, Option<Location>>,
    /// The sums with the changes, once there are any.
    sums: Option<Sums>,
}

impl Index {
    pub(super) fn find(&self, key: &[u8]) -> Option<Location> {
        self.entries.get(&hashed(key)).copied()
    }

    pub(super) fn keys(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn live(&self) -> u64 {
        self.sums.live
    }

    /// Notes where the newest record of a key is, or that the key is removed.
    pub(super) fn put(&mut self, key: &[u8], location: Option<Location>) {
        let key = hashed(key);
        self.sums = self
            .sums
            .changed(&key, self.entries.get(&key).copied(), location);
        self.put_hashed(key, location);
    }

    /// Shows changes that were staged with this index.
    pub(super) fn apply(&mut self, staged: Staged) {
        for (key, location) in staged.changes {
            self.put_hashed(key, location);
        }
        self.sums = staged.sums.unwrap_or(self.sums);
    }

    /// Has every entry point elsewhere.
    pub(super) fn relocate(&mut self, to: impl Fn(Location) -> Location) {
        self.entries
            .values_mut()
            .for_each(|location| *location = to(*location));
    }

    /// At least `count` keys whose hashes are at or after `cursor`, unless there are no more, and
    /// the cursor to go on with. Keys of the same hash come together.
    pub(super) fn scan(&self, cursor: u64, count: usize) -> (u64, Vec<Vec<u8>>) {
        let mut keys = Vec::new();
        let mut last = 0;
        for hashed in self
            .entries
            .range(cursor.to_be_bytes().to_vec()..)
            .map(|(key, _)| key)
        {
            let (hash, key) = hashed.split_at(HASH);
            let hash = hash
                .first_chunk()
                .map_or(0, |bytes| u64::from_be_bytes(*bytes));
            if keys.len() >= count && hash != last {
                return (hash, keys);
            }
            last = hash;
            keys.push(key.to_vec());
        }
        (0, keys)
    }

    fn put_hashed(&mut self, key: Vec<u8>, location: Option<Location>) {
        match location {
            Some(location) => self.entries.insert(key, location),
            None => self.entries.remove(&key),
        };
    }
}

impl Staged {
    /// What `index` says of a key, with the changes.
    pub(super) fn find(&self, index: &Index, key: &[u8]) -> Option<Location> {
        let key = hashed(key);
        match self.changes.get(&key) {
            Some(changed) => *changed,
            None => index.entries.get(&key).copied(),
        }
    }

    /// The sums if one more change were made.
    pub(super) fn with(&self, index: &Index, key: &[u8], location: Option<Location>) -> Sums {
        let sums = self.sums.unwrap_or(index.sums);
        sums.changed(&hashed(key), self.find(index, key), location)
    }

    /// Makes a change, after which the sums are these.
    pub(super) fn put(&mut self, key: &[u8], location: Option<Location>, sums: Sums) {
        self.changes.insert(hashed(key), location);
        self.sums = Some(sums);
    }
}

impl Sums {
    fn changed(self, hashed: &[u8], old: Option<Location>, new: Option<Location>) -> Self {
        let bytes = |location: Option<Location>| location.map_or(0, |it| it.bytes);
        let memory = |location: Option<Location>| location.map_or(0, |_| ENTRY + hashed.len());
        Self {
            live: self.live + bytes(new) - bytes(old),
            memory: self.memory + memory(new) - memory(old),
        }
    }
}

/// A key with its hash before it, 64-bit FNV-1a, never 0: that is where a scan begins and ends.
fn hashed(key: &[u8]) -> Vec<u8> {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut hashed = hash.max(1).to_be_bytes().to_vec();
    hashed.extend(key);
    hashed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u64) -> Option<Location> {
        Some(Location {
            offset: number * 512,
            bytes: 512,
            sequence: number,
        })
    }

    #[test]
    fn a_scan_in_steps_shows_each_key_that_stays_once() {
        let mut index = Index::default();
        for number in 0..500u64 {
            index.put(&number.to_le_bytes(), place(number));
        }
        let (mut cursor, mut seen) = (0, Vec::new());
        for step in 0.. {
            let (next, keys) = index.scan(cursor, 7);
            seen.extend(keys);
            // Others come and go meanwhile.
            index.put(&(1000 + step).to_string().into_bytes(), place(step));
            index.put(&(997 + step).to_string().into_bytes(), None);
            if next == 0 {
                break;
            }
            cursor = next;
        }
        for number in 0..500u64 {
            let times = seen
                .iter()
                .filter(|key| **key == number.to_le_bytes())
                .count();
            assert_eq!(times, 1, "{number}");
        }
    }

    #[test]
    fn sums_are_of_what_is_there() {
        let mut index = Index::default();
        index.put(b"a", place(1));
        index.put(b"a", place(2));
        index.put(b"b", place(3));
        assert_eq!(index.live(), 1024);
        index.put(b"a", None);
        index.put(b"none", None);
        index.put(b"b", None);
        assert_eq!(index.sums, Sums::default());
    }
}
