//! A token bucket for bytes, exact to the nanosecond. Pure: the time is an argument.
//!
//! Levels are kept in bytes times nanoseconds, so nothing is lost to rounding however often the
//! bucket is asked, and waits are rounded up: who waits as long as told finds what was promised.

use crate::nanos::Nanos;

/// Nanoseconds in a second: a level counts this much for each byte.
const SECOND: u128 = 1_000_000_000;

/// A bucket of bytes.
#[derive(Debug, Clone)]
pub struct Bucket {
    bytes_per_second: u64,
    capacity: u64,
    level: u128,
    filled_at: Option<Nanos>,
}

impl Bucket {
    /// A full bucket that holds `capacity` bytes and is filled with `bytes_per_second`, both at
    /// least 1.
    pub fn new(bytes_per_second: u64, capacity: u64) -> Self {
        let capacity = capacity.max(1);
        Self {
            bytes_per_second: bytes_per_second.max(1),
            capacity,
            level: u128::from(capacity) * SECOND,
            filled_at: None,
        }
    }

    /// Bytes that may be taken now.
    pub fn available(&mut self, now: Nanos) -> u64 {
        // Time that seems to run backward (two threads read it) adds nothing.
        let since = self.filled_at.unwrap_or(now).0;
        let passed = now.0.saturating_sub(since);
        self.filled_at = Some(Nanos(now.0.max(since)));
        let added = u128::from(passed) * u128::from(self.bytes_per_second);
        self.level = (self.level + added).min(u128::from(self.capacity) * SECOND);
        // Not more than the capacity.
        (self.level / SECOND) as u64
    }

    /// Takes bytes that were said to be available.
    pub fn take(&mut self, bytes: u64) {
        self.level = self.level.saturating_sub(u128::from(bytes) * SECOND);
    }

    /// The moment from which on `bytes`, or a full bucket if that is less, are available.
    pub fn ready_at(&self, bytes: u64, now: Nanos) -> Nanos {
        let wanted = u128::from(bytes.min(self.capacity)) * SECOND;
        let missing = wanted.saturating_sub(self.level);
        let wait = missing.div_ceil(u128::from(self.bytes_per_second));
        let from = self.filled_at.unwrap_or(now).0;
        Nanos(from.saturating_add(u64::try_from(wait).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_wait_of_less_than_a_nanosecond_is_one_nanosecond() {
        let mut bucket = Bucket::new(3_000_000_000, 8);
        bucket.take(bucket.clone().available(Nanos(5)));
        assert_eq!(bucket.available(Nanos(5)), 0);
        assert_eq!(bucket.ready_at(1, Nanos(5)), Nanos(6));
        assert_eq!(bucket.available(Nanos(6)), 3);
    }

    #[test]
    fn an_idle_bucket_holds_no_more_than_its_capacity() {
        let mut bucket = Bucket::new(1000, 64);
        assert_eq!(bucket.available(Nanos(0)), 64);
        assert_eq!(bucket.available(Nanos(u64::MAX)), 64);
        assert_eq!(bucket.ready_at(1 << 40, Nanos(0)), Nanos(u64::MAX));
    }

    proptest! {
        #[test]
        fn a_wait_is_exactly_long_enough(
            rate in 1u64..1 << 42, capacity in 1u64..1 << 30, start in 0u64..1 << 50,
            taken in 0u64..1 << 30, wanted in 1u64..1 << 30,
        ) {
            let mut bucket = Bucket::new(rate, capacity);
            let now = Nanos(start);
            let available = bucket.available(now);
            bucket.take(taken.min(available));
            let wanted = wanted.min(capacity);
            let at = bucket.ready_at(wanted, now);
            prop_assert!(bucket.clone().available(at) >= wanted);
            if at > now {
                prop_assert!(bucket.clone().available(Nanos(at.0 - 1)) < wanted);
            }
        }

        #[test]
        fn no_more_is_given_than_the_rate_and_one_burst(
            rate in 1u64..1 << 30, capacity in 1u64..1 << 20,
            steps in prop::collection::vec(0u64..1 << 32, 1..50),
        ) {
            let mut bucket = Bucket::new(rate, capacity);
            let (mut now, mut given) = (0, 0u128);
            for step in steps {
                now += step;
                let available = bucket.available(Nanos(now));
                bucket.take(available);
                given += u128::from(available);
            }
            let earned = u128::from(rate) * u128::from(now) / SECOND;
            prop_assert!(given <= earned + u128::from(capacity));
        }
    }
}
