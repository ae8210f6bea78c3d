//! The signals that ask `slicectl` to end, and the one that tells of a window's new size, each turned
//! into a readable descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use vmm_sys_util::signal::register_signal_handler;

static ARRIVED: OnceLock<OwnedFd> = OnceLock::new();
static LAST: AtomicI32 = AtomicI32::new(0);
static RESIZED: OnceLock<OwnedFd> = OnceLock::new();

/// Receives SIGINT, SIGTERM, SIGQUIT and SIGHUP instead of dying of them. Readable when one has come.
#[derive(Debug)]
pub struct EndSignals(&'static OwnedFd);

impl EndSignals {
    /// Installs the handlers. A signal that the process was started to ignore (as `nohup` does
    /// with SIGHUP) stays ignored.
    pub fn catch() -> io::Result<Self> {
        let event = event_in(&ARRIVED)?;
        let ignored = ignored_signals();
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGQUIT, libc::SIGHUP] {
            if ignored & (1 << (signal - 1)) == 0 {
                register_signal_handler(signal, on_signal)?;
            }
        }
        Ok(Self(event))
    }

    /// The signal that came last since this was last asked, if one came.
    pub fn take(&self) -> Option<i32> {
        rustix::io::read(self.0, &mut [0u8; 8]).ok()?;
        Some(LAST.load(Ordering::Relaxed))
    }
}

impl AsFd for EndSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Receives SIGWINCH. Readable when a terminal of this process has got another size.
#[derive(Debug)]
pub struct ResizeSignal(&'static OwnedFd);

impl ResizeSignal {
    /// Installs the handler.
    pub fn catch() -> io::Result<Self> {
        let event = event_in(&RESIZED)?;
        register_signal_handler(libc::SIGWINCH, on_resize)?;
        Ok(Self(event))
    }

    /// Whether it has come since this was last asked.
    pub fn take(&self) -> bool {
        rustix::io::read(self.0, &mut [0u8; 8]).is_ok()
    }
}

impl AsFd for ResizeSignal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The event that a handler tells, made if it is not there yet.
fn event_in(place: &'static OnceLock<OwnedFd>) -> io::Result<&'static OwnedFd> {
    if let Some(event) = place.get() {
        return Ok(event);
    }
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    Ok(place.get_or_init(|| event))
}

/// The signal that came last, if one has come since they are caught.
pub fn arrived() -> Option<i32> {
    Some(LAST.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
}

/// The name people know a signal by.
pub fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGTERM => "SIGTERM",
        libc::SIGSYS => "SIGSYS",
        libc::SIGXCPU => "SIGXCPU",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}

/// Only what a signal handler may do: a store and a `write`.
extern "C" fn on_signal(signal: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    LAST.store(signal, Ordering::Relaxed);
    tell(&ARRIVED);
}

extern "C" fn on_resize(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    tell(&RESIZED);
}

fn tell(event: &OnceLock<OwnedFd>) {
    if let Some(event) = event.get() {
        let _ = rustix::io::write(event, &1u64.to_ne_bytes());
    }
}

/// The mask of ignored signals, as /proc tells it.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
