//! Gets a vCPU out of the guest at a moment that was set before it went in.
//!
//! A timer of the monotonic clock, of high resolution, aimed at the vCPU's own thread: the signal
//! ends a stay in the guest, and its handler sets `immediate_exit`, so that one that comes just
//! before KVM_RUN is not lost. Timers of processor time would fit better but fire on the kernel's
//! tick, milliseconds late.
#![allow(
    unsafe_code,
    reason = "timers that signal one thread, which rustix does not offer"
)]

use std::io;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::kvm::kick::{Kick, kick_signal};
use crate::nanos::Nanos;

/// The alarm of one vCPU, owned by its thread.
#[derive(Debug)]
pub struct Alarm {
    timer: libc::timer_t,
    set_for: Nanos,
    /// The handler writes to its page.
    _kick: Arc<Kick>,
    /// It is aimed at the thread that made it.
    _not_send: PhantomData<*const ()>,
}

impl Alarm {
    /// An alarm for the vCPU of `kick`, which the calling thread runs. Not set yet.
    pub fn new(kick: &Arc<Kick>) -> io::Result<Self> {
        // SAFETY: all bytes zero are a valid `sigevent`.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = kick_signal();
        event.sigev_value.sival_ptr = kick.immediate_exit().as_ptr().cast();
        event.sigev_notify_thread_id = rustix::thread::gettid().as_raw_pid();
        let mut timer: libc::timer_t = std::ptr::null_mut();
        // SAFETY: both structures live through the call, which writes only `timer`.
        let result = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            timer,
            set_for: Nanos::NEVER,
            _kick: Arc::clone(kick),
            _not_send: PhantomData,
        })
    }

    /// Has it go off at `moment` at the latest, `now` being the present; costs a system call only if
    /// it would go off later or has gone off.
    pub fn set(&mut self, moment: Nanos, now: Nanos) -> io::Result<()> {
        let waits = self.set_for > now && self.set_for <= moment;
        if waits || moment == Nanos::NEVER {
            return Ok(());
        }
        // A moment of 0 would disarm it (timer_settime(2)).
        let at = moment.0.max(1);
        let value = libc::itimerspec {
            it_interval: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: libc::timespec {
                tv_sec: (at / 1_000_000_000) as i64,
                tv_nsec: (at % 1_000_000_000) as i64,
            },
        };
        // SAFETY: the timer is this value's own; `value` lives through the call.
        let result = unsafe {
            libc::timer_settime(
                self.timer,
                libc::TIMER_ABSTIME,
                &value,
                std::ptr::null_mut(),
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        self.set_for = moment;
        Ok(())
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // SAFETY: the timer is this value's own. A signal of it that waits for this thread, at which
        // alone it is aimed and which does not block it here, is handled before the call returns;
        // `_kick` goes after that, and its page with it.
        unsafe { libc::timer_delete(self.timer) };
    }
}
