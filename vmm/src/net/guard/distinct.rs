//! How many different addresses flows were begun to within the last hour, and no more than so many.
//!
//! Exact, with a bounded memory: of each address that counts there is one entry, in the order of
//! the last flow to it, and there are at most as many as are allowed. The oldest leave after an
//! hour.

use std::net::IpAddr;

use crate::nanos::Nanos;
use crate::net::hash::{AddressMap, Secrets, bits};

const HOUR: Nanos = Nanos::from_millis(3_600_000);

/// No entry.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Distinct {
    most: usize,
    places: AddressMap<u32>,
    entries: Vec<Entry>,
    oldest: u32,
    newest: u32,
    /// The first of those that are not used, linked by `newer`.
    free: u32,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    address: IpAddr,
    last: Nanos,
    older: u32,
    newer: u32,
}

impl Distinct {
    /// Allows `most` addresses, fewer than 2^32.
    pub(super) fn new(most: u64, secrets: Secrets) -> Self {
        Self {
            most: most as usize,
            places: AddressMap::with_hasher(secrets),
            entries: Vec::new(),
            oldest: NONE,
            newest: NONE,
            free: NONE,
        }
    }

    /// Whether a flow may be begun to an address, which then counts for an hour.
    pub(super) fn allows(&mut self, address: IpAddr, now: Nanos) -> bool {
        self.expire(now);
        let place = match self.places.get(&bits(address)) {
            Some(&place) => {
                self.unlink(place);
                place
            }
            None if self.places.len() >= self.most => return false,
            None => {
                let place = self.unused(address);
                self.places.insert(bits(address), place);
                place
            }
        };
        self.append(place, now);
        true
    }

    fn expire(&mut self, now: Nanos) {
        while self.oldest != NONE {
            let place = self.oldest;
            let entry = self.entries[place as usize];
            if now - entry.last < HOUR {
                return;
            }
            self.unlink(place);
            self.places.remove(&bits(entry.address));
            self.entries[place as usize].newer = self.free;
            self.free = place;
        }
    }

    fn unused(&mut self, address: IpAddr) -> u32 {
        let entry = Entry {
            address,
            last: Nanos::ZERO,
            older: NONE,
            newer: NONE,
        };
        if self.free == NONE {
            self.entries.push(entry);
            return self.entries.len() as u32 - 1;
        }
        let place = self.free;
        self.free = self.entries[place as usize].newer;
        self.entries[place as usize] = entry;
        place
    }

    fn unlink(&mut self, place: u32) {
        let Entry { older, newer, .. } = self.entries[place as usize];
        match older {
            NONE => self.oldest = newer,
            older => self.entries[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.entries[newer as usize].older = older,
        }
    }

    fn append(&mut self, place: u32, now: Nanos) {
        let newest = self.newest;
        let entry = &mut self.entries[place as usize];
        (entry.last, entry.older, entry.newer) = (now, newest, NONE);
        match newest {
            NONE => self.oldest = place,
            newest => self.entries[newest as usize].newer = place,
        }
        self.newest = place;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn as_many_as_are_allowed_in_each_hour_and_known_ones_always() {
        let mut distinct = Distinct::new(100, Secrets::new(7));
        for hour in 0..5u64 {
            let now = Nanos(HOUR.0 * hour);
            let range = hour as u32 * 1000..(hour as u32 + 1) * 1000;
            let allowed = range.clone().filter(|n| distinct.allows(address(*n), now));
            assert_eq!(allowed.count(), 100);
            assert!(distinct.allows(address(range.start), now + Nanos(1)));
            assert!(!distinct.allows(address(range.start + 999), now + Nanos(1)));
            // It has counted anew since: it goes an hour after that.
            distinct.expire(now + HOUR);
            assert_eq!(distinct.places.len(), 1);
            distinct.expire(now + HOUR + Nanos(1));
            assert_eq!(distinct.places.len(), 0);
        }
        assert_eq!(distinct.entries.len(), 100);
    }

    proptest! {
        #[test]
        fn it_does_as_a_list_of_all_that_was_sent_would(
            steps in proptest::collection::vec((0u32..12, 0u64..900), 1..200),
        ) {
            let mut distinct = Distinct::new(5, Secrets::new(7));
            let mut model: BTreeMap<u32, Nanos> = BTreeMap::new();
            let mut now = Nanos(0);
            for (number, seconds) in steps {
                now = now + Nanos::from_millis(seconds * 1000);
                model.retain(|_, last| now - *last < HOUR);
                let expected = model.contains_key(&number) || model.len() < 5;
                prop_assert_eq!(distinct.allows(address(number), now), expected);
                if expected {
                    model.insert(number, now);
                }
                prop_assert!(distinct.entries.len() <= 5);
            }
        }
    }
}
