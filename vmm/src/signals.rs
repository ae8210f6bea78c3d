//! The signals that end a monitor, read as events instead of interrupting whatever runs.
#![allow(
    unsafe_code,
    reason = "signal masks and signalfd, which rustix does not offer"
)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// Signals, blocked for the whole process and readable here.
#[derive(Debug)]
pub(crate) struct Signals(OwnedFd);

impl Signals {
    /// Blocks SIGTERM, SIGHUP and SIGINT in this thread and those it starts later; call it before
    /// there are others. A sliver in the foreground ignores SIGINT: who runs it also gets the
    /// terminal's, and ends the sliver in order.
    pub(crate) fn take_over(foreground: bool) -> io::Result<Self> {
        // SAFETY: the set is initialised by sigemptyset before it is used, all numbers are valid
        // signals, and the calls write nothing but the set and this thread's mask.
        let fd = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT] {
                libc::sigaddset(&mut set, signal);
            }
            if libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            if foreground {
                libc::sigdelset(&mut set, libc::SIGINT);
            }
            libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The name of a signal that has come.
    pub(crate) fn take(&self) -> Option<&'static str> {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        let len = rustix::io::read(&self.0, &mut info).ok()?;
        let signal = info.get(..4).filter(|_| len == info.len())?;
        match i32::from_ne_bytes(signal.try_into().ok()?) {
            libc::SIGTERM => Some("SIGTERM"),
            libc::SIGHUP => Some("SIGHUP"),
            libc::SIGINT => Some("SIGINT"),
            _ => None,
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
