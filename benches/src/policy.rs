//! How the kernel schedules the calling thread; what it starts is scheduled as usual.
#![allow(
    unsafe_code,
    reason = "no safe interface sets a thread's scheduling policy"
)]

use std::io;

/// How a thread is scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// As everybody.
    Usual,
    /// At once, before everybody, by this priority.
    RealTime(i32),
}

/// Schedules the calling thread so.
pub(crate) fn set_policy(policy: Policy) -> io::Result<()> {
    let (policy, priority) = match policy {
        Policy::Usual => (libc::SCHED_OTHER, 0),
        Policy::RealTime(priority) => (libc::SCHED_FIFO, priority),
    };
    let wanted = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: the pointer is to a live local; 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(0, policy | libc::SCHED_RESET_ON_FORK, &wanted) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
