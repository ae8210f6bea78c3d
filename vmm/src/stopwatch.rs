//! Durations since a sliver's monitor was started, for the exit record.

use std::time::{Duration, Instant};

use crate::attend::now;
use crate::kvm::tsc::host_tsc;

/// A stopwatch that may have been started by the parent process.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    started: Instant,
    /// Time that had passed before `started`.
    before: Duration,
    tsc: u64,
}

impl Stopwatch {
    /// Starts now; `began` is `CLOCK_MONOTONIC` in nanoseconds when the launcher began.
    pub fn start(began: u64) -> Self {
        let before = now().0.saturating_sub(began);
        Self {
            started: Instant::now(),
            before: Duration::from_nanos(before),
            tsc: host_tsc(),
        }
    }

    /// When this process began to count.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Microseconds that had passed before this process began to count.
    pub fn before_us(&self) -> u64 {
        self.before.as_micros() as u64
    }

    /// Microseconds so far.
    pub fn elapsed_us(&self) -> u64 {
        (self.before + self.started.elapsed()).as_micros() as u64
    }

    /// Microseconds until the counter showed `tsc`.
    pub fn us_at(&self, tsc: u64, tsc_khz: u32) -> u64 {
        let ticks = u128::from(tsc.saturating_sub(self.tsc));
        let since = (ticks * 1000 / u128::from(tsc_khz.max(1))) as u64;
        self.before_us() + since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passed_before_counts() {
        let watch = Stopwatch::start(now().0 - 5_000_000);
        assert!(watch.before_us() >= 5_000);
        assert!(watch.elapsed_us() >= watch.before_us());
        assert_eq!(
            watch.us_at(watch.tsc + 2_000_000, 1_000_000),
            watch.before_us() + 2000
        );
        assert_eq!(watch.us_at(0, 1_000_000), watch.before_us());
    }

    #[test]
    fn a_start_in_the_future_counts_as_now() {
        assert_eq!(Stopwatch::start(u64::MAX).before_us(), 0);
    }
}
