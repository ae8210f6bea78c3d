//! A slice that wants more than it is granted, and knows from the quota page when to be elsewhere.

use core::sync::atomic::Ordering;

use slice_abi::quota::{QuotaPage, valid};

use crate::guest::Guest;

/// It is elsewhere so long before a budget ends, and so long after.
const AROUND_THE_END_NS: u64 = 300_000;

/// Between looks at a page that tells of no budget.
const LOOK_AGAIN_NS: u64 = 1_000_000;

impl Guest {
    /// Computes all the time, except while a budget ends and the next one begins.
    pub fn sleep_through_ends(&self) -> ! {
        loop {
            match self.budget_end() {
                Some(end) if self.now() < end => {
                    self.compute_until(end.saturating_sub(AROUND_THE_END_NS));
                    self.rest(Some(end + AROUND_THE_END_NS));
                }
                _ => self.compute_for(LOOK_AGAIN_NS),
            }
        }
    }

    fn budget_end(&self) -> Option<u64> {
        // SAFETY: the info page says that the page is there; it lives as long as the sliver.
        let page = unsafe { &*(self.info.quota as *const QuotaPage) };
        let told = page.valid.load(Ordering::Acquire) & valid::CPU_BUDGET != 0;
        told.then(|| page.cpu_budget_end_ns.load(Ordering::Relaxed))
    }
}
