//! A lock that belongs to a vCPU, which may take it again while it holds it.
//!
//! The console needs that: what is printed may print while it is being printed, and a panic may
//! happen anywhere.
#![allow(unsafe_code, reason = "a lock shares what is not made for sharing")]

use core::cell::RefCell;
use core::sync::atomic::{AtomicUsize, Ordering};

use talc::lock_api::RawMutex;

use super::control;
use super::identity::current_vcpu;
use crate::sync::RawLock;

/// How often a panicking vCPU steps back for the holder before it takes the value over.
const SEIZE_TRIES: usize = 1000;

/// Owner of a lock that is free; a vCPU is its index and 1. Zero, so that a lock needs no room in
/// the image.
const NOBODY: usize = 0;

/// A value for one vCPU at a time.
pub(super) struct OwnedLock<T> {
    lock: RawLock,
    owner: AtomicUsize,
    value: RefCell<T>,
}

// SAFETY: `with` gives the value to the vCPU that holds the lock, and `seize` never gives the
// lock back.
unsafe impl<T: Send> Sync for OwnedLock<T> {}

impl<T> OwnedLock<T> {
    pub(super) const fn new(value: T) -> Self {
        Self {
            lock: RawLock::INIT,
            owner: AtomicUsize::new(NOBODY),
            value: RefCell::new(value),
        }
    }

    /// Runs `action` while no other vCPU is in here. This one may be, further out.
    pub(super) fn with<R>(&self, action: impl FnOnce(&RefCell<T>) -> R) -> R {
        let me = 1 + current_vcpu();
        if self.owner.load(Ordering::Relaxed) == me {
            return action(&self.value);
        }
        self.lock.lock();
        self.owner.store(me, Ordering::Relaxed);
        let result = action(&self.value);
        self.owner.store(NOBODY, Ordering::Relaxed);
        // SAFETY: locked above.
        unsafe { self.lock.unlock() };
        result
    }

    /// Takes the value for good, for a vCPU that is about to end the sliver: as soon as its holder
    /// is done, or by force if that is this vCPU itself or takes too long.
    ///
    /// # Safety
    ///
    /// The caller ends the sliver without returning to what it was doing, and asks once.
    #[allow(clippy::mut_from_ref, reason = "the lock is never given back")]
    pub(super) unsafe fn seize(&self) -> &mut T {
        let me = 1 + current_vcpu();
        for _ in 0..SEIZE_TRIES {
            if self.owner.load(Ordering::Relaxed) == me || self.lock.try_lock() {
                break;
            }
            control::yield_now();
        }
        self.owner.store(me, Ordering::Relaxed);
        // SAFETY: the lock is never given back, so no other vCPU comes in; one that is in there
        // has been stuck for long and ends with the sliver. An outer use on this vCPU does not go
        // on, as the caller promises.
        unsafe { &mut *self.value.as_ptr() }
    }
}
