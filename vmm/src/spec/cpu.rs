//! What a sliver is granted of its node's processors, under PlanetLab's names and units.
//!
//! [`CpuLimits`] is checked; [`CpuChange`] is what somebody asks for, in a spec or of a running
//! sliver. [`CpuChange::apply`] leads from one to the other and is the only way there.

mod change;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use slice_abi::layout::MAX_VCPUS;

use super::Mistake;
use super::fields::Fields;
use crate::nanos::Nanos;
use crate::sched::budget::Bandwidth;

pub use change::{Cap, CpuChange, Percent};

/// Processor time in thousandths of one processor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MilliCpu(pub u32);

/// The period of a sliver's budget if its spec names none, in milliseconds.
pub const DEFAULT_PERIOD_MS: u32 = 10;

/// The largest weight.
pub const MAX_SHARE: u32 = 10_000;

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
#[serde(try_from = "CpuChange", into = "CpuChange")]
pub struct CpuLimits {
    cap: Option<MilliCpu>,
    /// In thousandths of the node's processors.
    reserve_permille: u32,
    share: u32,
    burst_ms: u32,
    period_ms: u32,
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
    /// Reads the fields of a sliver with so many vCPUs.
    pub(crate) fn read(fields: &mut Fields, vcpus: usize) -> Self {
        let wanted = CpuChange::read(fields);
        wanted
            .apply(&Self::default(), vcpus)
            .unwrap_or_else(|mistakes| {
                for mistake in mistakes {
                    fields.mistake(&mistake.field, mistake.problem);
                }
                Self::default()
            })
    }

    /// Why so many vCPUs could not use what is reserved on a node with so many processors.
    pub fn beyond_vcpus(&self, vcpus: usize, processors: u32) -> Option<Mistake> {
        let usable = 1000 * vcpus as u32;
        let reserve = self.reserve(processors);
        (reserve.0 > usable).then(|| Mistake {
            field: "cpu_pct".to_owned(),
            problem: format!(
                "is {} % of this node's {processors} processors, more than {} can use: allowed are \
                 0 to {}",
                Percent::of_tenths(self.reserve_permille),
                vcpus_told(vcpus),
                Percent::of_tenths(usable / processors)
            ),
        })
    }

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

/// Whoever reads a sliver's quotas back does not know its vCPUs: it may have as many as there can be.
impl TryFrom<CpuChange> for CpuLimits {
    type Error = String;

    fn try_from(written: CpuChange) -> Result<Self, String> {
        let read = written.apply(&Self::default(), MAX_VCPUS);
        read.map_err(|mistakes| super::mistakes::told(&mistakes))
    }
}

fn vcpus_told(vcpus: usize) -> String {
    match vcpus {
        1 => "1 vCPU".to_owned(),
        _ => format!("{vcpus} vCPUs"),
    }
}
