//! Keeps to a rate, and to an end.

use core::time::Duration;

use guest_shim::task;
use guest_shim::time::Instant;

/// Calls after which others get a turn, when there is nothing to wait for.
const TURN: u32 = 32;

/// When the next bytes may go.
#[derive(Debug)]
pub(crate) struct Pace {
    start: Instant,
    time: Duration,
    /// Bits a second, 0 for any.
    rate: u64,
    bytes: u64,
    calls: u32,
}

impl Pace {
    pub(crate) fn new(rate: u64, time: Duration) -> Self {
        Self {
            start: Instant::now(),
            time,
            rate,
            bytes: 0,
            calls: 0,
        }
    }

    /// Waits until `bytes` more may go; false when the time is over.
    pub(crate) async fn next(&mut self, bytes: usize) -> bool {
        self.calls += 1;
        let due = self.due();
        if due > self.start.elapsed() {
            task::sleep(due.min(self.time).saturating_sub(self.start.elapsed())).await;
        } else if self.calls.is_multiple_of(TURN) {
            task::yield_now().await;
        }
        self.bytes += bytes as u64;
        self.start.elapsed() < self.time
    }

    /// When, from the start, all that has gone has taken the time that it should.
    fn due(&self) -> Duration {
        if self.rate == 0 {
            return Duration::ZERO;
        }
        let nanos = u128::from(self.bytes) * 8 * 1_000_000_000 / u128::from(self.rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Bits a second.
pub(crate) fn bits_per_second(bytes: u64, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 {
        bytes as f64 * 8.0 / seconds
    } else {
        0.0
    }
}
