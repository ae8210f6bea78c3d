//! A token bucket for bytes, or whatever else comes at a rate, exact to the nanosecond. Pure: the
//! time is an argument.
//!
//! Levels are kept in bytes times nanoseconds, so nothing is lost to rounding however often the
//! bucket is asked, and waits are rounded up: who waits as long as told finds what was promised, and
//! a wait is never none. What is larger than the bucket may be taken when it is full: the rest is
//! debt, and comes off what flows in next.

use crate::nanos::Nanos;

/// Nanoseconds in a second: a level counts this much for each byte.
const SECOND: i128 = 1_000_000_000;

/// A bucket of bytes.
#[derive(Debug, Clone)]
pub struct Bucket {
    bytes_per_second: u64,
    capacity: u64,
    level: i128,
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
            level: i128::from(capacity) * SECOND,
            filled_at: None,
        }
    }

    /// Bytes that may be taken now.
    pub fn available(&mut self, now: Nanos) -> u64 {
        self.fill(now);
        // Not more than the capacity.
        (self.level.max(0) / SECOND) as u64
    }

    /// Whether that many may be. It does not divide, which is what a packet would wait for longest.
    pub fn has(&mut self, bytes: u64, now: Nanos) -> bool {
        self.fill(now);
        self.level.max(0) >= i128::from(bytes) * SECOND
    }

    fn fill(&mut self, now: Nanos) {
        // Time that seems to run backward (two threads read it) adds nothing.
        let since = self.filled_at.unwrap_or(now).0;
        let passed = now.0.saturating_sub(since);
        self.filled_at = Some(Nanos(now.0.max(since)));
        let added = i128::from(passed) * i128::from(self.bytes_per_second);
        self.level = (self.level + added).min(i128::from(self.capacity) * SECOND);
    }

    /// Takes bytes, whether they are available or not.
    pub fn take(&mut self, bytes: u64) {
        self.level -= i128::from(bytes) * SECOND;
    }

    /// Whether `bytes`, or a full bucket if that is less, are available; if not, when they will be.
    pub fn check(&mut self, bytes: u64, now: Nanos) -> Result<(), Nanos> {
        if self.has(bytes.min(self.capacity), now) {
            return Ok(());
        }
        Err(self.ready_at(bytes, now).max(now + Nanos(1)))
    }

    /// Fills at another rate from now on, and holds another amount at most.
    pub fn set(&mut self, bytes_per_second: u64, capacity: u64, now: Nanos) {
        self.fill(now);
        self.bytes_per_second = bytes_per_second.max(1);
        self.capacity = capacity.max(1);
        self.level = self.level.min(i128::from(self.capacity) * SECOND);
    }

    /// Bytes that flow in each second.
    pub fn rate(&self) -> u64 {
        self.bytes_per_second
    }

    /// Bytes that it holds at most.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Whole bytes that flow in within a time.
    pub fn brought_in(&self, time: Nanos) -> u64 {
        let bytes = u128::from(self.bytes_per_second) * u128::from(time.0);
        u64::try_from(bytes / SECOND.unsigned_abs()).unwrap_or(u64::MAX)
    }

    /// The moment from which on `bytes`, or a full bucket if that is less, are available.
    pub fn ready_at(&self, bytes: u64, now: Nanos) -> Nanos {
        let wanted = i128::from(bytes.min(self.capacity)) * SECOND;
        let missing = (wanted - self.level).max(0).unsigned_abs();
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

    /// Takes `size` whenever that is allowed, for a second; how much was taken.
    fn taken_in_a_second(bucket: &mut Bucket, size: u64) -> u64 {
        let (mut now, mut taken) = (Nanos(0), 0);
        loop {
            match bucket.check(size, now) {
                Ok(()) => {
                    bucket.take(size);
                    taken += size;
                }
                // Firecracker's #6212: a wait that was rounded down to none, and never ended.
                Err(until) => {
                    assert!(until > now);
                    now = until;
                }
            }
            if now.0 > 1_000_000_000 {
                return taken;
            }
        }
    }

    #[test]
    fn a_rate_in_small_pieces_is_kept_whole() {
        // Cloud Hypervisor's "1000 a second", as 10 at a time, gave 100.
        let mut bucket = Bucket::new(1000, 10);
        bucket.take(10);
        let taken = taken_in_a_second(&mut bucket, 1);
        assert!((999..=1001).contains(&taken), "{taken}");
        // A refill of much less than a millisecond.
        let mut bucket = Bucket::new(50_000_000, 100);
        bucket.take(100);
        let taken = taken_in_a_second(&mut bucket, 64);
        assert!(taken.abs_diff(50_000_000) < 200, "{taken}");
    }

    #[test]
    fn what_is_larger_than_the_bucket_is_paid_for_afterwards() {
        let mut bucket = Bucket::new(1_000_000, 1_500);
        let taken = taken_in_a_second(&mut bucket, 60_000);
        assert!((960_000..=1_060_000).contains(&taken), "{taken}");
    }

    #[test]
    fn another_rate_counts_from_now_on() {
        let mut bucket = Bucket::new(1000, 1000);
        bucket.take(bucket.clone().available(Nanos(0)));
        assert_eq!(bucket.available(Nanos(0)), 0);
        bucket.set(10_000, 500, Nanos(100_000_000));
        assert_eq!(bucket.available(Nanos(100_000_000)), 100);
        assert_eq!(bucket.available(Nanos(200_000_000)), 500);
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
            prop_assert!(bucket.has(available, now) && !bucket.has(available + 1, now));
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
            let earned = u128::from(rate) * u128::from(now) / SECOND.unsigned_abs();
            prop_assert!(given <= earned + u128::from(capacity));
        }
    }
}
