//! Keeps a truncated file from ending the process that has it mapped.
//!
//! An access to a page that its file no longer has raises SIGBUS. If that happens in a range
//! registered here, the handler maps zeros over the whole range, marks it as damaged, and the access
//! is repeated. Any other SIGBUS has the effect that it had before.
#![allow(
    unsafe_code,
    reason = "handles a signal by mapping memory over a range that its owner gave away for that"
)]

use std::io;
use std::mem::MaybeUninit;
use std::ptr::{NonNull, null, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

use super::layout::PAGE;

/// Ranges that can be guarded at once. A monitor has two for each ledger, and one ledger.
const RANGES: usize = 256;

const WRITABLE: u64 = 1;
const PAGES_SHIFT: u32 = 1;
const PAGES_MASK: u64 = (1 << 14) - 1;
const START_SHIFT: u32 = 15;

/// The ranges. A free one is 0.
static TABLE: [Range; RANGES] = [const { Range::free() }; RANGES];

/// What SIGBUS did before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

#[derive(Debug)]
struct Range {
    /// Number of the first page, number of pages, whether they are writable: in one word, so that
    /// the handler never sees half of a change.
    place: AtomicU64,
    damaged: AtomicBool,
}

impl Range {
    const fn free() -> Self {
        Self {
            place: AtomicU64::new(0),
            damaged: AtomicBool::new(false),
        }
    }
}

/// A range of pages that is guarded while this lives.
#[derive(Debug)]
pub(super) struct Guard(&'static Range);

impl Guard {
    /// Guards `pages` pages from `start` on.
    ///
    /// # Safety
    /// The range is a mapping of the caller's that it accesses only atomically, and that may be
    /// replaced by private zeros at any moment until the guard is dropped.
    pub(super) unsafe fn new(start: NonNull<u8>, pages: usize, writable: bool) -> io::Result<Self> {
        install()?;
        let first = (start.as_ptr() as usize / PAGE) as u64;
        let pages = pages as u64;
        assert!(pages <= PAGES_MASK && first < 1 << (u64::BITS - START_SHIFT));
        let place = first << START_SHIFT | pages << PAGES_SHIFT | u64::from(writable);
        for range in &TABLE {
            if range
                .place
                .compare_exchange(0, place, Release, Relaxed)
                .is_ok()
            {
                return Ok(Self(range));
            }
        }
        Err(io::Error::other(format!(
            "{RANGES} ranges are guarded already"
        )))
    }

    /// Whether the range has been replaced by zeros.
    pub(super) fn is_damaged(&self) -> bool {
        self.0.damaged.load(Acquire)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.damaged.store(false, Relaxed);
        self.0.place.store(0, Release);
    }
}

/// Installs the handler, once.
fn install() -> io::Result<()> {
    static DONE: OnceLock<Result<(), i32>> = OnceLock::new();
    let install_now = || {
        let mut before = MaybeUninit::uninit();
        // SAFETY: asks for the present action, and has it written to `before`.
        if unsafe { libc::sigaction(libc::SIGBUS, null(), before.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has succeeded and thus written it.
        BEFORE.get_or_init(|| unsafe { before.assume_init() });
        // SAFETY: an all-zero sigaction is a valid one: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the handler has the form that SA_SIGINFO asks for, and does only what a handler
        // may do.
        match unsafe { libc::sigaction(libc::SIGBUS, &action, null_mut()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    DONE.get_or_init(|| install_now().map_err(|error| error.raw_os_error().unwrap_or(0)))
        .map_err(io::Error::from_raw_os_error)
}

extern "C" fn on_sigbus(
    _signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid record; for a fault (a positive code) it has an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    let is_fault = code > 0;
    if is_fault && TABLE.iter().any(|range| mended(range, address)) {
        return;
    }
    // As if this handler had never been: a fault comes again, a sent signal is sent again.
    if let Some(before) = BEFORE.get() {
        // SAFETY: the action came from the kernel; sigaction and raise are async-signal-safe.
        unsafe {
            libc::sigaction(libc::SIGBUS, before, null_mut());
            if !is_fault {
                libc::raise(libc::SIGBUS);
            }
        }
    }
}

/// Maps zeros over the range if the address is in it; whether that was done.
fn mended(range: &Range, address: usize) -> bool {
    let place = range.place.load(Acquire);
    let first = place >> START_SHIFT;
    let pages = place >> PAGES_SHIFT & PAGES_MASK;
    let page = (address / PAGE) as u64;
    if place == 0 || !(first..first + pages).contains(&page) {
        return false;
    }
    let access = match place & WRITABLE {
        0 => ProtFlags::READ,
        _ => ProtFlags::READ | ProtFlags::WRITE,
    };
    let start = (first as usize * PAGE) as *mut libc::c_void;
    let flags = MapFlags::PRIVATE | MapFlags::FIXED;
    // SAFETY: who registered the range agreed that it may be replaced (see `Guard::new`). rustix
    // makes the system call itself, without locks or allocation, which a handler may do.
    let mapped = unsafe { mmap_anonymous(start, pages as usize * PAGE, access, flags) };
    range.damaged.store(mapped.is_ok(), Release);
    mapped.is_ok()
}
