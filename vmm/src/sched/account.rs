//! Processor time of a thread, by its own CPU clock read around each stay in the guest.
//!
//! The kernel's split into guest and system time is sampled by ticks, and a guest can hide from
//! ticks; the thread's clock counts nanoseconds. What a vCPU's thread does between two stays counts
//! as device work if the first of them ended for a device. Others may read an account at any
//! moment, also while the vCPU is in the guest.
#![allow(
    unsafe_code,
    reason = "reads the CPU clocks of threads, which rustix does not name"
)]

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::nanos::Nanos;

/// The account of one thread.
#[derive(Debug, Default)]
pub struct ThreadAccount {
    /// Kernel's id of the thread; 0 before there is one and after it.
    thread: AtomicI32,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    guest_ns: u64,
    device_ns: u64,
    /// The thread's clock when the present stretch began, and what it is spent with.
    since_ns: u64,
    doing: Doing,
}

/// What a thread spends its time with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Doing {
    /// Whatever else the monitor does.
    #[default]
    Monitor,
    /// In the guest.
    Guest,
    /// Serving devices.
    Device,
}

impl Inner {
    fn switch(&mut self, now_ns: u64, doing: Doing) {
        let stretch = now_ns.saturating_sub(self.since_ns);
        match self.doing {
            Doing::Monitor => {}
            Doing::Guest => self.guest_ns += stretch,
            Doing::Device => self.device_ns += stretch,
        }
        self.since_ns = now_ns;
        self.doing = doing;
    }
}

impl ThreadAccount {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whose account it is, the calling thread's, and what that does from now on.
    pub fn adopt(&self, doing: Doing) {
        let thread = rustix::thread::gettid().as_raw_pid();
        self.lock().switch(own_ns(), doing);
        self.thread.store(thread, Ordering::SeqCst);
    }

    /// The thread, the calling one, is about to end.
    pub fn close(&self) {
        self.thread.store(0, Ordering::SeqCst);
        self.lock().switch(own_ns(), Doing::Monitor);
    }

    /// The thread, the calling one, does something else from now on.
    pub fn switch(&self, doing: Doing) {
        let now_ns = own_ns();
        self.lock().switch(now_ns, doing);
    }

    /// What the thread, the calling one, has done since it left the guest was for a device.
    pub fn was_device(&self) {
        let mut inner = self.lock();
        if inner.doing == Doing::Monitor {
            inner.doing = Doing::Device;
        }
    }

    /// Time so far in the guest and with devices.
    pub fn spent(&self) -> (Nanos, Nanos) {
        let thread = self.thread.load(Ordering::SeqCst);
        let inner = self.lock();
        let present = match (thread, inner.doing) {
            (0, _) | (_, Doing::Monitor) => 0,
            _ => thread_ns(thread).saturating_sub(inner.since_ns),
        };
        let of = |doing| if inner.doing == doing { present } else { 0 };
        (
            Nanos(inner.guest_ns + of(Doing::Guest)),
            Nanos(inner.device_ns + of(Doing::Device)),
        )
    }

    /// Has the kernel bring the thread's clock up to date, and with it its part of the process's,
    /// which otherwise counts a thread that runs on another processor as of its last tick.
    pub fn settle(&self) {
        match self.thread.load(Ordering::SeqCst) {
            0 => {}
            thread => drop(thread_ns(thread)),
        }
    }
}

/// Processor time that this process has used, in user and kernel mode. Exact once each of its
/// threads that runs has been [settled](ThreadAccount::settle).
pub fn process_time() -> Nanos {
    Nanos(read_clock(libc::CLOCK_PROCESS_CPUTIME_ID))
}

fn own_ns() -> u64 {
    read_clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// The clock of a thread of this process.
fn thread_ns(thread: libc::pid_t) -> u64 {
    // The kernel's encoding of "scheduler clock of this thread" (include/linux/posix-timers.h).
    read_clock((!thread) << 3 | 6)
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

    fn burn_until(done: impl Fn() -> bool) {
        while !done() {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn a_stay_is_counted_while_it_lasts_and_after() {
        let account = ThreadAccount::default();
        account.adopt(Doing::Guest);
        burn_until(|| account.spent().0 >= Nanos::from_millis(2));
        account.switch(Doing::Monitor);
        let total = account.spent().0;
        assert!(total >= Nanos::from_millis(2));
        assert_eq!(account.spent(), (total, Nanos::ZERO));
        assert!(process_time() >= total);
    }

    #[test]
    fn what_follows_an_exit_counts_for_the_device_that_caused_it() {
        let account = ThreadAccount::default();
        account.adopt(Doing::Monitor);
        account.was_device();
        burn_until(|| account.spent().1 >= Nanos::from_millis(1));
        account.switch(Doing::Guest);
        let device = account.spent().1;
        burn_until(|| account.spent().0 >= Nanos::from_millis(1));
        account.close();
        assert_eq!(account.spent().1, device);
    }

    #[test]
    fn a_settled_thread_is_in_the_time_of_the_process() {
        let account = ThreadAccount::default();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                account.adopt(Doing::Guest);
                burn_until(|| done.load(Ordering::Relaxed));
            });
            burn_until(|| account.spent().0 >= Nanos::from_millis(3));
            let spent = account.spent().0;
            account.settle();
            assert!(process_time() >= spent);
            done.store(true, Ordering::Relaxed);
        });
    }
}
