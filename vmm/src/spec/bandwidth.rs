//! What a sliver is granted of its node's network and disks, under PlanetLab's names and units.
//!
//! [`NetLimits`] and [`DiskLimits`] are checked; [`NetChange`] and [`DiskChange`] are what somebody
//! asks for, in a spec or of a running sliver. Their `apply` leads from one to the other and is the
//! only way there.

mod change;
mod disk;
#[cfg(test)]
mod tests;
mod uplink;
mod used;

use serde::{Deserialize, Serialize};

use super::fields::Fields;
use crate::net::prefix::{Prefix, PrefixSet};

pub use change::{Most, NetChange};
pub use disk::{DiskChange, DiskLimits};
pub(super) use uplink::Network;
pub use uplink::UplinkSpec;
pub(super) use used::read as read_used;

/// The largest rate, in kbit/s: 1 Tbit/s.
pub const MAX_KBIT: u64 = 1_000_000_000;

/// What comes in so long may follow without a pause where no burst is named: whoever sends is kept
/// from the processor for some milliseconds where others want it, too, and must not lose them.
const BURST_MS: u64 = 10;

/// The least burst where none is named, in KiB: a frame of any size and some more.
const LEAST_BURST_KIB: u64 = 32;

/// The ceiling on PlanetLab, in kbit/s.
const USUAL_MAX_KBIT: u64 = 1_000_000;

/// A day's allowance on PlanetLab, in KiB: a mean of 1 Mbit/s.
const USUAL_MAX_KBYTE: u64 = 10_546_875;

/// The same to exempt prefixes.
const USUAL_EXEMPT_MAX_KBYTE: u64 = 31_640_625;

/// What one kind of traffic is granted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Class {
    /// Never less, in kbit/s, if it is wanted and the uplink is to be had.
    pub min_kbit: u64,
    /// Never more, in kbit/s.
    pub max_kbit: Option<u64>,
    /// KiB in a day (UTC).
    pub max_kbyte: Option<u64>,
    /// KiB of a day after which what is left of the allowance is spread over what is left of the
    /// day.
    pub thresh_kbyte: Option<u64>,
}

/// The limits, checked. Where a spec names an [`UplinkSpec`], PlanetLab's defaults hold; elsewhere
/// there are no limits but those that are written.
///
/// | field | unit | default with an uplink | meaning |
/// |---|---|---|---|
/// | `net_min_rate` | kbit/s | 0 | never less; at most a quarter of the uplink |
/// | `net_max_rate` | kbit/s or `"none"` | 1,000,000 | never more |
/// | `net_share` | weight, 1 to 10,000 | 1 | its part of what is left of the uplink |
/// | `net_burst` | KiB or `"none"` | 10 ms at the rate, at least 32 | what may follow without a pause |
/// | `net_max_kbyte` | KiB in a day (UTC) or `"none"` | 10,546,875 | the allowance |
/// | `net_thresh_kbyte` | KiB or `"none"` | nine tenths of it | from there the rest of the allowance is spread over the rest of the day |
/// | `net_exempt` | prefixes | none | to these, the four limits below hold instead of those above |
/// | `net_exempt_max_kbyte` | KiB in a day (UTC) or `"none"` | 31,640,625 | as `net_max_kbyte` |
/// | `net_exempt_min_rate`, `net_exempt_max_rate`, `net_exempt_thresh_kbyte` | the same | the same | |
/// | `net_rx_max_rate` | kbit/s or `"none"` | none | never more is received |
/// | `net_rx_burst` | KiB or `"none"` | as `net_burst` | |
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "NetChange", into = "NetChange")]
pub struct NetLimits {
    plain: Class,
    exempt: Class,
    share: u32,
    burst_kib: Option<u64>,
    prefixes: Vec<Prefix>,
    rx_max_kbit: Option<u64>,
    rx_burst_kib: Option<u64>,
}

impl Class {
    /// Bytes in a day.
    pub fn daily_bytes(&self) -> Option<u64> {
        self.max_kbyte.map(|kib| kib << 10)
    }

    /// Bytes of a day after which what is left is spread over the rest of it.
    pub fn threshold_bytes(&self) -> Option<u64> {
        let max = self.max_kbyte?;
        Some(self.thresh_kbyte.unwrap_or(max * 9 / 10) << 10)
    }
}

impl Default for NetLimits {
    /// No limit at all.
    fn default() -> Self {
        Self {
            plain: Class::default(),
            exempt: Class::default(),
            share: 1,
            burst_kib: None,
            prefixes: Vec::new(),
            rx_max_kbit: None,
            rx_burst_kib: None,
        }
    }
}

impl NetLimits {
    /// What a sliver has whose spec names an uplink and no limits.
    pub fn on_uplink() -> Self {
        let class = |max_kbyte| Class {
            max_kbit: Some(USUAL_MAX_KBIT),
            max_kbyte: Some(max_kbyte),
            ..Class::default()
        };
        Self {
            plain: class(USUAL_MAX_KBYTE),
            exempt: class(USUAL_EXEMPT_MAX_KBYTE),
            ..Self::default()
        }
    }

    /// Reads the fields of a sliver that has `usual` where nothing is written.
    fn read(fields: &mut Fields, usual: &Self) -> Self {
        let wanted = NetChange::read(fields);
        wanted.apply(usual).unwrap_or_else(|mistakes| {
            for mistake in mistakes {
                fields.mistake(&mistake.field, mistake.problem);
            }
            usual.clone()
        })
    }

    /// Never less of the uplink, whatever the traffic, in kbit/s.
    pub fn guaranteed_kbit(&self) -> u64 {
        self.plain.min_kbit + self.exempt.min_kbit
    }

    /// What holds for most traffic.
    pub fn plain(&self) -> &Class {
        &self.plain
    }

    /// What holds for traffic to exempt prefixes.
    pub fn exempt(&self) -> &Class {
        &self.exempt
    }

    /// Weight in what is left of the uplink.
    pub fn share(&self) -> u32 {
        self.share
    }

    /// The exempt prefixes.
    pub fn prefixes(&self) -> &[Prefix] {
        &self.prefixes
    }

    /// The same, to be looked up.
    pub fn exempt_prefixes(&self) -> PrefixSet {
        PrefixSet::new(&self.prefixes)
    }

    /// Never more is received, in kbit/s.
    pub fn rx_max_kbit(&self) -> Option<u64> {
        self.rx_max_kbit
    }

    /// Bytes that may be sent without a pause at a rate of so many kbit/s.
    pub fn burst_bytes(&self, kbit: u64) -> u64 {
        burst(self.burst_kib, kbit)
    }

    /// Bytes that may be received without a pause at a rate of so many kbit/s.
    pub fn rx_burst_bytes(&self, kbit: u64) -> u64 {
        burst(self.rx_burst_kib, kbit)
    }
}

fn burst(kib: Option<u64>, kbit: u64) -> u64 {
    match kib {
        Some(kib) => kib << 10,
        // A kbit/s is a bit in a millisecond.
        None => (kbit * BURST_MS / 8).max(LEAST_BURST_KIB << 10),
    }
}
