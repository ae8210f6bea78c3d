//! Where threads wait that may not run: a word on which they sleep, a futex that other processes may
//! wake, too. Who wakes them by itself changes the word first, so that none falls asleep too late.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::futex::{self, Flags, Timespec};

use crate::nanos::Nanos;

/// Has all who wait look again, and those who are about to.
pub(super) fn open(word: &AtomicU32) {
    word.fetch_add(1, Ordering::SeqCst);
    // Not the private kind: other processes wait for their turn and wake whose it is.
    let _ = futex::wake(word, Flags::empty(), i32::MAX as u32);
}

/// Waits until woken, at most to the moment `until`; not at all if the word is no longer as it was
/// `seen`.
pub(super) fn wait(word: &AtomicU32, seen: u32, until: Nanos) {
    const SECOND: u64 = 1_000_000_000;
    let until = Timespec {
        tv_sec: (until.0 / SECOND).try_into().unwrap_or(i64::MAX),
        tv_nsec: (until.0 % SECOND) as _,
    };
    // Woken, too late, interrupted or told that the word has changed: the caller looks again.
    let _ = futex::wait_bitset(word, Flags::empty(), seen, Some(&until), NonZeroU32::MAX);
}
