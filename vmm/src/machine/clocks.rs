//! A machine's clocks: kept right while it runs, stopped while it stands still.

use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use rustix::time::{ClockId, clock_gettime};

use super::Machine;
use crate::clock::{HostTime, SliverClock};
use crate::kvm::tsc::host_tsc;

impl Machine {
    /// Takes the time for which the sliver has stood still, if it has, out of its monotonic clock.
    pub(super) fn restart_clock(&self) {
        if let Some(since) = self.lifecycle.still_since() {
            self.set_clock(|clock, now| clock.resume(since, now));
        }
    }

    fn set_clock(&self, change: impl FnOnce(&mut SliverClock, HostTime)) {
        let mut clock = self.clock();
        self.vm.system().clock().publish(|| {
            change(&mut clock, host_time());
            *clock.reading()
        });
    }

    /// Brings the guest's clocks up to date with the host's, unless that was done lately.
    pub(crate) fn follow_host_time(&self) {
        if host_tsc() >= self.follow_at.load(Ordering::Relaxed) && !self.is_still() {
            self.set_clock(|clock, now| clock.follow(now));
            self.follow_at
                .store(host_tsc() + self.follow_ticks, Ordering::Relaxed);
        }
    }

    pub(super) fn is_still(&self) -> bool {
        self.lifecycle.still_since().is_some()
    }

    pub(super) fn clock(&self) -> MutexGuard<'_, SliverClock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The host's clocks now. They cannot be read at one moment: of a few attempts, the one that took
/// the shortest time is taken, so that a preemption in between does not shift one against another.
pub(super) fn host_time() -> HostTime {
    const ATTEMPTS: usize = 4;
    /// A reading without interruption takes less than this.
    const QUICK_TICKS: u64 = 2_000;
    let nanos = |id| {
        let time = clock_gettime(id);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    };
    let mut best: Option<(u64, HostTime)> = None;
    for _ in 0..ATTEMPTS {
        let before = host_tsc();
        let (monotonic_ns, realtime_ns) = (nanos(ClockId::Monotonic), nanos(ClockId::Realtime));
        let took = host_tsc().saturating_sub(before);
        let time = HostTime {
            tsc: before + took / 2,
            monotonic_ns,
            realtime_ns,
        };
        if best.is_none_or(|(least, _)| took < least) {
            best = Some((took, time));
        }
        if took < QUICK_TICKS {
            break;
        }
    }
    best.map(|(_, time)| time).expect("there was an attempt")
}
