//! A result on its way from the vCPU that made it to the one that waits for it.
//!
//! The waiter notes who it is before it looks for the result; the maker notes the result before it
//! looks for a waiter. Whatever the order, one sees the other, so no wake-up is lost.
#![allow(
    unsafe_code,
    reason = "one cell, two vCPUs, and a flag that says whose it is"
)]

use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const NOBODY: usize = usize::MAX;

/// Room for one result.
pub(super) struct Packet<T> {
    complete: AtomicBool,
    waiter: AtomicUsize,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: the value goes from one vCPU to another, hence `T: Send`. It is written once, before
// `complete` is set, by the only caller of `complete()`, and read once, after `complete` is seen
// set, by `wait()`, which consumes the only handle. No two touch it at a time.
unsafe impl<T: Send> Sync for Packet<T> {}

impl<T> Packet<T> {
    /// Without a result yet.
    pub(super) const fn new() -> Self {
        Self {
            complete: AtomicBool::new(false),
            waiter: AtomicUsize::new(NOBODY),
            value: UnsafeCell::new(None),
        }
    }

    /// Puts the result in; to be called once. Returns who is to be woken.
    pub(super) fn complete(&self, value: T) -> Option<usize> {
        // SAFETY: `complete` is not set yet, so nobody reads the value, and nobody else writes it.
        unsafe { *self.value.get() = Some(value) };
        self.complete.store(true, Ordering::SeqCst);
        let waiter = self.waiter.load(Ordering::SeqCst);
        (waiter != NOBODY).then_some(waiter)
    }

    /// Whether the result is there.
    pub(super) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::SeqCst)
    }

    /// Waits as vCPU `me`, in `rest`, and takes the result out; to be called once.
    pub(super) fn wait(&self, me: usize, rest: impl Fn()) -> T {
        self.waiter.store(me, Ordering::SeqCst);
        while !self.is_complete() {
            rest();
        }
        // SAFETY: `complete` is set, so the maker is done with the value, and this is the only
        // reader.
        let value = unsafe { (*self.value.get()).take() };
        value.expect("a result is taken once")
    }
}

impl<T> fmt::Debug for Packet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packet")
            .field("complete", &self.complete)
            .finish_non_exhaustive()
    }
}
