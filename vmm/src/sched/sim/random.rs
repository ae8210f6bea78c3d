//! Random numbers that are the same everywhere for the same seed: SplitMix64 (Steele 2014).

use crate::nanos::Nanos;

#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A span from `least` to `most`, both included.
    pub(super) fn between(&mut self, least: Nanos, most: Nanos) -> Nanos {
        let width = (most - least).0.saturating_add(1);
        let part = (u128::from(self.next()) * u128::from(width)) >> 64;
        least + Nanos(part as u64)
    }

    /// A span that is so many percent longer or shorter at most.
    pub(super) fn about(&mut self, span: Nanos, percent: u64) -> Nanos {
        let most = Nanos(span.0 / 100 * percent);
        self.between(span - most, span + most)
    }
}
