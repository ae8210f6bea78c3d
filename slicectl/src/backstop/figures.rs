//! What the kernel is told of a sliver's quotas, in the units of both versions of control groups.

use vmm::spec::CpuLimits;

/// The usual period of a group's quota, in microseconds; the longest that the kernel takes.
const PERIOD_US: u64 = 100_000;
const LONGEST_PERIOD_US: u64 = 1_000_000;

/// Less than this is refused as a quota (kernel/sched/core.c, `min_cfs_quota_period`).
const LEAST_QUOTA_US: u64 = 1000;

/// A group's quota is so many eighths of the cap.
const EIGHTHS: u64 = 10;

/// A group's period in those of the sliver: of so many it may use one more at once (its own do not
/// begin when the group's do), which is less than the quota has to spare.
const PERIODS: u64 = 10;

/// The weight of one share and of one percent reserved, in the second version's units.
const WEIGHT: u64 = 100;

/// The same of 1024 in the first version's.
const SHARES_OF_WEIGHT: (u64, u64) = (1024, 100);

const MOST_WEIGHT: u64 = 10_000;
const MOST_SHARES: u64 = 262_144;

/// What a group is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Figures {
    /// Microseconds of processor time in so many microseconds.
    pub(super) quota: Option<(u64, u64)>,
    weight: u64,
}

impl Figures {
    /// For a sliver with so many vCPUs.
    pub(super) fn of(limits: &CpuLimits, vcpus: usize) -> Self {
        Self {
            quota: limits
                .cap()
                .and_then(|cap| quota(cap.0.into(), limits, vcpus as u64)),
            weight: WEIGHT * u64::from(limits.share())
                + WEIGHT * u64::from(limits.reserve_permille()) / 10,
        }
    }

    /// For `cpu.weight`.
    pub(super) fn weight(&self) -> u64 {
        self.weight.min(MOST_WEIGHT)
    }

    /// For `cpu.shares`.
    pub(super) fn shares(&self) -> u64 {
        let (shares, weight) = SHARES_OF_WEIGHT;
        (self.weight * shares / weight).min(MOST_SHARES)
    }

    /// The most that a `cpu.weight`, or else a `cpu.shares`, can be.
    pub(super) fn most(is_weight: bool) -> u64 {
        if is_weight { MOST_WEIGHT } else { MOST_SHARES }
    }
}

/// The quota for a cap in thousandths of a processor. A burst is allowed in every period, as the
/// kernel has no other way for one that is longer than a quota. Nothing is limited where that is
/// more than the vCPUs can use.
fn quota(cap: u64, limits: &CpuLimits, vcpus: u64) -> Option<(u64, u64)> {
    let own = u64::from(limits.period_ms()) * 1000 * PERIODS;
    let for_least = (LEAST_QUOTA_US * 1000 * 8).div_ceil(EIGHTHS * cap);
    let period = own.max(for_least).clamp(PERIOD_US, LONGEST_PERIOD_US);
    let burst = u64::from(limits.burst_ms()) * 1000;
    let quota = period * cap * EIGHTHS / 8 / 1000 + burst;
    // Beside its vCPUs, a monitor has threads that serve devices.
    (quota < period * (vcpus + 1)).then_some((quota, period))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn figures(quotas: serde_json::Value, vcpus: usize) -> Figures {
        let limits = serde_json::from_value(quotas).expect("quotas");
        Figures::of(&limits, vcpus)
    }

    #[test]
    fn a_quota_is_a_quarter_more_than_the_cap() {
        let of = |cap: f64| figures(json!({ "cpu_cap": cap }), 2).quota;
        assert_eq!(of(20.0), Some((25_000, 100_000)));
        assert_eq!(of(150.0), Some((187_500, 100_000)));
        assert_eq!(of(0.1), Some((1000, 800_000)));
        assert_eq!(figures(json!({}), 1).quota, None);
    }

    #[test]
    fn a_long_period_and_a_burst_are_left_room() {
        let long = figures(json!({ "cpu_cap": 20, "cpu_period": 100 }), 1);
        assert_eq!(long.quota, Some((250_000, 1_000_000)));
        let burst = figures(json!({ "cpu_cap": 20, "cpu_burst": 30 }), 1);
        assert_eq!(burst.quota, Some((55_000, 100_000)));
        let boundless = figures(json!({ "cpu_cap": 20, "cpu_burst": 1000 }), 1);
        assert_eq!(boundless.quota, None);
    }

    #[test]
    fn weights_follow_share_and_reserve_in_the_kernel_s_bounds() {
        let of = |quotas| {
            let figures = figures(quotas, 1);
            (figures.weight(), figures.shares())
        };
        assert_eq!(of(json!({})), (100, 1024));
        assert_eq!(of(json!({ "cpu_share": 5 })), (500, 5120));
        assert_eq!(of(json!({ "cpu_pct": 25 })), (2600, 26_624));
        assert_eq!(of(json!({ "cpu_share": 10_000 })), (10_000, 262_144));
    }

    proptest! {
        #[test]
        fn a_quota_is_one_that_the_kernel_takes_and_the_budget_keeps_to(
            cap in 1u32..=2000, period_ms in 1u32..=100, burst_ms in 0u32..=10_000,
        ) {
            let quotas = json!({
                "cpu_cap": f64::from(cap) / 10.0, "cpu_period": period_ms, "cpu_burst": burst_ms,
            });
            if let Some((quota, period)) = figures(quotas, 2).quota {
                prop_assert!((1000..=1_000_000).contains(&period) && quota >= 1000);
                let (period, own) = (period as f64, f64::from(period_ms) * 1000.0);
                let budget = own * f64::from(cap) / 1000.0;
                let most = ((period / own).ceil() + 1.0) * budget + f64::from(burst_ms) * 1000.0;
                prop_assert!(quota as f64 + 1.0 >= most, "{quota} < {most}");
            }
        }
    }
}
