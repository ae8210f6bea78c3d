//! Quotas as somebody writes them, and the check that makes [`CpuLimits`] of them.

use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::{CpuLimits, MAX_SHARE, MilliCpu, vcpus_told};
use crate::spec::Mistake;
use crate::spec::fields::Fields;

/// What is written for no cap.
const NO_CAP: &str = "none";

const SHARES: RangeInclusive<u64> = 1..=MAX_SHARE as u64;
const BURSTS_MS: RangeInclusive<u64> = 0..=10_000;
const PERIODS_MS: RangeInclusive<u64> = 1..=100;

/// The quotas that somebody wants, not checked. What is absent stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuChange {
    /// Percent of one processor, or `"none"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_cap: Option<Cap>,
    /// Percent of the node's processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_pct: Option<Percent>,
    /// A weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_share: Option<u64>,
    /// Milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_burst: Option<u64>,
    /// Milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_period: Option<u64>,
}

/// A number of percent as it was written.
#[derive(Debug, Clone, Copy)]
pub struct Percent(pub f64);

/// A cap as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cap {
    /// As much as its vCPUs can use.
    None,
    /// So much of one processor.
    Percent(Percent),
}

impl CpuChange {
    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The quotas that come of it for a sliver that has `now` and so many vCPUs, or all that is
    /// wrong with it.
    pub fn apply(&self, now: &CpuLimits, vcpus: usize) -> Result<CpuLimits, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let mut limits = *now;
        let mut refuse = |field: &str, value: &dyn fmt::Display, allowed: String| {
            mistakes.push(Mistake {
                field: field.to_owned(),
                problem: format!("is {value}, allowed are {allowed}"),
            });
        };
        match self.cpu_cap {
            Some(Cap::None) => limits.cap = None,
            Some(Cap::Percent(cap)) => match cap.tenths(1..=1000 * vcpus as u32) {
                Some(tenths) => limits.cap = Some(MilliCpu(tenths)),
                None => refuse("cpu_cap", &cap, caps_told(vcpus)),
            },
            None => {}
        }
        if let Some(reserve) = self.cpu_pct {
            match reserve.tenths(0..=1000) {
                Some(tenths) => limits.reserve_permille = tenths,
                None => refuse("cpu_pct", &reserve, "0 to 100 in steps of 0.1".to_owned()),
            }
        }
        let numbers = [
            ("cpu_share", self.cpu_share, SHARES, &mut limits.share),
            ("cpu_burst", self.cpu_burst, BURSTS_MS, &mut limits.burst_ms),
            (
                "cpu_period",
                self.cpu_period,
                PERIODS_MS,
                &mut limits.period_ms,
            ),
        ];
        for (field, wanted, allowed, limit) in numbers {
            match wanted {
                Some(value) if allowed.contains(&value) => *limit = value as u32,
                Some(value) => {
                    let allowed = format!("{} to {}", allowed.start(), allowed.end());
                    refuse(field, &value, allowed);
                }
                None => {}
            }
        }
        match mistakes.is_empty() {
            true => Ok(limits),
            false => Err(mistakes),
        }
    }

    /// Reads the fields of a spec; of what is no number at all, a mistake is noted.
    pub(super) fn read(fields: &mut Fields) -> Self {
        Self {
            cpu_cap: fields.optional_with("cpu_cap", "a number or \"none\"", Cap::of_json),
            cpu_pct: fields.optional_with("cpu_pct", "a number", Percent::of_json),
            cpu_share: fields.optional_u64("cpu_share"),
            cpu_burst: fields.optional_u64("cpu_burst"),
            cpu_period: fields.optional_u64("cpu_period"),
        }
    }
}

fn caps_told(vcpus: usize) -> String {
    format!(
        "0.1 to {} in steps of 0.1 with {}, or none",
        100 * vcpus,
        vcpus_told(vcpus)
    )
}

impl From<CpuLimits> for CpuChange {
    fn from(limits: CpuLimits) -> Self {
        Self {
            cpu_cap: limits
                .cap
                .map(|cap| Cap::Percent(Percent::of_tenths(cap.0))),
            cpu_pct: Some(Percent::of_tenths(limits.reserve_permille)),
            cpu_share: Some(limits.share.into()),
            cpu_burst: Some(limits.burst_ms.into()),
            cpu_period: Some(limits.period_ms.into()),
        }
    }
}

impl Percent {
    /// So many tenths of a percent.
    pub fn of_tenths(tenths: u32) -> Self {
        Self(f64::from(tenths) / 10.0)
    }

    /// Tenths of a percent, if it is a whole number of them and one that is allowed.
    fn tenths(self, allowed: RangeInclusive<u32>) -> Option<u32> {
        // Decimal fractions have no exact form: 0.3 times ten is not quite three.
        const ROUNDING: f64 = 1e-6;
        let tenths = (self.0 * 10.0).round();
        let exact = (self.0 * 10.0 - tenths).abs() < ROUNDING;
        // Whatever is no number, or out of all bounds, becomes the nearest that is.
        let nearest = tenths as u32;
        (exact && f64::from(nearest) == tenths && allowed.contains(&nearest)).then_some(nearest)
    }

    fn of_json(value: &Value) -> Option<Self> {
        value.as_f64().map(Self)
    }
}

impl fmt::Display for Percent {
    /// In a few digits, whatever it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.abs() {
            0.001..1e9 => write!(f, "{}", self.0),
            0.0 => f.write_str("0"),
            _ => write!(f, "{:e}", self.0),
        }
    }
}

/// By what is written, so that it is equal to itself whatever it is.
impl PartialEq for Percent {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Percent {}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let whole = self.0 as u32;
        match f64::from(whole) == self.0 {
            true => serializer.serialize_u32(whole),
            false => serializer.serialize_f64(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(Self)
    }
}

impl Cap {
    fn of_json(value: &Value) -> Option<Self> {
        match value.as_str() {
            Some(NO_CAP) => Some(Self::None),
            _ => Percent::of_json(value).map(Self::Percent),
        }
    }
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str(NO_CAP),
            Self::Percent(percent) => percent.fmt(f),
        }
    }
}

impl Serialize for Cap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_str(NO_CAP),
            Self::Percent(percent) => percent.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Cap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::of_json(&value).ok_or_else(|| {
            let found = value
                .as_str()
                .map_or(Unexpected::Other("no number"), Unexpected::Str);
            D::Error::invalid_value(found, &"a number of percent or \"none\"")
        })
    }
}
