//! Writes the quota page: what a guest reads of its grants and its use.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use slice_abi::quota::{QuotaPage, valid};

use super::governor::Granted;
use crate::nanos::Nanos;

/// Writes what was `granted`, in the guest's time, of which it is `now`. One writer at a time; what
/// an earlier look has granted is not written over that of a later one.
pub(crate) fn write(page: &QuotaPage, granted: &Granted, now: Nanos) {
    let small = |field: &AtomicU32, value: u32| field.store(value, Ordering::Relaxed);
    let large = |field: &AtomicU64, value: Nanos| field.store(value.0, Ordering::Relaxed);
    if Nanos(page.cpu_consumed_ns.load(Ordering::Relaxed)) > granted.consumed {
        return;
    }
    let seq = page.seq.load(Ordering::Relaxed);
    page.seq.store(seq.wrapping_add(1), Ordering::Relaxed);
    fence(Ordering::Release);
    let mut bits =
        valid::CPU_RESERVE | valid::CPU_SHARE | valid::CPU_CONSUMED | valid::CPU_THROTTLED;
    if let (Some(cap), Some((end, left))) = (granted.limits.cap(), granted.budget) {
        bits |= valid::CPU_CAP | valid::CPU_BUDGET;
        small(&page.cpu_cap_milli, cap.0);
        large(&page.cpu_budget_end_ns, now + (end - granted.now));
        large(&page.cpu_budget_left_ns, left);
    }
    small(&page.cpu_reserve_milli, granted.reserve.0);
    small(&page.cpu_share, granted.limits.share());
    large(&page.cpu_consumed_ns, granted.consumed);
    large(&page.cpu_throttled_ns, granted.throttled);
    large(&page.updated_ns, now);
    page.valid.store(bits, Ordering::Relaxed);
    page.seq.store(seq.wrapping_add(2), Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{CpuLimits, MilliCpu};

    fn granted(consumed: u64, budget: Option<(u64, u64)>) -> Granted {
        Granted {
            limits: CpuLimits::default(),
            reserve: MilliCpu(250),
            consumed: Nanos(consumed),
            throttled: Nanos(7),
            budget: budget.map(|(end, left)| (Nanos(end), Nanos(left))),
            now: Nanos(1_000_000),
        }
    }

    #[test]
    fn without_a_cap_there_is_no_budget() {
        let page = QuotaPage::default();
        write(&page, &granted(5, None), Nanos(10));
        let bits = page.valid.load(Ordering::Relaxed);
        assert_eq!(bits & (valid::CPU_CAP | valid::CPU_BUDGET), 0);
        assert_eq!(bits & valid::CPU_CONSUMED, valid::CPU_CONSUMED);
        assert_eq!(page.cpu_consumed_ns.load(Ordering::Relaxed), 5);
        assert_eq!(page.cpu_reserve_milli.load(Ordering::Relaxed), 250);
        assert_eq!(page.seq.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn an_earlier_look_is_not_written_over_a_later_one() {
        let page = QuotaPage::default();
        write(&page, &granted(50, None), Nanos(10));
        write(&page, &granted(40, None), Nanos(11));
        assert_eq!(page.cpu_consumed_ns.load(Ordering::Relaxed), 50);
        assert_eq!(page.updated_ns.load(Ordering::Relaxed), 10);
    }
}
