//! Guest time of a vCPU thread, by its own CPU clock read around each stay in the guest.
//!
//! The kernel's split into guest and system time is sampled by ticks, and a guest can hide from
//! ticks; the thread's clock counts nanoseconds. Others may read the account at any moment, also
//! while the vCPU is in the guest.
#![allow(
    unsafe_code,
    reason = "reads the CPU clocks of threads, which rustix does not name"
)]

use std::sync::atomic::{AtomicU64, Ordering};

/// The account of one vCPU thread.
#[derive(Debug, Default)]
pub struct GuestAccount {
    /// Time of completed stays.
    done_ns: AtomicU64,
    /// Clock value at the beginning of the present stay plus one; 0 outside the guest.
    entered: AtomicU64,
    /// Kernel's id of the thread; 0 before there is one.
    thread: AtomicU64,
}

impl GuestAccount {
    /// Says whose account it is: the calling thread's.
    pub fn adopt(&self) {
        let thread = rustix::thread::gettid().as_raw_pid();
        self.thread.store(thread as u64, Ordering::Relaxed);
    }

    /// The calling thread, whose account it is, enters the guest.
    pub fn enter(&self) {
        self.entered.store(
            read_clock(libc::CLOCK_THREAD_CPUTIME_ID) + 1,
            Ordering::Relaxed,
        );
    }

    /// It has left the guest.
    pub fn leave(&self) {
        let entered = self.entered.swap(0, Ordering::Relaxed);
        let now = read_clock(libc::CLOCK_THREAD_CPUTIME_ID) + 1;
        self.done_ns
            .fetch_add(now.saturating_sub(entered), Ordering::Relaxed);
    }

    /// Nanoseconds in the guest so far.
    pub fn guest_ns(&self) -> u64 {
        let done = self.done_ns.load(Ordering::Relaxed);
        match self.entered.load(Ordering::Relaxed) {
            0 => done,
            entered => {
                let thread = self.thread.load(Ordering::Relaxed) as libc::clockid_t;
                // The kernel's encoding of "scheduler clock of this thread".
                let now = read_clock((!thread) << 3 | 6) + 1;
                done + now.saturating_sub(entered)
            }
        }
    }
}

/// Nanoseconds of processor time that this process has used, in user and kernel mode.
pub fn process_ns() -> u64 {
    read_clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// A clock in nanoseconds; 0 if it is gone with its thread.
fn read_clock(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` lives through the call; a clock that does not exist is an error, not a fault.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stay_is_counted_while_it_lasts_and_after() {
        let account = GuestAccount::default();
        account.adopt();
        account.enter();
        while account.guest_ns() < 2_000_000 {
            std::hint::spin_loop();
        }
        account.leave();
        let total = account.guest_ns();
        assert!(total >= 2_000_000);
        assert_eq!(account.guest_ns(), total);
        assert!(process_ns() >= total);
    }
}
