//! When work will be done that is begun now, from what the quota page tells.
//!
//! The page is as of the last time when the monitor looked, up to a period ago. What has been
//! computed since then is taken off here.

use core::time::Duration;

use guest_shim::quota::{Budget, Quota};
use guest_shim::time::Instant;

/// What is known of the present budget.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meter {
    page: Quota,
    /// Computed since the page last changed.
    since: Duration,
}

impl Meter {
    /// As the page tells it.
    pub(crate) fn new(page: Quota) -> Self {
        Self {
            page,
            since: Duration::ZERO,
        }
    }

    /// Takes over what the page tells now.
    pub(crate) fn read(&mut self, page: Quota) {
        if page != self.page {
            *self = Self::new(page);
        }
    }

    /// So much has been computed.
    pub(crate) fn worked(&mut self, time: Duration) {
        self.since += time;
    }

    /// When `work` will be done that is begun now: now, if the budget lasts; else what is beyond it
    /// is done after its end, as fast as the cap allows.
    pub(crate) fn finish(&self, now: Instant, work: Duration) -> Instant {
        let (Some(Budget { end, left }), Some(cap)) =
            (self.page.cpu_budget, self.page.cpu_cap_milli)
        else {
            return now + work;
        };
        let rate = f64::from(cap.max(1)) / 1000.0;
        // A budget that is over has been renewed, though nobody has looked.
        let left = if now < end {
            left.saturating_sub(self.since)
        } else {
            Duration::MAX
        };
        match work.checked_sub(left) {
            None | Some(Duration::ZERO) => now + work,
            Some(beyond) => end + beyond.max(beyond.div_f64(rate)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        let zero = Instant::now();
        zero - zero.since_start() + Duration::from_millis(millis)
    }

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn page(end: u64, left: u64) -> Quota {
        Quota {
            cpu_cap_milli: Some(200),
            cpu_budget: Some(Budget {
                end: at(end),
                left: ms(left),
            }),
            ..Quota::default()
        }
    }

    #[test]
    fn without_limits_work_takes_as_long_as_it_takes() {
        let meter = Meter::new(Quota::default());
        assert_eq!(meter.finish(at(100), ms(3)), at(103));
    }

    #[test]
    fn work_within_the_budget_takes_as_long_as_it_takes() {
        assert_eq!(Meter::new(page(110, 3)).finish(at(100), ms(3)), at(103));
    }

    #[test]
    fn what_is_beyond_the_budget_waits_for_its_end_and_goes_at_the_caps_rate() {
        assert_eq!(Meter::new(page(110, 2)).finish(at(100), ms(3)), at(115));
    }

    #[test]
    fn what_was_computed_since_the_page_changed_is_not_left() {
        let mut meter = Meter::new(page(110, 3));
        meter.worked(ms(2));
        meter.read(page(110, 3));
        assert_eq!(meter.finish(at(102), ms(2)), at(115));
        meter.read(page(120, 3));
        assert_eq!(meter.finish(at(112), ms(2)), at(114));
    }

    #[test]
    fn a_budget_that_is_over_holds_nothing_back() {
        assert_eq!(Meter::new(page(110, 0)).finish(at(111), ms(2)), at(113));
    }
}
