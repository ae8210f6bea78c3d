//! Finds who is probed for long: PlanetLab's forgotten loops of ping, which ran until somebody at
//! the other end complained.
//!
//! A destination that is probed at least every ten seconds for a day is told. After another day
//! one probe a minute is left, unless who is there has agreed. The table is bounded: destinations
//! beyond it are not watched until others have been left alone.

use std::net::IpAddr;

use crate::nanos::Nanos;
use crate::net::hash::{AddressMap, Secrets, bits};

/// A longer pause ends a series of probes.
const PAUSE: Nanos = Nanos::from_millis(10_000);
const DAY: Nanos = Nanos::from_millis(86_400_000);
/// What is left after two days. Longer than the pause: the series lasts while it is slowed.
const SLOWED: Nanos = Nanos::from_millis(60_000);
/// Destinations that are watched.
const MOST: usize = 4_096;
/// How often those that were left alone are forgotten.
const SWEEP_EVERY: Nanos = Nanos::from_millis(1_000);

#[derive(Debug)]
struct Series {
    since: Nanos,
    /// When it was probed last, or wanted to be.
    last: Nanos,
    passed: Nanos,
    told: bool,
}

/// What becomes of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probed {
    /// It passes.
    Pass,
    /// It passes; the destination has been probed for a day.
    Long,
    /// It is one too many.
    Drop,
}

#[derive(Debug)]
pub(super) struct Probes {
    series: AddressMap<Series>,
    swept: Nanos,
}

impl Probes {
    pub(super) fn new(secrets: Secrets) -> Self {
        Self {
            series: AddressMap::with_hasher(secrets),
            swept: Nanos::ZERO,
        }
    }

    /// A probe of a destination, which may have agreed to it.
    pub(super) fn probe(
        &mut self,
        destination: IpAddr,
        has_agreed: impl FnOnce() -> bool,
        now: Nanos,
    ) -> Probed {
        if let Some(series) = self.series.get_mut(&bits(destination)) {
            if now - series.last > PAUSE {
                *series = Series::new(now);
                return Probed::Pass;
            }
            series.last = now;
            let lasted = now - series.since;
            if lasted >= DAY + DAY && now - series.passed < SLOWED && !has_agreed() {
                return Probed::Drop;
            }
            series.passed = now;
            if lasted >= DAY && !series.told {
                series.told = true;
                return Probed::Long;
            }
            return Probed::Pass;
        }
        if self.series.len() >= MOST && now - self.swept >= SWEEP_EVERY {
            self.swept = now;
            self.series.retain(|_, series| now - series.last <= PAUSE);
        }
        if self.series.len() < MOST {
            self.series.insert(bits(destination), Series::new(now));
        }
        Probed::Pass
    }
}

impl Series {
    fn new(now: Nanos) -> Self {
        Self {
            since: now,
            last: now,
            passed: now,
            told: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Probes every so many seconds for so many days: passed, told, dropped.
    fn probed(every: u64, days: u64, agreed: bool) -> (u64, u64, u64) {
        let mut probes = Probes::new(Secrets::new(7));
        let (mut passed, mut told, mut dropped) = (0, 0, 0);
        for second in (0..days * 86_400).step_by(every as usize) {
            match probes.probe([192, 0, 2, 1].into(), || agreed, Nanos(second * SECOND)) {
                Probed::Pass => passed += 1,
                Probed::Long => (passed, told) = (passed + 1, told + 1),
                Probed::Drop => dropped += 1,
            }
        }
        (passed, told, dropped)
    }

    #[test]
    fn two_weeks_of_ping_are_told_once_and_slowed_to_one_a_minute() {
        let (passed, told, dropped) = probed(2, 14, false);
        assert_eq!(told, 1);
        let (two_days, slowed) = (2 * 43_200, 12 * 1440);
        assert!(
            passed >= two_days && passed <= two_days + slowed + 1,
            "{passed}"
        );
        assert_eq!(passed + dropped, 14 * 43_200);
    }

    #[test]
    fn who_has_agreed_is_not_slowed_and_rare_probes_are_no_series() {
        assert_eq!(probed(2, 3, true), (3 * 43_200, 1, 0));
        assert_eq!(probed(11, 14, false).1, 0);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_what_was_left_alone() {
        let mut probes = Probes::new(Secrets::new(7));
        for number in 0..100_000u32 {
            let address = std::net::Ipv4Addr::from_bits(number).into();
            probes.probe(address, || false, Nanos(u64::from(number) * SECOND / 100));
            assert!(probes.series.len() <= MOST);
        }
        assert!(probes.series.len() > 1000);
    }
}
