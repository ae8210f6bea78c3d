//! A fast hash for tables whose keys a guest chooses.
//!
//! Pairs of words are each covered with a secret, multiplied to twice their length and folded, as
//! wyhash does. Which keys fall together depends on all the secrets, which are the sliver's own and
//! never told: a guest that does not know them can do no better than chance. SipHash promises that
//! against who sees the hashes, too, for three times the time; nobody sees these.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;

/// A map from the [`bits`] of addresses.
pub(super) type AddressMap<V> = HashMap<u128, V, Secrets>;

/// An address as a number; one of IPv4 as what stands for it in IPv6 (RFC 4291, 2.5.5.2).
#[inline]
pub(super) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(four) => 0xffff << 32 | u128::from(four.to_bits()),
        IpAddr::V6(six) => six.to_bits(),
    }
}

/// The halves of a number, the higher one first.
#[inline]
pub(super) fn halves(bits: u128) -> [u64; 2] {
    [(bits >> 64) as u64, bits as u64]
}

/// The secrets of a sliver.
#[derive(Debug, Clone, Copy)]
pub(super) struct Secrets([u64; 4]);

impl Secrets {
    /// Makes them of a seed that nobody knows.
    pub(super) fn new(seed: u64) -> Self {
        // SplitMix64 (Steele 2014): it is a permutation, so none of the seed is lost.
        let word = |index: u64| {
            let mut word = seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^ (word >> 31)
        };
        Self([word(1), word(2), word(3), word(4)])
    }

    /// The hash of two words.
    #[inline]
    pub(super) fn two(&self, [a, b]: [u64; 2]) -> u64 {
        let [first, second, third, _] = self.0;
        fold(fold(a ^ first, b ^ second) ^ third, first)
    }

    /// The hash of five words.
    #[inline]
    pub(super) fn five(&self, [a, b, c, d, e]: [u64; 5]) -> u64 {
        let [first, second, third, fourth] = self.0;
        // The first two do not wait for each other.
        let (one, other) = (fold(a ^ first, b ^ second), fold(c ^ third, d ^ fourth));
        let all = fold(one ^ e ^ third, other ^ first);
        // Once more: after one product keys in an arithmetic progression are not spread well.
        fold(all ^ second, fourth)
    }
}

impl BuildHasher for Secrets {
    type Hasher = Hashing;

    fn build_hasher(&self) -> Hashing {
        Hashing {
            secrets: *self,
            hash: 0,
        }
    }
}

/// A hash in the making.
#[derive(Debug)]
pub(super) struct Hashing {
    secrets: Secrets,
    hash: u64,
}

impl Hasher for Hashing {
    fn finish(&self) -> u64 {
        self.hash
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u128(u128::from(*byte));
        }
    }

    #[inline]
    fn write_u128(&mut self, number: u128) {
        let [high, low] = halves(number);
        self.hash = self.secrets.two([high ^ self.hash, low]);
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fullest of 4096 slots after as many keys that differ little.
    fn fullest(hash: impl Fn(u64) -> u64) -> u32 {
        let mut slots = vec![0; 4096];
        for key in 0..4096 {
            slots[hash(key) as usize % 4096] += 1;
        }
        slots.into_iter().max().unwrap_or(0)
    }

    #[test]
    fn keys_that_differ_in_a_few_bits_are_spread_as_by_chance() {
        // By chance the fullest has 6 to 9: more than 12 has less than one chance in a million.
        for seed in 0..64 {
            let secrets = Secrets::new(seed);
            for shift in [0, 8, 16, 32, 48] {
                for word in 0..5 {
                    let spread = fullest(|key| {
                        let mut words = [0, 0x0a00_0002, 0, 0xc633_6407, 0x1101];
                        words[word] ^= key << shift;
                        secrets.five(words)
                    });
                    assert!(spread <= 12, "{spread} with seed {seed}, word {word}");
                }
                let spread = fullest(|key| secrets.two([0, key << shift]));
                assert!(spread <= 12, "{spread} with seed {seed}");
            }
        }
    }

    #[test]
    fn which_keys_fall_together_is_another_matter_with_another_seed() {
        let slot = |seed, key| Secrets::new(seed).five([0, 1, 0, key, 7]) % 64;
        let chosen: Vec<u64> = (0..100_000).filter(|key| slot(1, *key) == 5).collect();
        assert!(chosen.len() > 1000);
        let still = chosen.iter().filter(|key| slot(2, **key) == 5).count();
        assert!(still < chosen.len() / 16, "{still} of {}", chosen.len());
    }
}
