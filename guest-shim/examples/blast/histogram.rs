//! Counts times in buckets that grow with them: any quantile to 3 %, in a few KiB.

use core::time::Duration;

use guest_shim::prelude::*;

/// Buckets for each doubling.
const STEPS: u64 = 32;

/// Doublings above the first, in which each bucket is a nanosecond wide: to more than an hour.
const DOUBLINGS: u64 = 38;

/// Times, by size.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            buckets: vec![0; (STEPS * (DOUBLINGS + 1)) as usize],
            count: 0,
        }
    }

    pub(crate) fn add(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let bucket = bucket(nanos).min(self.buckets.len() - 1);
        self.buckets[bucket] += 1;
        self.count += 1;
    }

    /// Adds all that another has counted.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The time that this many thousandths of all are not above, in microseconds.
    pub(crate) fn quantile_us(&self, thousandths: u64) -> Option<f64> {
        let wanted = (self.count * thousandths).div_ceil(1000).max(1);
        let mut counted = 0;
        let reached = self.buckets.iter().position(|times| {
            counted += times;
            counted >= wanted
        });
        reached.map(|bucket| highest(bucket as u64) as f64 / 1000.0)
    }
}

fn bucket(nanos: u64) -> usize {
    let doubling = (nanos / STEPS)
        .checked_ilog2()
        .map_or(0, |log| u64::from(log) + 1);
    let step = if doubling == 0 {
        nanos
    } else {
        (nanos >> (doubling - 1)) - STEPS
    };
    (doubling * STEPS + step) as usize
}

/// The longest time in a bucket.
fn highest(bucket: u64) -> u64 {
    let (doubling, step) = (bucket / STEPS, bucket % STEPS);
    match doubling {
        0 => step,
        _ => ((STEPS + step + 1) << (doubling - 1)) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_at_most_a_32nd_wide_and_they_leave_no_gap() {
        let mut expected = 0;
        for number in 0..1000 {
            let high = highest(number);
            assert_eq!(bucket(expected), number as usize);
            assert_eq!(bucket(high), number as usize);
            assert!(high - expected <= expected / STEPS, "{number}");
            expected = high + 1;
        }
    }

    #[test]
    fn quantiles_are_of_what_was_counted() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile_us(500), None);
        for micros in 1..=1000 {
            histogram.add(Duration::from_micros(micros));
        }
        let median = histogram.quantile_us(500).unwrap_or_default();
        assert!((500.0..516.0).contains(&median), "{median}");
        let high = histogram.quantile_us(990).unwrap_or_default();
        assert!((990.0..1021.0).contains(&high), "{high}");
        histogram.add(Duration::MAX);
        assert_eq!(histogram.count(), 1001);
    }
}
