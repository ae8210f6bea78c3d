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
    let others = page.valid.load(Ordering::Relaxed) & NET;
    page.valid.store(bits | others, Ordering::Relaxed);
    page.seq.store(seq.wrapping_add(2), Ordering::Release);
}

/// Bits of what [`write_net`] writes.
const NET: u64 = valid::NET_TX_ALLOWANCE | valid::NET_TX_RATE | valid::NET_RX_RATE;

/// What a sliver is granted of the network; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetGranted {
    /// Bytes that may still be sent today.
    pub tx_left_today: Option<u64>,
    /// What may be sent at present, in kbit/s.
    pub tx_kbit: Option<u64>,
    /// What may be received at present, in kbit/s.
    pub rx_kbit: Option<u64>,
}

/// Writes what was granted of the network, in the guest's time, of which it is `now`. Under the same
/// lock as what [`write`] writes, and leaves that alone.
pub fn write_net(page: &QuotaPage, granted: &NetGranted, now: Nanos) {
    let seq = page.seq.load(Ordering::Relaxed);
    page.seq.store(seq.wrapping_add(1), Ordering::Relaxed);
    fence(Ordering::Release);
    let bits_per_second = |kbit: Option<u64>| kbit.map(|kbit| kbit.saturating_mul(1000));
    let fields = [
        (
            valid::NET_TX_ALLOWANCE,
            &page.net_tx_left_today,
            granted.tx_left_today,
        ),
        (
            valid::NET_TX_RATE,
            &page.net_tx_rate,
            bits_per_second(granted.tx_kbit),
        ),
        (
            valid::NET_RX_RATE,
            &page.net_rx_rate,
            bits_per_second(granted.rx_kbit),
        ),
    ];
    let mut bits = page.valid.load(Ordering::Relaxed) & !NET;
    for (bit, field, value) in fields {
        if let Some(value) = value {
            bits |= bit;
            field.store(value, Ordering::Relaxed);
        }
    }
    let updated = page.updated_ns.load(Ordering::Relaxed).max(now.0);
    page.updated_ns.store(updated, Ordering::Relaxed);
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

    #[test]
    fn what_is_granted_of_the_network_stands_beside_the_processors() {
        let page = QuotaPage::default();
        let net = NetGranted {
            tx_left_today: Some(77),
            tx_kbit: Some(512),
            rx_kbit: None,
        };
        write_net(&page, &net, Nanos(20));
        write(&page, &granted(5, None), Nanos(30));
        let bits = page.valid.load(Ordering::Relaxed);
        assert_eq!(
            bits & NET,
            valid::NET_TX_ALLOWANCE | valid::NET_TX_RATE,
            "what is not limited is not told"
        );
        assert_eq!(bits & valid::CPU_CONSUMED, valid::CPU_CONSUMED);
        assert_eq!(page.net_tx_left_today.load(Ordering::Relaxed), 77);
        assert_eq!(page.net_tx_rate.load(Ordering::Relaxed), 512_000);
        write_net(&page, &NetGranted::default(), Nanos(25));
        let bits = page.valid.load(Ordering::Relaxed);
        assert_eq!(bits & NET, 0, "a limit that was taken away");
        assert_eq!(bits & valid::CPU_CONSUMED, valid::CPU_CONSUMED);
        assert_eq!(page.updated_ns.load(Ordering::Relaxed), 30);
        assert_eq!(page.seq.load(Ordering::Relaxed), 6);
    }
}
