//! Which vCPUs have work: one bit each. Pure.

use core::sync::atomic::{AtomicU32, Ordering};

use slice_abi::layout::MAX_VCPUS;

/// The bits; a set bit is a busy vCPU.
#[derive(Debug)]
pub(super) struct Slots(AtomicU32);

const _: () = assert!(MAX_VCPUS <= u32::BITS as usize);

impl Slots {
    /// All free but vCPU 0, which runs the program.
    pub(super) const fn new() -> Self {
        Self(AtomicU32::new(1))
    }

    /// Takes the lowest free vCPU of the first `count`.
    pub(super) fn claim(&self, count: usize) -> Option<usize> {
        let mut busy = self.0.load(Ordering::Relaxed);
        loop {
            let index = busy.trailing_ones();
            if index as usize >= count.min(MAX_VCPUS) {
                return None;
            }
            match self.0.compare_exchange_weak(
                busy,
                busy | 1 << index,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(index as usize),
                Err(now) => busy = now,
            }
        }
    }

    /// Gives one back.
    pub(super) fn release(&self, index: usize) {
        self.0.fetch_and(!(1 << index), Ordering::Release);
    }
}
