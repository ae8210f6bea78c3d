//! What a flow is known by, seen from the sliver, and how that is hashed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::net::packet::Tuple;
use crate::net::shaper::Direction;

const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// Both directions of a flow have the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    /// Addresses inside and outside, then ports, protocol and whether it is IPv4.
    words: [u64; 5],
}

impl Key {
    pub(super) fn new(tuple: &Tuple, direction: Direction) -> Self {
        let source = (tuple.source, tuple.source_port);
        let destination = (tuple.destination, tuple.destination_port);
        let (mut inside, mut remote) = match direction {
            Direction::Out => (source, destination),
            Direction::In => (destination, source),
        };
        // An identifier belongs to neither side.
        if matches!(tuple.protocol, ICMP | ICMP6) {
            inside.1 = tuple.source_port.max(tuple.destination_port);
            remote.1 = 0;
        }
        let (inside_high, inside_low) = halves(inside.0);
        let (remote_high, remote_low) = halves(remote.0);
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

    /// Multiplies and folds, one word after the other: without the seed, which is secret, nobody
    /// can make many keys that fall together.
    pub(super) fn hash(&self, seed: u64) -> u32 {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let secret = seed.rotate_left(32) ^ ODD;
        let mixed = self.words.iter().fold(seed, |hash, word| {
            let product = u128::from(hash ^ word) * u128::from(secret | 1);
            (product as u64) ^ ((product >> 64) as u64).wrapping_add(ODD)
        });
        (mixed ^ (mixed >> 32)) as u32
    }
}

fn halves(address: IpAddr) -> (u64, u64) {
    match address {
        IpAddr::V4(four) => (0, u64::from(four.to_bits())),
        IpAddr::V6(six) => ((six.to_bits() >> 64) as u64, six.to_bits() as u64),
    }
}
