//! Limits as somebody writes them, and the check that makes [`NetLimits`] of them.

use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::{Class, MAX_KBIT, NetLimits};
use crate::net::prefix::Prefix;
use crate::spec::fields::Fields;
use crate::spec::{MAX_SHARE, Mistake, mistakes_told};

const NO_LIMIT: &str = "none";

const RATES: RangeInclusive<u64> = 1..=MAX_KBIT;
const SHARES: RangeInclusive<u64> = 1..=MAX_SHARE as u64;
/// A frame of any size, to 1 GiB.
const BURSTS_KIB: RangeInclusive<u64> = 2..=1 << 20;
/// To 1 EiB.
const ALLOWANCES: RangeInclusive<u64> = 1..=1 << 50;
const MOST_PREFIXES: usize = 10_000;

/// A number or `"none"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Most {
    /// No limit.
    None,
    /// So much.
    Number(u64),
}

/// The limits that somebody wants, not checked. What is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "NetLimits tells what each means")]
pub struct NetChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net_min_rate: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net_max_rate: Option<Most>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net_share: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net_burst: Option<Most>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net_max_kbyte: Option<Most>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net_thresh_kbyte: Option<Most>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net_exempt: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net_exempt_min_rate: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net_exempt_max_rate: Option<Most>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net_exempt_max_kbyte: Option<Most>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net_exempt_thresh_kbyte: Option<Most>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net_rx_max_rate: Option<Most>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net_rx_burst: Option<Most>,
}

/// Notes what is not allowed.
#[derive(Default)]
pub(super) struct Judge(pub(super) Vec<Mistake>);

impl Judge {
    fn refuse(&mut self, field: &str, problem: String) {
        self.0.push(Mistake {
            field: field.to_owned(),
            problem,
        });
    }

    fn allows(&mut self, field: &str, value: u64, allowed: &RangeInclusive<u64>) -> bool {
        let is_allowed = allowed.contains(&value);
        if !is_allowed {
            let (least, most) = (allowed.start(), allowed.end());
            self.refuse(field, format!("is {value}, allowed are {least} to {most}"));
        }
        is_allowed
    }

    pub(super) fn most(
        &mut self,
        field: &str,
        wanted: Option<Most>,
        allowed: RangeInclusive<u64>,
        limit: &mut Option<u64>,
    ) {
        match wanted {
            Some(Most::None) => *limit = None,
            Some(Most::Number(value)) if self.allows(field, value, &allowed) => {
                *limit = Some(value);
            }
            _ => {}
        }
    }

    /// What holds between the limits of a class. `prefix` is what its fields begin with.
    fn class(&mut self, prefix: &str, class: &Class) {
        if let Some(max) = class.max_kbit
            && class.min_kbit > max
        {
            let min = class.min_kbit;
            let problem = format!("is {min}, more than {prefix}_max_rate: allowed are 0 to {max}");
            self.refuse(&format!("{prefix}_min_rate"), problem);
        }
        if let Some(thresh) = class.thresh_kbyte
            && class.max_kbyte.is_none_or(|max| thresh > max)
        {
            let max = Most::of(class.max_kbyte);
            let problem = format!("is {thresh}, more than {prefix}_max_kbyte, which is {max}");
            self.refuse(&format!("{prefix}_thresh_kbyte"), problem);
        }
    }
}

impl NetChange {
    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The limits that come of it for a sliver that has `now`, or all that is wrong with it.
    pub fn apply(&self, now: &NetLimits) -> Result<NetLimits, Vec<Mistake>> {
        let mut judge = Judge::default();
        let mut limits = now.clone();
        let plain = &mut limits.plain;
        let exempt = &mut limits.exempt;
        for (field, wanted, limit) in [
            ("net_min_rate", self.net_min_rate, &mut plain.min_kbit),
            (
                "net_exempt_min_rate",
                self.net_exempt_min_rate,
                &mut exempt.min_kbit,
            ),
        ] {
            if let Some(value) = wanted
                && judge.allows(field, value, &(0..=MAX_KBIT))
            {
                *limit = value;
            }
        }
        if let Some(share) = self.net_share
            && judge.allows("net_share", share, &SHARES)
        {
            limits.share = share as u32;
        }
        // A threshold belongs to its allowance: another one has the usual one, if none is named.
        for (allowance, class) in [
            (self.net_max_kbyte, &mut *plain),
            (self.net_exempt_max_kbyte, &mut *exempt),
        ] {
            if allowance.is_some() {
                class.thresh_kbyte = None;
            }
        }
        for (field, wanted, allowed, limit) in [
            (
                "net_max_rate",
                self.net_max_rate,
                RATES,
                &mut plain.max_kbit,
            ),
            (
                "net_max_kbyte",
                self.net_max_kbyte,
                ALLOWANCES,
                &mut plain.max_kbyte,
            ),
            (
                "net_thresh_kbyte",
                self.net_thresh_kbyte,
                ALLOWANCES,
                &mut plain.thresh_kbyte,
            ),
            (
                "net_exempt_max_rate",
                self.net_exempt_max_rate,
                RATES,
                &mut exempt.max_kbit,
            ),
            (
                "net_exempt_max_kbyte",
                self.net_exempt_max_kbyte,
                ALLOWANCES,
                &mut exempt.max_kbyte,
            ),
            (
                "net_exempt_thresh_kbyte",
                self.net_exempt_thresh_kbyte,
                ALLOWANCES,
                &mut exempt.thresh_kbyte,
            ),
            (
                "net_burst",
                self.net_burst,
                BURSTS_KIB,
                &mut limits.burst_kib,
            ),
            (
                "net_rx_max_rate",
                self.net_rx_max_rate,
                RATES,
                &mut limits.rx_max_kbit,
            ),
            (
                "net_rx_burst",
                self.net_rx_burst,
                BURSTS_KIB,
                &mut limits.rx_burst_kib,
            ),
        ] {
            judge.most(field, wanted, allowed, limit);
        }
        judge.class("net", &limits.plain);
        judge.class("net_exempt", &limits.exempt);
        if let Some(texts) = &self.net_exempt {
            limits.prefixes = prefixes(texts, &mut judge);
        }
        match judge.0.is_empty() {
            true => Ok(limits),
            false => Err(judge.0),
        }
    }

    /// Reads the fields of a spec; of what has the wrong kind, a mistake is noted.
    pub(super) fn read(fields: &mut Fields) -> Self {
        let prefixes = fields.strings("net_exempt");
        Self {
            net_min_rate: fields.optional_u64("net_min_rate"),
            net_max_rate: Most::read(fields, "net_max_rate"),
            net_share: fields.optional_u64("net_share"),
            net_burst: Most::read(fields, "net_burst"),
            net_max_kbyte: Most::read(fields, "net_max_kbyte"),
            net_thresh_kbyte: Most::read(fields, "net_thresh_kbyte"),
            net_exempt: (!prefixes.is_empty()).then_some(prefixes),
            net_exempt_min_rate: fields.optional_u64("net_exempt_min_rate"),
            net_exempt_max_rate: Most::read(fields, "net_exempt_max_rate"),
            net_exempt_max_kbyte: Most::read(fields, "net_exempt_max_kbyte"),
            net_exempt_thresh_kbyte: Most::read(fields, "net_exempt_thresh_kbyte"),
            net_rx_max_rate: Most::read(fields, "net_rx_max_rate"),
            net_rx_burst: Most::read(fields, "net_rx_burst"),
        }
    }

    /// What of it differs from `base`.
    pub(super) fn without(self, base: &Self) -> Self {
        fn kept<T: PartialEq>(own: Option<T>, base: &Option<T>) -> Option<T> {
            own.filter(|own| base.as_ref() != Some(own))
        }
        Self {
            net_min_rate: kept(self.net_min_rate, &base.net_min_rate),
            net_max_rate: kept(self.net_max_rate, &base.net_max_rate),
            net_share: kept(self.net_share, &base.net_share),
            net_burst: kept(self.net_burst, &base.net_burst),
            net_max_kbyte: kept(self.net_max_kbyte, &base.net_max_kbyte),
            net_thresh_kbyte: kept(self.net_thresh_kbyte, &base.net_thresh_kbyte),
            net_exempt: kept(self.net_exempt, &base.net_exempt),
            net_exempt_min_rate: kept(self.net_exempt_min_rate, &base.net_exempt_min_rate),
            net_exempt_max_rate: kept(self.net_exempt_max_rate, &base.net_exempt_max_rate),
            net_exempt_max_kbyte: kept(self.net_exempt_max_kbyte, &base.net_exempt_max_kbyte),
            net_exempt_thresh_kbyte: kept(
                self.net_exempt_thresh_kbyte,
                &base.net_exempt_thresh_kbyte,
            ),
            net_rx_max_rate: kept(self.net_rx_max_rate, &base.net_rx_max_rate),
            net_rx_burst: kept(self.net_rx_burst, &base.net_rx_burst),
        }
    }
}

fn prefixes(texts: &[String], judge: &mut Judge) -> Vec<Prefix> {
    if texts.len() > MOST_PREFIXES {
        let problem = format!("has {}, {MOST_PREFIXES} are allowed", texts.len());
        judge.refuse("net_exempt", problem);
        return Vec::new();
    }
    let mut prefixes = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match text.parse() {
            Ok(prefix) => prefixes.push(prefix),
            Err(why) => judge.refuse(&format!("net_exempt[{index}]"), format!("{text:?} {why}")),
        }
    }
    prefixes
}

impl TryFrom<NetChange> for NetLimits {
    type Error = String;

    fn try_from(change: NetChange) -> Result<Self, String> {
        let limits = change.apply(&Self::default());
        limits.map_err(|mistakes| mistakes_told(&mistakes))
    }
}

impl From<NetLimits> for NetChange {
    fn from(limits: NetLimits) -> Self {
        let most = |limit| Some(Most::of(limit));
        Self {
            net_min_rate: Some(limits.plain.min_kbit),
            net_max_rate: most(limits.plain.max_kbit),
            net_share: Some(limits.share.into()),
            net_burst: most(limits.burst_kib),
            net_max_kbyte: most(limits.plain.max_kbyte),
            net_thresh_kbyte: most(limits.plain.thresh_kbyte),
            net_exempt: Some(limits.prefixes.iter().map(Prefix::to_string).collect()),
            net_exempt_min_rate: Some(limits.exempt.min_kbit),
            net_exempt_max_rate: most(limits.exempt.max_kbit),
            net_exempt_max_kbyte: most(limits.exempt.max_kbyte),
            net_exempt_thresh_kbyte: most(limits.exempt.thresh_kbyte),
            net_rx_max_rate: most(limits.rx_max_kbit),
            net_rx_burst: most(limits.rx_burst_kib),
        }
    }
}

impl Most {
    pub(super) fn of(limit: Option<u64>) -> Self {
        limit.map_or(Self::None, Self::Number)
    }

    /// Reads a field of a spec.
    pub(super) fn read(fields: &mut Fields, field: &'static str) -> Option<Self> {
        fields.optional_with(field, "a whole number or \"none\"", Self::of_json)
    }

    fn of_json(value: &Value) -> Option<Self> {
        match value.as_str() {
            Some(NO_LIMIT) => Some(Self::None),
            _ => value.as_u64().map(Self::Number),
        }
    }
}

impl fmt::Display for Most {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str(NO_LIMIT),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl Serialize for Most {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_str(NO_LIMIT),
            Self::Number(number) => serializer.serialize_u64(*number),
        }
    }
}

impl<'de> Deserialize<'de> for Most {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::of_json(&value).ok_or_else(|| {
            let told = value.to_string();
            D::Error::invalid_value(Unexpected::Other(&told), &"a whole number or \"none\"")
        })
    }
}
