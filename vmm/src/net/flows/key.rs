//! What a flow is known by, seen from the sliver, and how that is hashed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::net::hash::{Secrets, halves};
use crate::net::packet::Tuple;
use crate::net::packet::protocol::{ICMP, ICMP6};
use crate::net::shaper::Direction;

/// Both directions of a flow have the same key.
#[derive(Debug, Clone, Copy, Eq)]
pub(super) struct Key {
    /// Addresses inside and outside, then ports, protocol and whether it is IPv4.
    words: [u64; 5],
}

impl PartialEq for Key {
    /// All at once: one key is looked at, and it is the right one nearly always.
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let both = self.words.iter().zip(&other.words);
        both.fold(0, |differ, (one, other)| differ | (one ^ other)) == 0
    }
}

impl Key {
    /// What no packet has.
    pub(super) const NOBODYS: Self = Self {
        words: [u64::MAX; 5],
    };

    #[inline(always)]
    pub(super) fn new(tuple: &Tuple, direction: Direction) -> Self {
        let source = (words(&tuple.source), tuple.source_port);
        let destination = (words(&tuple.destination), tuple.destination_port);
        let (mut inside, mut remote) = match direction {
            Direction::Out => (source, destination),
            Direction::In => (destination, source),
        };
        // An identifier belongs to neither side.
        if matches!(tuple.protocol, ICMP | ICMP6) {
            inside.1 = tuple.source_port.max(tuple.destination_port);
            remote.1 = 0;
        }
        let [inside_high, inside_low] = inside.0;
        let [remote_high, remote_low] = remote.0;
        let rest = u64::from(inside.1) << 32
            | u64::from(remote.1) << 16
            | u64::from(tuple.protocol) << 8
            | u64::from(tuple.source.is_ipv4());
        Self {
            words: [inside_high, inside_low, remote_high, remote_low, rest],
        }
    }

    pub(super) fn inside(&self) -> IpAddr {
        self.address(0)
    }

    pub(super) fn remote(&self) -> IpAddr {
        self.address(2)
    }

    fn address(&self, at: usize) -> IpAddr {
        let (high, low) = (self.words[at], self.words[at + 1]);
        if self.words[4] & 1 == 1 {
            IpAddr::V4(Ipv4Addr::from_bits(low as u32))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(
                u128::from(high) << 64 | u128::from(low),
            ))
        }
    }

    pub(super) fn inside_port(&self) -> u16 {
        (self.words[4] >> 32) as u16
    }

    pub(super) fn remote_port(&self) -> u16 {
        (self.words[4] >> 16) as u16
    }

    pub(super) fn protocol(&self) -> u8 {
        (self.words[4] >> 8) as u8
    }

    pub(super) fn hash(&self, secrets: &Secrets) -> u32 {
        let hash = secrets.five(self.words);
        (hash ^ (hash >> 32)) as u32
    }
}

#[inline(always)]
fn words(address: &IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(four) => [0, u64::from(four.to_bits())],
        IpAddr::V6(six) => halves(six.to_bits()),
    }
}
