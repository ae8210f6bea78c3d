//! The clock record: how to turn the time-stamp counter into time, without leaving the guest.
//!
//! `monotonic = mono_ns + ((tsc - tsc_base) * mult >> shift)`, and the same from `real_ns` for
//! wall-clock time. The product needs 128 bits, and a counter below `tsc_base` counts as equal to
//! it: another vCPU may read one. The monitor rewrites the record to follow its host's clocks: the monotonic
//! clock never steps back, starts near 0 when the sliver starts and stands still while the
//! sliver is paused; the real clock is Unix time and may step. Reading is a sequence lock:
//! [`ClockReading`] holds the arithmetic, [`ClockRecord::begin`] and [`ClockRecord::retry`] the
//! protocol.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// The record, in a read-only page. Its address is in
/// [`InfoPage::clock`](crate::info::InfoPage::clock).
#[repr(C)]
#[derive(Debug, Default)]
pub struct ClockRecord {
    /// Sequence: odd while the monitor writes.
    pub seq: AtomicU32,
    /// Right shift after the multiplication, at most 63.
    pub shift: AtomicU32,
    /// Nanoseconds per tick of the counter, times `2^shift`.
    pub mult: AtomicU64,
    /// Counter value at which the two times below held.
    pub tsc_base: AtomicU64,
    /// Nanoseconds of the sliver's monotonic clock.
    pub mono_ns: AtomicU64,
    /// Nanoseconds since the Unix epoch.
    pub real_ns: AtomicU64,
    /// Grows by one whenever this sliver is a new copy: restored from a snapshot or cloned.
    /// Who keeps random state or identity in memory makes it anew when this changes.
    pub generation: AtomicU64,
}

/// A consistent copy of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClockReading {
    /// As in the record.
    pub shift: u32,
    /// As in the record.
    pub mult: u64,
    /// As in the record.
    pub tsc_base: u64,
    /// As in the record.
    pub mono_ns: u64,
    /// As in the record.
    pub real_ns: u64,
    /// As in the record.
    pub generation: u64,
}

impl ClockReading {
    /// Monotonic nanoseconds at counter value `tsc`. A counter before the base, which a vCPU on
    /// another processor may read, counts as the base.
    pub const fn monotonic_ns(&self, tsc: u64) -> u64 {
        self.mono_ns.saturating_add(self.elapsed_ns(tsc))
    }

    /// Nanoseconds since the Unix epoch at counter value `tsc`.
    pub const fn realtime_ns(&self, tsc: u64) -> u64 {
        self.real_ns.saturating_add(self.elapsed_ns(tsc))
    }

    const fn elapsed_ns(&self, tsc: u64) -> u64 {
        let ticks = tsc.saturating_sub(self.tsc_base) as u128;
        ((ticks * self.mult as u128) >> (self.shift & 63)) as u64
    }
}

impl ClockRecord {
    /// Starts a read: the sequence to give to [`retry`](Self::retry) and a copy that may be torn.
    pub fn begin(&self) -> (u32, ClockReading) {
        let seq = self.seq.load(Ordering::Acquire);
        let reading = ClockReading {
            shift: self.shift.load(Ordering::Relaxed),
            mult: self.mult.load(Ordering::Relaxed),
            tsc_base: self.tsc_base.load(Ordering::Relaxed),
            mono_ns: self.mono_ns.load(Ordering::Relaxed),
            real_ns: self.real_ns.load(Ordering::Relaxed),
            generation: self.generation.load(Ordering::Relaxed),
        };
        (seq, reading)
    }

    /// Whether the copy that came with `seq` may be torn and the read must start again. Read the
    /// counter before asking, so that counter and record belong together.
    pub fn retry(&self, seq: u32) -> bool {
        fence(Ordering::Acquire);
        seq & 1 == 1 || self.seq.load(Ordering::Relaxed) != seq
    }

    /// Writes what `sample` gives; for the monitor, which must be the only writer.
    ///
    /// The sample is taken while readers are kept out. Taken before, a reader could still use the
    /// old record for a moment after the new one's base and find the new one behind it.
    pub fn publish(&self, sample: impl FnOnce() -> ClockReading) {
        let seq = self.seq.load(Ordering::Relaxed);
        self.seq.store(seq.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let reading = sample();
        self.shift.store(reading.shift, Ordering::Relaxed);
        self.mult.store(reading.mult, Ordering::Relaxed);
        self.tsc_base.store(reading.tsc_base, Ordering::Relaxed);
        self.mono_ns.store(reading.mono_ns, Ordering::Relaxed);
        self.real_ns.store(reading.real_ns, Ordering::Relaxed);
        self.generation.store(reading.generation, Ordering::Relaxed);
        self.seq.store(seq.wrapping_add(2), Ordering::Release);
    }
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<ClockRecord>() == 48);
    assert!(offset_of!(ClockRecord, mult) == 8);
    assert!(offset_of!(ClockRecord, generation) == 40);
};

#[cfg(test)]
mod tests {
    use super::*;

    const READING: ClockReading = ClockReading {
        shift: 32,
        mult: (1 << 32) / 4, // a 4 GHz counter
        tsc_base: 1000,
        mono_ns: 7,
        real_ns: 1_700_000_000_000_000_000,
        generation: 3,
    };

    #[test]
    fn ticks_become_nanoseconds_from_the_base() {
        assert_eq!(READING.monotonic_ns(1000), 7);
        assert_eq!(
            READING.monotonic_ns(1000 + 4_000_000_000),
            7 + 1_000_000_000
        );
        assert_eq!(READING.realtime_ns(1400), 1_700_000_000_000_000_100);
    }

    #[test]
    fn a_counter_before_the_base_counts_as_the_base() {
        assert_eq!(READING.monotonic_ns(1), 7);
    }

    #[test]
    fn ten_years_of_ticks_do_not_overflow() {
        let ten_years = 10 * 365 * 86_400 * 1_000_000_000u64;
        assert_eq!(READING.monotonic_ns(1000 + 4 * ten_years), 7 + ten_years);
    }

    #[test]
    fn a_published_reading_is_read_back_and_leaves_the_sequence_even() {
        let record = ClockRecord::default();
        record.publish(|| READING);
        let (seq, copy) = record.begin();
        assert!(!record.retry(seq));
        assert_eq!((seq, copy), (2, READING));
    }

    #[test]
    fn a_read_during_a_write_is_retried() {
        let record = ClockRecord::default();
        record.seq.store(1, Ordering::Relaxed);
        let (seq, _) = record.begin();
        assert!(record.retry(seq));
        record.seq.store(2, Ordering::Relaxed);
        let (seq, _) = record.begin();
        record.publish(|| READING);
        assert!(record.retry(seq));
    }
}
