//! Gets a vCPU out of the guest, or keeps it from entering, from any thread.
//!
//! A kick sets `immediate_exit` in the page that the vCPU shares with the kernel, which looks at it
//! on the way into the guest, and then sends a signal, which ends the stay of one already inside.
//! The one without the other could be lost. What the vCPU is wanted for is written elsewhere,
//! before the kick; its thread looks there after each [`Kick::clear`]. An [`Alarm`](crate::sched::preempt::Alarm)
//! does both at a moment of its own: the signal's handler sets `immediate_exit` then.
#![allow(unsafe_code, reason = "maps the vCPU's page and signals its thread")]

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering, fence};

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use slice_abi::layout::PAGE_SIZE;

/// The handle. It maps the page for itself, so that it may outlive the vCPU.
#[derive(Debug)]
pub struct Kick {
    page: NonNull<u8>,
    /// Kernel's id of the thread that runs the vCPU; 0 before there is one.
    thread: AtomicI32,
}

// SAFETY: the page is plain shared memory that belongs to this value, and only one byte of it is
// accessed, atomically.
unsafe impl Send for Kick {}
// SAFETY: as above.
unsafe impl Sync for Kick {}

impl Kick {
    /// A handle to a vCPU that no thread runs yet.
    pub fn new(vcpu: &VcpuFd) -> io::Result<Self> {
        // SAFETY: the descriptor is open for as long as `vcpu` is borrowed.
        let fd = unsafe { BorrowedFd::borrow_raw(vcpu.as_raw_fd()) };
        // SAFETY: a new mapping at an address of the kernel's choice touches nobody's memory. The
        // kernel keeps the page for as long as it is mapped.
        let page = unsafe {
            mmap(
                std::ptr::null_mut(),
                PAGE_SIZE as usize,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd,
                0,
            )?
        };
        let page = NonNull::new(page.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            page,
            thread: AtomicI32::new(0),
        })
    }

    /// Says that the calling thread runs the vCPU.
    pub fn adopt(&self) {
        let thread = rustix::thread::gettid().as_raw_pid();
        self.thread.store(thread, Ordering::SeqCst);
    }

    /// Kicks the vCPU. Its thread finds out why by itself.
    pub fn kick(&self) {
        self.raise();
        let thread = self.thread.load(Ordering::SeqCst);
        if thread != 0 {
            // SAFETY: sends a signal whose handler does nothing for it to a thread of this process.
            // If the thread is gone, there is nobody to kick; if another has its number, it gets a
            // signal that does nothing.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, kick_signal()) };
        }
    }

    /// Makes the next entry into the guest return at once.
    pub(super) fn raise(&self) {
        self.immediate_exit().store(1, Ordering::SeqCst);
    }

    /// Takes back a kick's effect on the next entry. What its thread reads afterwards was written
    /// before any kick that this takes back.
    pub fn clear(&self) {
        self.immediate_exit().store(0, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// What the kernel looks at on the way into the guest.
    pub(crate) fn immediate_exit(&self) -> &AtomicU8 {
        const OFFSET: usize = std::mem::offset_of!(kvm_run, immediate_exit);
        // SAFETY: the byte lies in the page, which is mapped for as long as `self` lives. This
        // program accesses it only here; the kernel reads it whenever it likes.
        unsafe { AtomicU8::from_ptr(self.page.as_ptr().add(OFFSET)) }
    }
}

impl Drop for Kick {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing borrowed from it outlives `self`.
        let _ = unsafe { munmap(self.page.as_ptr().cast(), PAGE_SIZE as usize) };
    }
}

/// The signal of a kick.
pub(crate) fn kick_signal() -> libc::c_int {
    libc::SIGRTMIN()
}

/// While it lives, the kick's signal is held back from the thread that made it. A wait that lets it
/// through again misses none: one that came before ends it at once.
#[derive(Debug)]
pub struct WaitMask {
    before: libc::sigset_t,
    /// Signals belong to a thread.
    _not_send: PhantomData<*const ()>,
}

impl WaitMask {
    /// Bytes of the mask that the kernel looks at.
    pub const BYTES: usize = 8;

    /// Holds kicks back.
    pub fn hold() -> Self {
        // SAFETY: all-zero sets are valid and initialised before use; only this thread's mask
        // changes.
        let before = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, kick_signal());
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, &mut before);
            before
        };
        Self {
            before,
            _not_send: PhantomData,
        }
    }

    /// The mask as it was before, for the time of a wait.
    pub fn as_ptr(&self) -> *const libc::sigset_t {
        &raw const self.before
    }
}

impl Drop for WaitMask {
    fn drop(&mut self) {
        // SAFETY: the set came from the kernel; only this thread's mask changes.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

/// Installs the handler of the kick's signal. That a signal came is enough for a kick; of an alarm
/// it does the rest, see [`kick`](self). System calls it interrupts are not restarted. Whoever
/// started this process may have blocked the signal, and masks are inherited: it is let through,
/// here and in threads started later.
pub fn install_kick_handler() -> io::Result<()> {
    extern "C" fn handle(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the kernel gives a handler installed with SA_SIGINFO a valid description. Only
        // timers of this process send this signal with SI_TIMER, and their value is the address of
        // a vCPU's `immediate_exit`, mapped for as long as the timer's signal can come (see
        // `Alarm`). The store is atomic: nothing else is done here.
        unsafe {
            if (*info).si_code == libc::SI_TIMER {
                let at = (*info).si_value().sival_ptr.cast::<u8>();
                AtomicU8::from_ptr(at).store(1, Ordering::SeqCst);
            }
        }
    }
    type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
    // SAFETY: an all-zero sigaction is a valid one: default flags (no restart), empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handle as Handler as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the action is initialised and its handler is safe at any moment; the set is
    // initialised before it is used; nothing but the disposition and this thread's mask changes.
    let results = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, kick_signal());
        [
            libc::sigaction(kick_signal(), &action, std::ptr::null_mut()),
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut()),
        ]
    };
    if results == [0, 0] {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
