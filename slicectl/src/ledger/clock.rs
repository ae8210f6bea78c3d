//! The clock that entries are written by, and other processes' processor time.
#![allow(
    unsafe_code,
    reason = "reads the processor-time clocks of other processes, which rustix does not name"
)]

use vmm::nanos::Nanos;

/// The host's monotonic clock.
pub(super) fn now() -> Nanos {
    read(libc::CLOCK_MONOTONIC).unwrap_or(Nanos::ZERO)
}

/// Processor time that a process has used; `None` if there is none with this id. The kernel brings
/// what runs on other processors up to date at their ticks.
pub(super) fn process_time(pid: u32) -> Option<Nanos> {
    /// The clock counts what the scheduler does, not samples, for the process, not a thread
    /// (`CPUCLOCK_SCHED`).
    const SCHEDULED: i32 = 2;
    let pid = i32::try_from(pid).ok().filter(|&pid| pid > 0)?;
    read(!pid << 3 | SCHEDULED)
}

fn read(clock: libc::clockid_t) -> Option<Nanos> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` lives through the call; a clock that does not exist is an error, not a fault.
    let done = unsafe { libc::clock_gettime(clock, &mut time) };
    (done == 0).then(|| Nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64))
}
