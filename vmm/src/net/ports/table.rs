//! The mappings of one protocol: which port inside is which port outside.
//!
//! A port outside has a place of its own, so that what comes from outside is found without a search;
//! what goes out is found by a hash with a seed. Nothing is allocated after [`Table::new`]. When all
//! ports are taken, the next attempt that is looked at in earnest is the one that can succeed.

use std::net::Ipv4Addr;

use crate::nanos::Nanos;

use super::life::{Life, Way};
use super::range::PortRange;

/// No place.
const NONE: u16 = u16::MAX;

/// A port of the guest: its address, and the port of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inside {
    pub(super) address: Ipv4Addr,
    pub(super) port: u16,
}

impl Inside {
    fn bits(self) -> u64 {
        u64::from(self.address.to_bits()) << 16 | u64::from(self.port)
    }
}

/// What a packet says about the life of its mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Datagram,
    Question,
    /// A segment with these flags.
    Segment(u8),
}

impl Sign {
    fn begins(self) -> Life {
        match self {
            Self::Datagram => Life::Udp,
            Self::Question => Life::Icmp,
            Self::Segment(_) => Life::Opening,
        }
    }
}

/// A mapping, if it has a life.
#[derive(Debug, Clone, Copy)]
struct Mapping {
    inside: Inside,
    life: Option<Life>,
    used: Nanos,
    /// The next with the same hash.
    next: u16,
}

impl Mapping {
    const FREE: Self = Self {
        inside: Inside {
            address: Ipv4Addr::UNSPECIFIED,
            port: 0,
        },
        life: None,
        used: Nanos::ZERO,
        next: NONE,
    };

    fn lives(&self, now: Nanos) -> bool {
        self.life.is_some_and(|life| now - self.used < life.kept())
    }

    /// The moment from which it may be given up.
    fn spared_until(&self) -> Nanos {
        self.life
            .map_or(Nanos::ZERO, |life| self.used + life.spared())
    }

    fn note(&mut self, sign: Sign, way: Way, now: Nanos) {
        if let (Some(life), Sign::Segment(flags)) = (self.life, sign) {
            self.life = Some(life.after(way, flags, now - self.used));
        }
        self.used = now;
    }
}

/// The mappings of one protocol.
#[derive(Debug)]
pub(super) struct Table {
    range: PortRange,
    seed: u64,
    places: Box<[Mapping]>,
    /// The first mapping for each hash; a power of two of them.
    heads: Box<[u16]>,
    /// Before this moment no place becomes free.
    full_until: Nanos,
}

impl Table {
    pub(super) fn new(range: PortRange, seed: u64) -> Self {
        Self {
            range,
            seed,
            places: vec![Mapping::FREE; range.count()].into(),
            heads: vec![NONE; range.count().next_power_of_two()].into(),
            full_until: Nanos::ZERO,
        }
    }

    /// The port outside for a packet of the guest, a new one if it has none. `None` if all are
    /// taken.
    pub(super) fn outside(&mut self, inside: Inside, sign: Sign, now: Nanos) -> Option<u16> {
        let place = match self.find(inside, now) {
            Some(place) => place,
            None => self.claim(inside, sign, now)?,
        };
        self.note(place, sign, Way::Out, now);
        Some(self.range.first() + place as u16)
    }

    /// The port inside for a packet from outside.
    pub(super) fn inside(&mut self, outside: u16, sign: Sign, now: Nanos) -> Option<Inside> {
        let inside = self.whose(outside, now)?;
        let place = self.range.index(outside)?;
        self.note(place, sign, Way::In, now);
        Some(inside)
    }

    /// Whose a port outside is, which is not used by that.
    pub(super) fn whose(&self, outside: u16, now: Nanos) -> Option<Inside> {
        let mapping = &self.places[self.range.index(outside)?];
        mapping.lives(now).then_some(mapping.inside)
    }

    /// The port outside of a port inside, which is not used by that.
    pub(super) fn known(&self, inside: Inside, now: Nanos) -> Option<u16> {
        let place = self.find(inside, now)?;
        Some(self.range.first() + place as u16)
    }

    /// How many there are.
    pub(super) fn len(&self, now: Nanos) -> usize {
        let living = self.places.iter().filter(|mapping| mapping.lives(now));
        living.count()
    }

    fn note(&mut self, place: usize, sign: Sign, way: Way, now: Nanos) {
        let mapping = &mut self.places[place];
        let before = mapping.life;
        mapping.note(sign, way, now);
        if mapping.life != before {
            self.full_until = self.full_until.min(mapping.spared_until());
        }
    }

    fn find(&self, inside: Inside, now: Nanos) -> Option<usize> {
        let mut place = self.heads[self.bucket(inside)];
        while place != NONE {
            let mapping = &self.places[usize::from(place)];
            if mapping.inside == inside {
                return mapping.lives(now).then_some(place.into());
            }
            place = mapping.next;
        }
        None
    }

    /// Takes a place for a port inside: that of the same number if it is free, or else one that
    /// nobody foresees.
    fn claim(&mut self, inside: Inside, sign: Sign, now: Nanos) -> Option<usize> {
        // What has outlived its time under the same key may be elsewhere than what comes now.
        self.forget(inside);
        let same = self.range.index(inside.port);
        let place = match same.filter(|place| !self.places[*place].lives(now)) {
            Some(place) => place,
            None => self.look_for_place(inside, now)?,
        };
        if self.places[place].life.is_some() {
            self.forget(self.places[place].inside);
        }
        let bucket = self.bucket(inside);
        self.places[place] = Mapping {
            inside,
            life: Some(sign.begins()),
            used: now,
            next: self.heads[bucket],
        };
        self.heads[bucket] = place as u16;
        Some(place)
    }

    /// A place that is free, or else the one that was spared the longest.
    fn look_for_place(&mut self, inside: Inside, now: Nanos) -> Option<usize> {
        if now < self.full_until {
            return None;
        }
        let count = self.places.len();
        let start = self.hash(inside) as usize % count;
        let mut best = None;
        let mut earliest = Nanos::NEVER;
        for place in (start..count).chain(0..start) {
            let mapping = &self.places[place];
            if !mapping.lives(now) {
                return Some(place);
            }
            if mapping.spared_until() < earliest {
                earliest = mapping.spared_until();
                best = Some(place);
            }
        }
        if earliest <= now {
            return best;
        }
        self.full_until = earliest;
        None
    }

    fn forget(&mut self, inside: Inside) {
        let bucket = self.bucket(inside);
        let (mut before, mut place) = (NONE, self.heads[bucket]);
        while place != NONE {
            let mapping = self.places[usize::from(place)];
            if mapping.inside == inside {
                match before {
                    NONE => self.heads[bucket] = mapping.next,
                    before => self.places[usize::from(before)].next = mapping.next,
                }
                self.places[usize::from(place)] = Mapping::FREE;
                return;
            }
            (before, place) = (place, mapping.next);
        }
    }

    fn bucket(&self, inside: Inside) -> usize {
        self.hash(inside) as usize & (self.heads.len() - 1)
    }

    /// Mixes with the seed, so that a guest cannot choose ports that all have the same hash.
    fn hash(&self, inside: Inside) -> u64 {
        // Two rounds of folded multiplication, by digits of pi.
        let fold = |value: u64, by: u64| {
            let product = u128::from(value) * u128::from(by);
            (product as u64) ^ (product >> 64) as u64
        };
        let once = fold(inside.bits() ^ self.seed, 0x243f_6a88_85a3_08d3);
        fold(once ^ self.seed.rotate_left(32), 0x1319_8a2e_0370_7344 | 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn range() -> PortRange {
        PortRange::new(20_000, 20_031).unwrap()
    }

    fn inside(port: u16) -> Inside {
        Inside {
            address: Ipv4Addr::new(10, 0, 2, 15),
            port,
        }
    }

    #[test]
    fn a_port_of_the_range_keeps_its_number_if_it_is_free() {
        let mut table = Table::new(range(), 1);
        let now = Nanos::ZERO;
        assert_eq!(
            table.outside(inside(20_007), Sign::Datagram, now),
            Some(20_007)
        );
        let other = Inside {
            address: Ipv4Addr::new(10, 0, 3, 15),
            port: 20_007,
        };
        let outside = table.outside(other, Sign::Datagram, now).unwrap();
        assert_ne!(outside, 20_007);
        assert_eq!(table.whose(outside, now), Some(other));
    }

    #[test]
    fn when_all_ports_are_taken_the_next_one_waits_for_the_first_that_is_given_up() {
        let mut table = Table::new(range(), 7);
        for port in 0..32 {
            let at = Nanos(u64::from(port));
            table
                .outside(inside(5000 + port), Sign::Datagram, at)
                .unwrap();
        }
        assert_eq!(table.len(Nanos(31)), 32);
        let spared = Life::Udp.spared();
        assert_eq!(
            table.outside(inside(1), Sign::Datagram, spared - Nanos(1)),
            None
        );
        let outside = table.outside(inside(1), Sign::Datagram, spared).unwrap();
        assert_eq!(table.whose(outside, spared), Some(inside(1)));
        assert_eq!(table.known(inside(5000), spared), None, "the oldest");
        assert!(table.known(inside(5001), spared).is_some());
        assert_eq!(table.outside(inside(2), Sign::Datagram, spared), None);
    }

    #[test]
    fn a_connection_that_breaks_off_makes_room_at_once_although_all_was_full() {
        let mut table = Table::new(range(), 7);
        let (syn, ack, rst) = (Sign::Segment(2), Sign::Segment(0x10), Sign::Segment(4));
        for port in 0..32 {
            let outside = table
                .outside(inside(5000 + port), syn, Nanos::ZERO)
                .unwrap();
            table.inside(outside, ack, Nanos::ZERO).unwrap();
        }
        let now = Nanos(100 * SECOND);
        assert_eq!(table.outside(inside(1), syn, now), None, "all are open");
        let outside = table.known(inside(5009), now).unwrap();
        table.inside(outside, rst, now).unwrap();
        let later = now + Life::Closed.spared();
        assert_eq!(table.outside(inside(1), syn, later), Some(outside));
    }

    #[test]
    fn an_idle_mapping_is_forgotten_and_its_port_is_free() {
        let mut table = Table::new(range(), 7);
        let outside = table
            .outside(inside(1), Sign::Question, Nanos::ZERO)
            .unwrap();
        let end = Life::Icmp.kept();
        assert!(table.whose(outside, end - Nanos(1)).is_some());
        assert_eq!(table.whose(outside, end), None);
        assert_eq!(table.len(end), 0);
    }

    proptest! {
        /// Compared with a map that is searched: what lives is found both ways, and no port outside
        /// is two ports'.
        #[test]
        fn mappings_are_one_to_one(
            seed in any::<u64>(),
            steps in prop::collection::vec((0_u16..64, 0_u64..40, any::<bool>()), 1..400),
        ) {
            let mut table = Table::new(range(), seed);
            let mut last: HashMap<u16, u16> = HashMap::new();
            let mut now = Nanos::ZERO;
            for (port, wait, tcp) in steps {
                now = now + Nanos(wait * SECOND);
                let sign = if tcp { Sign::Segment(2) } else { Sign::Datagram };
                let known = table.known(inside(port), now);
                if let Some(outside) = table.outside(inside(port), sign, now) {
                    prop_assert!(range().contains(outside));
                    prop_assert!(known.is_none_or(|known| known == outside));
                    last.insert(port, outside);
                    prop_assert_eq!(table.known(inside(port), now), Some(outside));
                } else {
                    prop_assert_eq!(known, None);
                    prop_assert_eq!(table.len(now), range().count());
                }
                let living: Vec<u16> = (0..64)
                    .filter_map(|port| table.known(inside(port), now))
                    .collect();
                let distinct: HashSet<u16> = living.iter().copied().collect();
                prop_assert_eq!(living.len(), distinct.len());
                prop_assert_eq!(living.len(), table.len(now));
                for port in 0..64 {
                    if let Some(outside) = table.known(inside(port), now) {
                        prop_assert_eq!(table.whose(outside, now), Some(inside(port)));
                        prop_assert_eq!(last.get(&port), Some(&outside));
                    }
                }
            }
        }
    }
}
