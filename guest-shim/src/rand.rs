//! Randomness fit for keys.
//!
//! ```
//! use guest_shim::rand::{self, Random};
//! use rand_core::Rng;
//!
//! let mut key = [0; 32];
//! rand::fill(&mut key);
//! assert_ne!(key, [0; 32]);
//! assert_ne!(rand::u64(), Random.next_u64());
//! ```
//!
//! In a slice a ChaCha20 generator, seeded from the host's entropy through the sliver's entropy
//! device and from the processor's own generator, and again when the sliver finds that it has
//! become a copy of another. On a desktop it is the host's generator.

use core::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};

use crate::backend::rand as backend;

/// Fills `bytes` with random ones.
///
/// # Panics
///
/// In a slice that has neither an entropy device nor a processor with a generator.
pub fn fill(bytes: &mut [u8]) {
    backend::fill(bytes);
}

/// A random number.
pub fn u64() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

/// The same randomness for all that takes a generator of the crates `rand_core` and `rand`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Random;

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u64() as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        fill(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Random {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_any_length_is_filled() {
        for len in [0, 1, 7, 64, 100_000] {
            // One byte in 256 is zero by chance; that the same is zero 20 times is not.
            let mut seen = vec![0; len];
            for _ in 0..20 {
                let mut bytes = vec![0; len];
                fill(&mut bytes);
                seen.iter_mut()
                    .zip(bytes)
                    .for_each(|(seen, byte)| *seen |= byte);
            }
            assert!(!seen.contains(&0), "of {len} bytes one is never filled");
        }
    }
}
