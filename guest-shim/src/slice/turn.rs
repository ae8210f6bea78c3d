//! Whose turn it is to print: a lock that its vCPU may take again while it holds it.
//!
//! The console needs that: what is printed may print while it is being printed, and a panic may
//! happen anywhere. The lock guards no memory, only the order of what is printed.
#![allow(unsafe_code, reason = "a bare lock is given back by hand")]

use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;

use talc::lock_api::RawMutex;

use super::control;
use super::identity::current_vcpu;
use crate::sync::RawLock;
use crate::time::Instant;

/// How long a vCPU that is about to end the sliver waits for the others to finish their lines.
const PATIENCE: Duration = Duration::from_millis(100);

/// Owner of a turn that nobody has; a vCPU is its index and 1. Zero, so that a turn needs no room
/// in the image.
const NOBODY: usize = 0;

/// One vCPU's at a time.
pub(super) struct Turn {
    lock: RawLock,
    owner: AtomicUsize,
}

impl Turn {
    /// Nobody's.
    pub(super) const fn new() -> Self {
        Self {
            lock: RawLock::INIT,
            owner: AtomicUsize::new(NOBODY),
        }
    }

    /// Runs `action` while no other vCPU is in here. This one may be, further out.
    pub(super) fn with<R>(&self, action: impl FnOnce() -> R) -> R {
        if self.is_mine() {
            return action();
        }
        self.lock.lock();
        self.pass(NOBODY, me());
        let result = action();
        self.pass(me(), NOBODY);
        // SAFETY: locked above.
        unsafe { self.lock.unlock() };
        result
    }

    /// Whether it is the turn of the vCPU that asks.
    pub(super) fn is_mine(&self) -> bool {
        self.owner.load(Ordering::Relaxed) == me()
    }

    /// Rests for good if the turn has been seized from the vCPU that asks.
    pub(super) fn keep(&self) {
        if !self.is_mine() {
            rest_for_good();
        }
    }

    /// Takes the turn for good, for a vCPU that is about to end the sliver: as soon as its owner is
    /// done, or against it if that takes too long. The others rest when they next print.
    pub(super) fn seize(&self) {
        let patience_ends = Instant::now() + PATIENCE;
        while !self.is_mine() && !self.lock.try_lock() && Instant::now() < patience_ends {
            control::yield_now();
        }
        self.owner.store(me(), Ordering::Relaxed);
    }

    fn pass(&self, from: usize, to: usize) {
        let passed = self
            .owner
            .compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
        if passed.is_err() {
            rest_for_good();
        }
    }
}

/// Until the sliver ends, which it is about to.
fn rest_for_good() -> ! {
    loop {
        control::idle(None);
    }
}

fn me() -> usize {
    1 + current_vcpu()
}
