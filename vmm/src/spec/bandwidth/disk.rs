//! Quotas of disks: bytes and operations per second, of one disk or of all together.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize, Serializer};

use super::change::{Judge, Most};
use crate::spec::fields::Fields;
use crate::spec::{Mistake, mistakes_told};

/// Up to 100 GB/s, about.
const RATES_KIB: RangeInclusive<u64> = 1..=100_000_000;
const IOPS: RangeInclusive<u64> = 1..=100_000_000;

/// The quotas of disks, checked. By default there are none.
///
/// | field | unit |
/// |---|---|
/// | `disk_rate` | KiB/s that are read and written, or `"none"` |
/// | `disk_iops` | requests per second, or `"none"` |
///
/// They hold for all disks of a sliver together. Each of its disks may have its own `rate_kib` and
/// `iops` besides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "DiskChange", into = "DiskChange")]
pub struct DiskLimits {
    rate_kib: Option<u64>,
    iops: Option<u64>,
}

/// The quotas of disks that somebody wants, not checked. What is absent stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskChange {
    /// KiB/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_rate: Option<Most>,
    /// Requests per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_iops: Option<Most>,
}

impl DiskLimits {
    /// Reads the fields of a sliver.
    pub(in crate::spec) fn read(fields: &mut Fields) -> Self {
        Self::read_as(fields, "disk_rate", "disk_iops")
    }

    /// Reads the fields of one disk.
    pub(in crate::spec) fn read_own(fields: &mut Fields) -> Self {
        Self::read_as(fields, "rate_kib", "iops")
    }

    fn read_as(fields: &mut Fields, rate: &'static str, iops: &'static str) -> Self {
        let wanted = DiskChange {
            disk_rate: Most::read(fields, rate),
            disk_iops: Most::read(fields, iops),
        };
        let read = wanted.apply_as(&Self::default(), rate, iops);
        read.unwrap_or_else(|mistakes| {
            for mistake in mistakes {
                fields.mistake(&mistake.field, mistake.problem);
            }
            Self::default()
        })
    }

    /// Writes them as those of one disk.
    pub(in crate::spec) fn serialize_own<S: Serializer>(
        &self,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Own {
            #[serde(skip_serializing_if = "Option::is_none")]
            rate_kib: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            iops: Option<u64>,
        }
        let own = Own {
            rate_kib: self.rate_kib,
            iops: self.iops,
        };
        own.serialize(serializer)
    }

    /// Bytes per second, if they are limited.
    pub fn bytes_per_second(&self) -> Option<u64> {
        self.rate_kib.map(|kib| kib << 10)
    }

    /// Requests per second, if they are limited.
    pub fn requests_per_second(&self) -> Option<u64> {
        self.iops
    }
}

impl DiskChange {
    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The quotas that come of it for a sliver that has `now`, or all that is wrong with it.
    pub fn apply(&self, now: &DiskLimits) -> Result<DiskLimits, Vec<Mistake>> {
        self.apply_as(now, "disk_rate", "disk_iops")
    }

    fn apply_as(
        &self,
        now: &DiskLimits,
        rate: &str,
        iops: &str,
    ) -> Result<DiskLimits, Vec<Mistake>> {
        let mut limits = *now;
        let mut judge = Judge::default();
        judge.most(rate, self.disk_rate, RATES_KIB, &mut limits.rate_kib);
        judge.most(iops, self.disk_iops, IOPS, &mut limits.iops);
        match judge.0.is_empty() {
            true => Ok(limits),
            false => Err(judge.0),
        }
    }
}

impl From<DiskLimits> for DiskChange {
    fn from(limits: DiskLimits) -> Self {
        Self {
            disk_rate: Some(Most::of(limits.rate_kib)),
            disk_iops: Some(Most::of(limits.iops)),
        }
    }
}

impl TryFrom<DiskChange> for DiskLimits {
    type Error = String;

    fn try_from(written: DiskChange) -> Result<Self, String> {
        let read = written.apply(&Self::default());
        read.map_err(|mistakes| mistakes_told(&mistakes))
    }
}
