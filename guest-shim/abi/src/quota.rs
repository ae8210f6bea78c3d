//! The quota page: what a sliver is granted, read-only, kept up to date by the monitor.
//!
//! Each field stands alone and may be read at any time; `seq` tells a reader who wants several of
//! one moment. A field is meaningful only when its bit in [`QuotaPage::valid`] is set: a monitor
//! that does not limit or measure something says so by leaving the bit clear.

use core::sync::atomic::{AtomicU32, AtomicU64};

/// Bits of [`QuotaPage::valid`], one per field or pair of fields.
pub mod valid {
    /// [`cpu_cap_milli`](super::QuotaPage::cpu_cap_milli): there is a cap.
    pub const CPU_CAP: u64 = 1 << 0;
    /// [`cpu_reserve_milli`](super::QuotaPage::cpu_reserve_milli): there is a reserve.
    pub const CPU_RESERVE: u64 = 1 << 1;
    /// [`cpu_share`](super::QuotaPage::cpu_share).
    pub const CPU_SHARE: u64 = 1 << 2;
    /// [`cpu_consumed_ns`](super::QuotaPage::cpu_consumed_ns).
    pub const CPU_CONSUMED: u64 = 1 << 3;
    /// [`cpu_throttled_ns`](super::QuotaPage::cpu_throttled_ns).
    pub const CPU_THROTTLED: u64 = 1 << 4;
    /// [`cpu_budget_end_ns`](super::QuotaPage::cpu_budget_end_ns) and
    /// [`cpu_budget_left_ns`](super::QuotaPage::cpu_budget_left_ns).
    pub const CPU_BUDGET: u64 = 1 << 5;
    /// [`net_tx_left_today`](super::QuotaPage::net_tx_left_today): there is a daily allowance.
    pub const NET_TX_ALLOWANCE: u64 = 1 << 6;
    /// [`net_rx_left_today`](super::QuotaPage::net_rx_left_today): there is a daily allowance.
    pub const NET_RX_ALLOWANCE: u64 = 1 << 7;
    /// [`net_tx_rate`](super::QuotaPage::net_tx_rate): sending is limited.
    pub const NET_TX_RATE: u64 = 1 << 8;
    /// [`net_rx_rate`](super::QuotaPage::net_rx_rate): receiving is limited.
    pub const NET_RX_RATE: u64 = 1 << 9;
}

/// The quota page. Its address is in [`InfoPage::quota`](crate::info::InfoPage::quota).
#[repr(C)]
#[derive(Debug, Default)]
pub struct QuotaPage {
    /// Sequence: odd while the monitor writes.
    pub seq: AtomicU32,
    /// Must be ignored.
    pub reserved: AtomicU32,
    /// Bits of [`valid`].
    pub valid: AtomicU64,
    /// Never more than this, in thousandths of one processor; above 1000 with several vCPUs.
    pub cpu_cap_milli: AtomicU32,
    /// Never less than this while it is wanted, in thousandths of one processor.
    pub cpu_reserve_milli: AtomicU32,
    /// Weight against other slivers in what nobody has reserved.
    pub cpu_share: AtomicU32,
    /// Must be ignored.
    pub reserved2: AtomicU32,
    /// Processor time charged to this sliver so far, device work included, in nanoseconds.
    pub cpu_consumed_ns: AtomicU64,
    /// Time during which this sliver wanted to run and was held back by its cap, in nanoseconds.
    pub cpu_throttled_ns: AtomicU64,
    /// Monotonic time at which the current budget is renewed, in nanoseconds.
    pub cpu_budget_end_ns: AtomicU64,
    /// Processor time left in the current budget when this page was written, in nanoseconds.
    pub cpu_budget_left_ns: AtomicU64,
    /// Bytes that may still be sent today at the full rate.
    pub net_tx_left_today: AtomicU64,
    /// Bytes that may still be received today at the full rate.
    pub net_rx_left_today: AtomicU64,
    /// Present sending limit, in bits per second.
    pub net_tx_rate: AtomicU64,
    /// Present receiving limit, in bits per second.
    pub net_rx_rate: AtomicU64,
    /// Monotonic time of the last update, in nanoseconds.
    pub updated_ns: AtomicU64,
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<QuotaPage>() == 104);
    assert!(offset_of!(QuotaPage, cpu_cap_milli) == 16);
    assert!(offset_of!(QuotaPage, cpu_consumed_ns) == 32);
    assert!(offset_of!(QuotaPage, updated_ns) == 96);
};
