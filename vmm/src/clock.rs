//! The sliver's clocks: what the clock record says, and how it follows the host. Pure.
//!
//! Guest and monitor compute the time with the same record from the same counter, so a deadline
//! that the guest asks for means the same moment to both. The monotonic clock is pulled towards
//! the host's by changing its rate a little, never by a step; wall-clock time is set.

use slice_abi::clock::ClockReading;

/// Fractional bits of the multiplier.
const SHIFT: u32 = 32;

/// An error is worked off within this many nanoseconds, or twice the time since it was last looked
/// at if that is longer (a correction in force for longer than it was made for overshoots)...
const CORRECTION_NS: i128 = 16_000_000_000;

/// ...but never by more than this many parts per million, the kernel's own bound for slewing.
const MAX_CORRECTION_PPM: i128 = 500;

/// The host's clocks, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostTime {
    /// Time-stamp counter.
    pub tsc: u64,
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    pub monotonic_ns: u64,
    /// `CLOCK_REALTIME`, in nanoseconds.
    pub realtime_ns: u64,
}

/// The clocks of one sliver.
#[derive(Debug, Clone)]
pub struct SliverClock {
    reading: ClockReading,
    /// Multiplier without correction.
    nominal_mult: u64,
    /// Host monotonic time minus the sliver's.
    offset_ns: u64,
}

impl SliverClock {
    /// Clocks of a sliver that starts `now`, with a counter of `tsc_khz`.
    pub fn start(now: HostTime, tsc_khz: u32) -> Self {
        let nominal_mult = ((1_000_000u128 << SHIFT) / u128::from(tsc_khz.max(1))) as u64;
        let reading = ClockReading {
            shift: SHIFT,
            mult: nominal_mult,
            tsc_base: now.tsc,
            mono_ns: 0,
            real_ns: now.realtime_ns,
            generation: 0,
        };
        Self {
            reading,
            nominal_mult,
            offset_ns: now.monotonic_ns,
        }
    }

    /// What the record must say.
    pub fn reading(&self) -> &ClockReading {
        &self.reading
    }

    /// Nanoseconds of the sliver's monotonic clock.
    pub fn monotonic_ns(&self, tsc: u64) -> u64 {
        self.reading.monotonic_ns(tsc)
    }

    /// Nanoseconds by which the record was last set before `tsc`.
    pub fn age_ns(&self, tsc: u64) -> u64 {
        self.monotonic_ns(tsc) - self.reading.mono_ns
    }

    /// Follows the host: sets wall-clock time, and the rate at which the monotonic clock will
    /// reach the host's.
    pub fn follow(&mut self, now: HostTime) {
        let own = self.monotonic_ns(now.tsc);
        let wanted = now.monotonic_ns.saturating_sub(self.offset_ns);
        let within = CORRECTION_NS.max(2 * i128::from(self.age_ns(now.tsc)));
        let error_ppm = (i128::from(wanted) - i128::from(own)) * 1_000_000 / within;
        let ppm = error_ppm.clamp(-MAX_CORRECTION_PPM, MAX_CORRECTION_PPM);
        let nominal = i128::from(self.nominal_mult);
        self.reading.mult = (nominal + nominal * ppm / 1_000_000) as u64;
        self.anchor(own, now);
    }

    /// Goes on after a pause that began at `paused_tsc`: the monotonic clock did not move.
    pub fn resume(&mut self, paused_tsc: u64, now: HostTime) {
        let own = self.monotonic_ns(paused_tsc);
        self.reading.mult = self.nominal_mult;
        self.offset_ns = now.monotonic_ns.saturating_sub(own);
        self.anchor(own, now);
    }

    fn anchor(&mut self, mono_ns: u64, now: HostTime) {
        self.reading.tsc_base = now.tsc;
        self.reading.mono_ns = mono_ns;
        self.reading.real_ns = now.realtime_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KHZ: u32 = 2_000_000;
    const SECOND: u64 = 1_000_000_000;
    const START: HostTime = HostTime {
        tsc: 5_000,
        monotonic_ns: 100 * SECOND,
        realtime_ns: 1_700_000_000 * SECOND,
    };

    /// The host `seconds` later, its counter `drift_ppm` faster than it claims.
    fn later(seconds: u64, drift_ppm: i64) -> HostTime {
        let ticks = seconds as i128 * i128::from(KHZ) * 1000;
        HostTime {
            tsc: START.tsc + (ticks + ticks * i128::from(drift_ppm) / 1_000_000) as u64,
            monotonic_ns: START.monotonic_ns + seconds * SECOND,
            realtime_ns: START.realtime_ns + seconds * SECOND,
        }
    }

    #[test]
    fn it_starts_at_zero_and_runs_at_the_counter_s_rate() {
        let clock = SliverClock::start(START, KHZ);
        assert_eq!(clock.monotonic_ns(START.tsc), 0);
        assert_eq!(clock.monotonic_ns(later(3, 0).tsc), 3 * SECOND);
    }

    #[test]
    fn a_drifting_counter_is_held_close_to_the_host() {
        let mut clock = SliverClock::start(START, KHZ);
        for second in 1..600 {
            clock.follow(later(second, 80));
        }
        let error = clock
            .monotonic_ns(later(600, 80).tsc)
            .abs_diff(600 * SECOND);
        assert!(error < 2_000_000, "{error} ns off");
    }

    #[test]
    fn the_error_stays_bounded_however_seldom_the_host_is_followed() {
        for interval in [1, 30, 60, 300, 3600] {
            let mut clock = SliverClock::start(START, KHZ);
            for step in 1..200 {
                clock.follow(later(step * interval, 20));
            }
            let now = later(200 * interval, 20);
            let error = clock
                .monotonic_ns(now.tsc)
                .abs_diff(200 * interval * SECOND);
            // What the drift adds in the time one correction takes, and a little more.
            let bound = 20_000 * (16 + 4 * interval);
            assert!(
                error < bound,
                "{error} ns off, following every {interval} s"
            );
        }
    }

    #[test]
    fn the_monotonic_clock_stands_still_while_paused_and_wall_clock_time_does_not() {
        let mut clock = SliverClock::start(START, KHZ);
        let (paused, resumed) = (later(5, 0), later(65, 0));
        clock.resume(paused.tsc, resumed);
        assert_eq!(clock.monotonic_ns(resumed.tsc), 5 * SECOND);
        assert_eq!(
            clock.reading().realtime_ns(resumed.tsc),
            resumed.realtime_ns
        );
        clock.follow(later(70, 0));
        assert_eq!(clock.monotonic_ns(later(71, 0).tsc), 11 * SECOND);
    }

    proptest! {
        #[test]
        fn the_monotonic_clock_never_steps_back(
            steps in prop::collection::vec((1u64..10_000_000_000, -200i64..200), 1..50),
        ) {
            let mut clock = SliverClock::start(START, KHZ);
            let mut now = START;
            for (ticks, skew_us) in steps {
                now.tsc += ticks;
                let host = (ticks / 2) as i64 + skew_us * 1000;
                now.monotonic_ns = now.monotonic_ns.saturating_add_signed(host.max(0));
                let before = clock.monotonic_ns(now.tsc);
                clock.follow(now);
                prop_assert!(clock.monotonic_ns(now.tsc) >= before);
            }
        }
    }
}
