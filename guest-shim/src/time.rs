//! Clocks and sleep.
//!
//! The monotonic clock begins near 0 when the sliver starts, never steps back, and stands still
//! while the sliver is paused. The wall clock is Unix time and may step when somebody sets it.

#[cfg(test)]
mod tests;

use core::ops::{Add, AddAssign, Sub, SubAssign};
use core::time::Duration;

use crate::backend::{clock, control};

/// A moment of the monotonic clock, exact to a nanosecond.
///
/// ```
/// use core::time::Duration;
/// use guest_shim::time::{self, Instant};
///
/// let start = Instant::now();
/// time::sleep(Duration::from_millis(2));
/// assert!(start.elapsed() >= Duration::from_millis(2));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// Now.
    pub fn now() -> Self {
        Self(clock::monotonic_ns())
    }

    /// Time from `earlier` to this moment, or zero if `earlier` is later.
    pub const fn duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Time since this moment.
    pub fn elapsed(self) -> Duration {
        Self::now().duration_since(self)
    }

    /// Time from the start of the clock to this moment.
    pub const fn since_start(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// The moment `nanos` after the start of the clock.
    pub(crate) const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The moment `duration` later, or `None` if that is beyond the clock's 584 years.
    pub fn checked_add(self, duration: Duration) -> Option<Self> {
        let nanos = u64::try_from(duration.as_nanos()).ok()?;
        self.0.checked_add(nanos).map(Self)
    }

    /// The moment `duration` earlier, or `None` if that is before the clock's start.
    pub fn checked_sub(self, duration: Duration) -> Option<Self> {
        let nanos = u64::try_from(duration.as_nanos()).ok()?;
        self.0.checked_sub(nanos).map(Self)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// # Panics
    ///
    /// If the result is beyond the clock's range.
    fn add(self, duration: Duration) -> Self {
        self.checked_add(duration)
            .expect("an instant beyond the clock's range")
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    /// # Panics
    ///
    /// If the result is before the clock's start.
    fn sub(self, duration: Duration) -> Self {
        self.checked_sub(duration)
            .expect("an instant before the clock's start")
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.duration_since(earlier)
    }
}

/// Time since the Unix epoch, 1970-01-01 00:00 UTC, by the wall clock; zero if that is set to before.
pub fn now_unix() -> Duration {
    Duration::from_nanos(clock::unix_ns())
}

/// Lets the vCPU rest for `duration` or a little longer, never shorter.
pub fn sleep(duration: Duration) {
    let end = Instant::now()
        .checked_add(duration)
        .unwrap_or(Instant(u64::MAX));
    while Instant::now() < end {
        control::idle(Some(end.0));
    }
}
