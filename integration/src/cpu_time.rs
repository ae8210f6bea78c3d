//! Processor time of a process, seen from outside by the kernel's own clock of it.
#![allow(
    unsafe_code,
    reason = "no safe interface names another process's clock"
)]

use std::io;

/// Processor time of the process `pid` and of all its threads, in nanoseconds.
///
/// The kernel does not bring the time of a thread up to date that is running elsewhere at the
/// moment: the value may be as old as a tick of that processor.
pub fn process_ns(pid: u32) -> io::Result<u64> {
    // CPUCLOCK_SCHED of a whole process, as the kernel's `posix-timers_types.h` has it.
    let clock = (!pid << 3 | 2) as libc::clockid_t;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live local of the right type; a clock that is none is refused.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_busy_process_uses_no_more_than_the_time_that_passes_on_each_of_its_threads() {
        let pid = std::process::id();
        let (start, before) = (Instant::now(), process_ns(pid).expect("it is there"));
        while start.elapsed() < Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        let used = process_ns(pid).expect("it is there") - before;
        assert!(used > 1_000_000, "{used}");
        let threads = std::fs::read_dir("/proc/self/task").expect("proc is mounted");
        let most = start.elapsed().as_nanos() as u64 * threads.count().max(8) as u64;
        assert!(used < most, "{used}");
    }

    #[test]
    fn a_process_that_is_not_there_has_no_clock() {
        assert!(process_ns(u32::MAX >> 4).is_err());
    }
}
