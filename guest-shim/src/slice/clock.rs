//! Both clocks, from the clock record and the time-stamp counter, without leaving the guest.
#![allow(unsafe_code, reason = "the record is where the info page says")]

use core::arch::x86_64::{_mm_lfence, _rdtsc};

use slice_abi::clock::{ClockReading, ClockRecord};

use super::identity::info;

pub(crate) fn monotonic_ns() -> u64 {
    let (reading, tsc) = read();
    reading.monotonic_ns(tsc)
}

pub(crate) fn unix_ns() -> u64 {
    let (reading, tsc) = read();
    reading.realtime_ns(tsc)
}

/// Grows when this sliver becomes a copy of another.
pub(crate) fn generation() -> u64 {
    read().0.generation
}

/// A record and a counter value that belong together.
fn read() -> (ClockReading, u64) {
    // SAFETY: the ABI has the record there for as long as the sliver lives; it is made of atomics.
    let record = unsafe { &*(info().clock as *const ClockRecord) };
    loop {
        let (seq, reading) = record.begin();
        // SAFETY: the ABI lets a slice read the counter. The fences keep the read in its place:
        // between the two looks at the sequence.
        let tsc = unsafe {
            _mm_lfence();
            let tsc = _rdtsc();
            _mm_lfence();
            tsc
        };
        if !record.retry(seq) {
            return (reading, tsc);
        }
        core::hint::spin_loop();
    }
}
