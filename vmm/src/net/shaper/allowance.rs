//! What may be sent in a day, as PlanetLab had it: at any rate up to a threshold, and from there at
//! the rate that makes the rest of the allowance last for the rest of the day. Nothing is left when
//! all is used: the caller sends no frame that is more than what is left.

use serde::Serialize;

use crate::nanos::Nanos;
use crate::spec::Class;

const DAY: u64 = 86_400;
const SECOND: u64 = 1_000_000_000;

/// What was used of a day's allowance, to go on with after a restart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct UsedToday {
    /// The day, since 1970 (UTC).
    pub day: u64,
    /// Bytes that count against the plain allowance.
    pub bytes: u64,
    /// Bytes that count against the exempt one.
    pub exempt_bytes: u64,
}

impl UsedToday {
    /// Whether nothing was.
    pub fn is_nothing(&self) -> bool {
        (self.bytes, self.exempt_bytes) == (0, 0)
    }
}

/// The account of one class.
#[derive(Debug)]
pub(super) struct Allowance {
    day: u64,
    used: u64,
}

impl Allowance {
    pub(super) fn new(day: u64, used: u64) -> Self {
        Self { day, used }
    }

    /// Uses so many bytes. Whether that crossed the threshold.
    pub(super) fn use_up(&mut self, bytes: u64, class: &Class) -> bool {
        let before = self.used;
        self.used = self.used.saturating_add(bytes);
        class
            .threshold_bytes()
            .is_some_and(|threshold| before < threshold && self.used >= threshold)
    }

    /// Bytes that may still be sent today, if that is limited.
    pub(super) fn left(&self, class: &Class) -> Option<u64> {
        let most = class.daily_bytes()?;
        Some(most.saturating_sub(self.used))
    }

    pub(super) fn day(&self) -> u64 {
        self.day
    }

    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// Bytes in a second that the allowance of `class` leaves, if it limits them. `wall` is
    /// nanoseconds since 1970.
    pub(super) fn rate(&mut self, class: &Class, wall: Nanos) -> Option<u64> {
        let seconds = wall.0 / SECOND;
        let day = seconds / DAY;
        if day != self.day {
            // A clock that is set back does not give a day twice, but one that was far ahead must
            // not keep the sliver silent until that day.
            if day > self.day {
                self.used = 0;
            }
            self.day = day;
        }
        let left = self.left(class)?;
        if self.used < class.threshold_bytes()? {
            return None;
        }
        let rest = ((day + 1) * DAY).saturating_sub(seconds).max(1);
        Some(left / rest)
    }
}
