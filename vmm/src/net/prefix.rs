//! Prefixes of addresses, and sets of them that are looked up for every packet.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

/// What is no prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub enum PrefixError {
    #[error("is no address such as 192.0.2.7 or prefix such as 192.0.2.0/24")]
    Address,
    #[error("has {bits} bits, an address has {most}")]
    Bits { bits: String, most: u8 },
    #[error("has bits behind the prefix: {prefix} is meant, or another length")]
    Rest { prefix: Prefix },
}

impl Prefix {
    /// The prefix of that many bits that holds an address; all of an address's at most.
    pub fn holding(address: IpAddr, bits: u8) -> Self {
        let bits = bits.min(most(address));
        let address = match address {
            IpAddr::V4(four) => {
                let kept = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(four.to_bits() & kept))
            }
            IpAddr::V6(six) => {
                let kept = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() & kept))
            }
        };
        Self { address, bits }
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let same = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros()
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros()
            }
            _ => return false,
        };
        same >= u32::from(self.bits)
    }

    /// Its first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The number of its bits.
    pub fn bits(&self) -> u8 {
        self.bits
    }
}

fn most(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// An address alone is a prefix, too.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| PrefixError::Address)?;
        let most = most(address);
        let bits = match bits {
            None => most,
            Some(text) => {
                let is_number = text.bytes().all(|digit| digit.is_ascii_digit());
                let bits = text.parse().ok().filter(|bits| *bits <= most && is_number);
                bits.ok_or_else(|| PrefixError::Bits {
                    bits: text.chars().take(8).collect(),
                    most,
                })?
            }
        };
        let prefix = Self::holding(address, bits);
        if prefix.address != address {
            return Err(PrefixError::Rest { prefix });
        }
        Ok(prefix)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;

    fn try_from(text: String) -> Result<Self, PrefixError> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

/// Whether addresses are in one of many prefixes: a search among ranges that do not overlap, and
/// for most addresses not even that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrefixSet {
    four: Ranges<u32>,
    six: Ranges<u128>,
}

/// Ranges in their order, and with which first bytes anything begins that is in one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ranges<T> {
    first_bytes: [u64; 4],
    all: Vec<(T, T)>,
}

impl PrefixSet {
    /// The set of these.
    pub fn new(prefixes: &[Prefix]) -> Self {
        let (mut four, mut six) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            match prefix.address {
                IpAddr::V4(address) => {
                    let rest = u32::MAX.checked_shr(prefix.bits.into()).unwrap_or(0);
                    four.push((address.to_bits(), address.to_bits() | rest));
                }
                IpAddr::V6(address) => {
                    let rest = u128::MAX.checked_shr(prefix.bits.into()).unwrap_or(0);
                    six.push((address.to_bits(), address.to_bits() | rest));
                }
            }
        }
        Self {
            four: Ranges::new(merged(four), |value| (value >> 24) as u8),
            six: Ranges::new(merged(six), |value| (value >> 120) as u8),
        }
    }

    /// Whether an address is in one of them.
    #[inline]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(four) => {
                let [first, ..] = four.octets();
                self.four.may_hold(first) && self.four.holds(four.to_bits())
            }
            IpAddr::V6(six) => {
                let [first, ..] = six.octets();
                self.six.may_hold(first) && self.six.holds(six.to_bits())
            }
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.four.all.is_empty() && self.six.all.is_empty()
    }
}

/// Prefixes overlap only by one holding the other.
fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    // Of those with the same beginning the longest comes first.
    ranges.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    let mut kept: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for range in ranges {
        if kept.last().is_none_or(|last| last.1 < range.0) {
            kept.push(range);
        }
    }
    kept
}

impl<T: Ord + Copy> Ranges<T> {
    fn new(all: Vec<(T, T)>, first_byte: impl Fn(T) -> u8) -> Self {
        let mut first_bytes = [0; 4];
        for (first, last) in &all {
            for byte in first_byte(*first)..=first_byte(*last) {
                first_bytes[usize::from(byte / 64)] |= 1 << (byte % 64);
            }
        }
        Self { first_bytes, all }
    }

    #[inline]
    fn may_hold(&self, first_byte: u8) -> bool {
        self.first_bytes[usize::from(first_byte / 64)] >> (first_byte % 64) & 1 != 0
    }

    fn holds(&self, value: T) -> bool {
        let after = self.all.partition_point(|range| range.0 <= value);
        after > 0 && self.all[after - 1].1 >= value
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prefixes_are_written_as_they_are_read() {
        for (text, told) in [
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), told);
        }
    }

    #[test]
    fn what_is_no_prefix_is_told() {
        for (text, told) in [
            ("", "is no address"),
            ("example.org", "is no address"),
            ("192.0.2.0/33", "has 33 bits, an address has 32"),
            ("192.0.2.0/+8", "has +8 bits"),
            ("::/129", "has 129 bits, an address has 128"),
            ("192.0.2.7/24", "192.0.2.0/24 is meant"),
        ] {
            let error = text.parse::<Prefix>().unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    /// The addresses before and after one.
    fn beside(address: IpAddr) -> [IpAddr; 2] {
        match address {
            IpAddr::V4(four) => [u32::MAX, 1]
                .map(|step| Ipv4Addr::from_bits(four.to_bits().wrapping_add(step)).into()),
            IpAddr::V6(six) => [u128::MAX, 1]
                .map(|step| Ipv6Addr::from_bits(six.to_bits().wrapping_add(step)).into()),
        }
    }

    fn any_prefix() -> impl Strategy<Value = Prefix> {
        // Few bits that differ, so that prefixes meet.
        let four = (0u32..64, 26u8..=32).prop_map(|(low, bits)| {
            Prefix::holding(Ipv4Addr::from_bits(0x0a00_0000 | low).into(), bits)
        });
        let six = (0u128..64, 122u8..=128)
            .prop_map(|(low, bits)| Prefix::holding(Ipv6Addr::from_bits(low).into(), bits));
        prop_oneof![four, six]
    }

    proptest! {
        #[test]
        fn a_set_of_any_prefixes_holds_their_first_and_last_addresses_and_no_others(
            four in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..4),
            six in proptest::collection::vec((any::<u128>(), 0u8..=128), 0..4),
        ) {
            let four = four.into_iter().map(|(address, bits)| (Ipv4Addr::from_bits(address).into(), bits));
            let six = six.into_iter().map(|(address, bits)| (Ipv6Addr::from_bits(address).into(), bits));
            let prefixes: Vec<Prefix> = { four.chain(six) }
                .map(|(address, bits)| Prefix::holding(address, bits))
                .collect();
            let set = PrefixSet::new(&prefixes);
            for prefix in &prefixes {
                let last: IpAddr = match prefix.address {
                    IpAddr::V4(four) => {
                        let rest = u32::MAX.checked_shr(prefix.bits.into()).unwrap_or(0);
                        Ipv4Addr::from_bits(four.to_bits() | rest).into()
                    }
                    IpAddr::V6(six) => {
                        let rest = u128::MAX.checked_shr(prefix.bits.into()).unwrap_or(0);
                        Ipv6Addr::from_bits(six.to_bits() | rest).into()
                    }
                };
                prop_assert!(set.contains(prefix.address) && set.contains(last));
                for address in beside(prefix.address).into_iter().chain(beside(last)) {
                    let mut holding = prefixes.iter().map(|prefix| (prefix, prefix.bits));
                    let expected = holding
                        .any(|(prefix, bits)| Prefix::holding(address, bits) == *prefix);
                    prop_assert_eq!(set.contains(address), expected, "{}", address);
                }
            }
        }

        #[test]
        fn a_set_holds_what_its_prefixes_do(
            prefixes in proptest::collection::vec(any_prefix(), 0..12),
        ) {
            let set = PrefixSet::new(&prefixes);
            for low in 0..80u32 {
                for address in [
                    IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 | low)),
                    IpAddr::from(Ipv6Addr::from_bits(low.into())),
                ] {
                    let expected = prefixes.iter().any(|prefix| prefix.contains(address));
                    prop_assert_eq!(set.contains(address), expected, "{}", address);
                }
            }
        }
    }
}
