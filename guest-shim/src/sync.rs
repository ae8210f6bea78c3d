//! Locks that work across vCPUs: they spin for as long as a short critical section takes, and then
//! step back for other work until the lock is free.
//!
//! ```
//! use guest_shim::sync::Mutex;
//!
//! static TOTAL: Mutex<u64> = Mutex::new(0);
//! *TOTAL.lock() += 3;
//! assert_eq!(*TOTAL.lock(), 3);
//! ```
#![allow(unsafe_code, reason = "a lock's trait is unsafe to implement")]

use core::sync::atomic::{AtomicBool, Ordering};

use talc::lock_api;

use crate::backend::control;

/// Looks at a held lock before stepping back: some 10 us, less than leaving the guest costs.
const SPINS: u32 = 256;

/// A value that one vCPU at a time can use.
pub type Mutex<T> = lock_api::Mutex<RawLock, T>;

/// Access to the value of a [`Mutex`], until it is dropped.
pub type MutexGuard<'a, T> = lock_api::MutexGuard<'a, RawLock, T>;

/// The bare lock.
#[derive(Debug)]
pub struct RawLock(AtomicBool);

// SAFETY: `locked` goes from false to true for one caller only, in `try_lock`, and back to false
// only in `unlock`, which the trait lets nobody but the holder call. Acquire and release order
// the accesses of one holder before those of the next.
unsafe impl lock_api::RawMutex for RawLock {
    #[allow(
        clippy::declare_interior_mutable_const,
        reason = "the trait's way to say how a lock begins"
    )]
    const INIT: Self = Self(AtomicBool::new(false));

    type GuardMarker = lock_api::GuardSend;

    fn lock(&self) {
        while !self.try_lock() {
            let mut spins = 0;
            while self.0.load(Ordering::Relaxed) {
                if spins < SPINS {
                    spins += 1;
                    core::hint::spin_loop();
                } else {
                    control::yield_now();
                }
            }
        }
    }

    fn try_lock(&self) -> bool {
        self.0
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }

    fn is_locked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contended_additions_are_all_counted() {
        let total = Mutex::new(0u64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        *total.lock() += 1;
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 80_000);
    }

    #[test]
    fn a_held_lock_is_not_given_twice() {
        let lock = Mutex::new(());
        let guard = lock.lock();
        assert!(lock.try_lock().is_none());
        drop(guard);
        assert!(lock.try_lock().is_some());
    }
}
