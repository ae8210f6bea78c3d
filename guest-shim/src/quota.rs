//! What this sliver is granted and what it has used: an application can adapt to it.

#[cfg(test)]
mod tests;

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use core::time::Duration;

use slice_abi::quota::{QuotaPage, valid};

use crate::backend::identity;
use crate::time::Instant;

/// The grants and the use of one moment. What is `None` is not limited or not measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// Never more processor time than this, in thousandths of one processor.
    pub cpu_cap_milli: Option<u32>,
    /// Never less while it is wanted, in thousandths of one processor.
    pub cpu_reserve_milli: Option<u32>,
    /// Weight against other slivers in what nobody has reserved.
    pub cpu_share: Option<u32>,
    /// Processor time charged so far, device work included.
    pub cpu_consumed: Option<Duration>,
    /// Time spent held back by the cap.
    pub cpu_throttled: Option<Duration>,
    /// The present budget of processor time.
    pub cpu_budget: Option<Budget>,
    /// Bytes that may still be sent today at the full rate.
    pub net_tx_left_today: Option<u64>,
    /// Bytes that may still be received today at the full rate.
    pub net_rx_left_today: Option<u64>,
    /// Sending limit, in bits per second.
    pub net_tx_rate: Option<u64>,
    /// Receiving limit, in bits per second.
    pub net_rx_rate: Option<u64>,
}

/// A budget of processor time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// When it is renewed.
    pub end: Instant,
    /// What was left of it when the monitor last looked.
    pub left: Duration,
}

/// Reads the quota page, all of one moment.
///
/// ```
/// if let Some(cap) = guest_shim::quota::read().cpu_cap_milli {
///     guest_shim::println!("at most {cap} thousandths of a processor");
/// }
/// ```
pub fn read() -> Quota {
    identity::quota_page()
        .map(of_one_moment)
        .unwrap_or_default()
}

/// The sequence lock of the page: read again while the monitor writes.
fn of_one_moment(page: &QuotaPage) -> Quota {
    loop {
        let before = page.seq.load(Ordering::Acquire);
        let quota = copy(page);
        fence(Ordering::Acquire);
        if before & 1 == 0 && page.seq.load(Ordering::Relaxed) == before {
            return quota;
        }
        core::hint::spin_loop();
    }
}

fn copy(page: &QuotaPage) -> Quota {
    let bits = page.valid.load(Ordering::Relaxed);
    let small = |bit, field: &AtomicU32| (bits & bit != 0).then(|| field.load(Ordering::Relaxed));
    let large = |bit, field: &AtomicU64| (bits & bit != 0).then(|| field.load(Ordering::Relaxed));
    let time = |bit, field| large(bit, field).map(Duration::from_nanos);
    Quota {
        cpu_cap_milli: small(valid::CPU_CAP, &page.cpu_cap_milli),
        cpu_reserve_milli: small(valid::CPU_RESERVE, &page.cpu_reserve_milli),
        cpu_share: small(valid::CPU_SHARE, &page.cpu_share),
        cpu_consumed: time(valid::CPU_CONSUMED, &page.cpu_consumed_ns),
        cpu_throttled: time(valid::CPU_THROTTLED, &page.cpu_throttled_ns),
        cpu_budget: large(valid::CPU_BUDGET, &page.cpu_budget_end_ns).map(|end| Budget {
            end: Instant::from_nanos(end),
            left: Duration::from_nanos(page.cpu_budget_left_ns.load(Ordering::Relaxed)),
        }),
        net_tx_left_today: large(valid::NET_TX_ALLOWANCE, &page.net_tx_left_today),
        net_rx_left_today: large(valid::NET_RX_ALLOWANCE, &page.net_rx_left_today),
        net_tx_rate: large(valid::NET_TX_RATE, &page.net_tx_rate),
        net_rx_rate: large(valid::NET_RX_RATE, &page.net_rx_rate),
    }
}
