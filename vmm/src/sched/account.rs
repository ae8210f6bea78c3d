//! Guest time of a vCPU thread, by its own CPU clock read around each stay in the guest.
//!
//! The kernel's split into guest and system time is sampled by ticks, and a guest can hide from
//! ticks; the thread's clock counts nanoseconds. Others may read the account at any moment, also
//! while the vCPU is in the guest.
#![allow(
    unsafe_code,
    reason = "reads the CPU clocks of threads, which rustix does not name"
)]

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The account of one vCPU thread.
#[derive(Debug, Default)]
pub struct GuestAccount(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Time of completed stays.
    done_ns: u64,
    /// The thread's clock at the beginning of the present stay.
    entered_ns: Option<u64>,
    /// Kernel's id of the thread.
    thread: libc::pid_t,
}

impl GuestAccount {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whose account it is: the calling thread's.
    pub fn adopt(&self) {
        self.lock().thread = rustix::thread::gettid().as_raw_pid();
    }

    /// The calling thread, whose account it is, enters the guest.
    pub fn enter(&self) {
        self.lock().entered_ns = Some(read_clock(libc::CLOCK_THREAD_CPUTIME_ID));
    }

    /// It has left the guest.
    pub fn leave(&self) {
        let now = read_clock(libc::CLOCK_THREAD_CPUTIME_ID);
        let mut inner = self.lock();
        if let Some(entered) = inner.entered_ns.take() {
            inner.done_ns += now.saturating_sub(entered);
        }
    }

    /// Nanoseconds in the guest so far.
    pub fn guest_ns(&self) -> u64 {
        let inner = self.lock();
        let present = inner.entered_ns.map_or(0, |entered| {
            // The kernel's encoding of "scheduler clock of this thread".
            read_clock((!inner.thread) << 3 | 6).saturating_sub(entered)
        });
        inner.done_ns + present
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
