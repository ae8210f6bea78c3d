//! What a sliver is granted of its node's processors, under PlanetLab's names and units.

use serde::{Deserialize, Serialize};

use crate::nanos::Nanos;
use crate::sched::budget::Bandwidth;

/// Processor time in thousandths of one processor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MilliCpu(pub u32);

/// The period of a sliver's budget if its spec names none, in milliseconds.
pub const DEFAULT_PERIOD_MS: u32 = 10;

/// The quotas, checked.
///
/// | field | unit | default |
/// |---|---|---|
/// | `cpu_cap` | % of one processor, in steps of 0.1, from 0.1 to 100 for each vCPU | none |
/// | `cpu_pct` | % of the node's processors that are reserved, in steps of 0.1 | 0 |
/// | `cpu_share` | weight in what nobody has reserved, 1 to 10,000 | 1 |
/// | `cpu_burst` | ms of processor time that may be saved up for later, 0 to 10,000 | 0 |
/// | `cpu_period` | ms after which the budget of a cap is renewed, 1 to 100 | 10 |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct CpuLimits {
    pub(super) cap: Option<MilliCpu>,
    /// In thousandths of the node's processors.
    pub(super) reserve_permille: u32,
    pub(super) share: u32,
    pub(super) burst_ms: u32,
    pub(super) period_ms: u32,
}

impl Default for CpuLimits {
    fn default() -> Self {
        Self {
            cap: None,
            reserve_permille: 0,
            share: 1,
            burst_ms: 0,
            period_ms: DEFAULT_PERIOD_MS,
        }
    }
}

impl CpuLimits {
    /// Never more than this.
    pub fn cap(&self) -> Option<MilliCpu> {
        self.cap
    }

    /// What is reserved on a node with so many processors.
    pub fn reserve(&self, processors: u32) -> MilliCpu {
        MilliCpu(self.reserve_permille * processors)
    }

    /// What is reserved, in thousandths of the node's processors.
    pub fn reserve_permille(&self) -> u32 {
        self.reserve_permille
    }

    /// Weight in what nobody has reserved.
    pub fn share(&self) -> u32 {
        self.share
    }

    /// What may be saved up, in milliseconds of processor time.
    pub fn burst_ms(&self) -> u32 {
        self.burst_ms
    }

    /// The period, in milliseconds.
    pub fn period_ms(&self) -> u32 {
        self.period_ms
    }

    /// The cap as a budget, if there is one.
    pub fn bandwidth(&self) -> Option<Bandwidth> {
        let period = Nanos::from_millis(self.period_ms.into());
        self.cap.map(|cap| Bandwidth {
            quota: Nanos(period.0 * u64::from(cap.0) / 1000),
            period,
            burst: Nanos::from_millis(self.burst_ms.into()),
        })
    }
}

/// The quotas as they are written.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cpu_cap: Option<f64>,
    cpu_pct: f64,
    cpu_share: u32,
    cpu_burst: u32,
    cpu_period: u32,
}

impl From<CpuLimits> for Written {
    fn from(limits: CpuLimits) -> Self {
        let percent = |tenths: u32| f64::from(tenths) / 10.0;
        Self {
            cpu_cap: limits.cap.map(|cap| percent(cap.0)),
            cpu_pct: percent(limits.reserve_permille),
            cpu_share: limits.share,
            cpu_burst: limits.burst_ms,
            cpu_period: limits.period_ms,
        }
    }
}

impl TryFrom<Written> for CpuLimits {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let tenths = |percent: f64| (percent * 10.0).round() as u32;
        if written.cpu_share == 0 || !(1..=100).contains(&written.cpu_period) {
            return Err("quotas that no sliver can have".to_owned());
        }
        Ok(Self {
            cap: written.cpu_cap.map(|percent| MilliCpu(tenths(percent))),
            reserve_permille: tenths(written.cpu_pct),
            share: written.cpu_share,
            burst_ms: written.cpu_burst,
            period_ms: written.cpu_period,
        })
    }
}
