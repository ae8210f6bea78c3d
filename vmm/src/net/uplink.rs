//! A sliver's part of its node's uplink, which all slivers work out alike from what they tell each
//! other in the ledger. Pure.
//!
//! Reserves come first, what is left goes by shares, and nobody is given more than it wants. The
//! node's own traffic takes part with a weight of 5 (PlanetLab); nobody announces it: it is what
//! the uplink carries and no sliver has sent. Nobody can hold it back either, so the slivers make
//! room. They leave a hundredth of the uplink free: while that stays free, the node gets all that it
//! wants; when it fills up, the node may want more, and is given more until it has its share.

#[cfg(test)]
mod tests;

use crate::nanos::Nanos;
use crate::sched::fair::{Claim, rates_of};
use crate::spec::{MilliCpu, NetLimits, UplinkSpec};
use serde::{Deserialize, Serialize};

/// A rate in kbit/s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Kbit(pub u32);

impl Kbit {
    /// The same, or the largest that there is.
    pub fn saturating(kbit: u64) -> Self {
        Self(u32::try_from(kbit).unwrap_or(u32::MAX))
    }
}

/// Weight of the node's own traffic.
pub const NODE_SHARE: u32 = 5;

/// Thousandths of the uplink that slivers use together.
const USED_PERMILLE: u64 = 990;
/// Thousandths from which on it counts as full.
const FULL_PERMILLE: f64 = 0.995;

/// What the node is given beyond what it uses: a little when it has room left, or else enough to
/// grow by.
const CALM_GROWTH: f64 = 1.05;
const FULL_GROWTH: f64 = 1.5;
/// Part of the uplink that the growth begins with.
const FULL_START: f64 = 0.01;

/// Rates are smoothed over this time: others' counters are up to a look old.
const SMOOTHED_OVER: f64 = 0.2;

/// A sliver that does not wait is taken to want this many times what it sends.
const OWN_GROWTH: f64 = 1.25;

/// What a sliver may ask of the uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetClaim {
    /// Weight in what nobody has reserved.
    pub share: u32,
    /// What is reserved.
    pub min: Kbit,
    /// The most that it can use.
    pub max: Kbit,
}

/// An uplink, and a sliver's place on it, to be told in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Stands for the name of the interface.
    pub uplink: NameHash,
    /// Stands for the name of the slice.
    pub slice: NameHash,
    /// What the uplink carries.
    pub rate: Kbit,
    /// What the sliver claims.
    pub claim: NetClaim,
}

impl Membership {
    /// That of a sliver of `slice` with these limits.
    pub fn of(uplink: &UplinkSpec, slice: &str, limits: &NetLimits) -> Self {
        let rate = Kbit::saturating(uplink.kbit());
        let classes = [limits.plain(), limits.exempt()];
        let count = if limits.prefixes().is_empty() { 1 } else { 2 };
        let most: Option<u64> = classes[..count].iter().map(|class| class.max_kbit).sum();
        Self {
            uplink: NameHash::of(uplink.interface()),
            slice: NameHash::of(slice),
            rate,
            claim: NetClaim {
                share: limits.share(),
                min: Kbit::saturating(limits.guaranteed_kbit()),
                max: most.map_or(rate, |most| rate.min(Kbit::saturating(most))),
            },
        }
    }
}

/// A name, to be compared with others'; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameHash(pub(crate) u64);

impl NameHash {
    /// FNV-1a: the same in each process, whatever its version. Who makes up a name that falls
    /// together with another's shares with it what nobody but they can reserve.
    pub fn of(name: &str) -> Self {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        Self(hash.max(1))
    }

    /// What stands for the name.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// What another sliver has published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetRival {
    /// Its slot in the ledger.
    pub slot: usize,
    /// What it claims.
    pub claim: NetClaim,
    /// What it wants now.
    pub demand: Kbit,
    /// Bytes that it has sent.
    pub tx_bytes: u64,
}

/// The sliver that looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnTraffic {
    /// What it claims; its most may be less for the moment than what it was granted.
    pub claim: NetClaim,
    /// Bytes that it has sent.
    pub tx_bytes: u64,
    /// Whether a frame has waited since the last look.
    pub waited: bool,
}

/// What comes of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// What it may send.
    pub rate: Kbit,
    /// What it wants, to be published.
    pub demand: Kbit,
}

/// A sliver's view of its uplink.
#[derive(Debug)]
pub struct Uplink {
    rate: Kbit,
    looked: Option<Looked>,
    /// What rivals had sent at the last look, by slot.
    sent: Vec<(usize, u64)>,
    /// Smoothed rates in kbit/s.
    node: f64,
    carried: f64,
    own: f64,
    /// Kept for their memory.
    claims: Vec<Claim>,
    rates: Vec<f64>,
}

#[derive(Debug, Clone, Copy)]
struct Looked {
    at: Nanos,
    carried: Option<u64>,
    own: u64,
}

impl Uplink {
    /// An uplink that was not looked at yet.
    pub fn new(rate: Kbit) -> Self {
        Self {
            rate,
            looked: None,
            sent: Vec::new(),
            node: 0.0,
            carried: 0.0,
            own: 0.0,
            claims: Vec::new(),
            rates: Vec::new(),
        }
    }

    /// Works out the sliver's part, every 20 to 50 ms while it sends. `rivals` are in the order of
    /// their slots; `carried` is the counter of bytes that the host's interface has sent, without
    /// which the node's own traffic is not seen.
    pub fn look(
        &mut self,
        own: &OwnTraffic,
        rivals: &[NetRival],
        carried: Option<u64>,
        now: Nanos,
    ) -> Part {
        self.measure(own, rivals, carried, now);
        self.claims.clear();
        self.claims.push(claim(&own.claim, own.claim.max));
        self.claims
            .extend(rivals.iter().map(|rival| claim(&rival.claim, rival.demand)));
        self.claims.push(Claim {
            share: NODE_SHARE,
            reserve: MilliCpu(0),
            ceiling: MilliCpu(self.node_wants() as u32),
        });
        let used = u64::from(self.rate.0) * USED_PERMILLE / 1000;
        // A kbit/s stands where a thousandth of a processor does.
        rates_of(&self.claims, used as f64 / 1000.0, &mut self.rates);
        let rate = self.rates.first().map_or(0.0, |rate| rate * 1000.0);
        let demand = match own.waited {
            true => own.claim.max,
            false => Kbit((self.own * OWN_GROWTH).ceil() as u32).min(own.claim.max),
        };
        Part {
            rate: Kbit((rate.round() as u32).max(1)),
            demand,
        }
    }

    /// The node's own traffic, in kbit/s, as it looks from here.
    pub fn node(&self) -> Kbit {
        Kbit(self.node.max(0.0) as u32)
    }

    fn node_wants(&self) -> f64 {
        let rate = f64::from(self.rate.0);
        let node = self.node.max(0.0);
        match self.carried >= rate * FULL_PERMILLE {
            true => node * FULL_GROWTH + rate * FULL_START,
            false => node * CALM_GROWTH,
        }
    }

    fn measure(&mut self, own: &OwnTraffic, rivals: &[NetRival], carried: Option<u64>, now: Nanos) {
        let before = self.looked.replace(Looked {
            at: now,
            carried,
            own: own.tx_bytes,
        });
        let Some(before) = before.filter(|before| before.at < now) else {
            self.note_sent(rivals);
            return;
        };
        let seconds = (now - before.at).0 as f64 / 1e9;
        let kbit = |bytes: u64| bytes as f64 / 125.0 / seconds;
        // Nobody sends more than the uplink carries, whatever it says.
        let most = (f64::from(self.rate.0) * 125.0 * seconds) as u64;
        let own_sent = own.tx_bytes.saturating_sub(before.own);
        let slivers = self.sent_since(rivals, most).saturating_add(own_sent);
        let weight = 1.0 - (-seconds / SMOOTHED_OVER).exp();
        let smooth = |value: &mut f64, measured: f64| *value += weight * (measured - *value);
        smooth(&mut self.own, kbit(own_sent));
        if let (Some(after), Some(before)) = (carried, before.carried) {
            let carried = kbit(after.saturating_sub(before));
            smooth(&mut self.carried, carried);
            // With its sign: what is counted too early now is missing at the next look.
            smooth(&mut self.node, carried - kbit(slivers));
        }
    }

    /// What those have sent together that were there at the last look, too.
    fn sent_since(&mut self, rivals: &[NetRival], most: u64) -> u64 {
        let mut before = self.sent.iter().peekable();
        let mut sum: u64 = 0;
        for rival in rivals {
            while before.next_if(|(slot, _)| *slot < rival.slot).is_some() {}
            if let Some((_, bytes)) = before.next_if(|(slot, _)| *slot == rival.slot) {
                let sent = rival.tx_bytes.saturating_sub(*bytes).min(most);
                sum = sum.saturating_add(sent);
            }
        }
        self.note_sent(rivals);
        sum
    }

    fn note_sent(&mut self, rivals: &[NetRival]) {
        self.sent.clear();
        self.sent
            .extend(rivals.iter().map(|rival| (rival.slot, rival.tx_bytes)));
    }
}

fn claim(claim: &NetClaim, wanted: Kbit) -> Claim {
    Claim {
        share: claim.share,
        reserve: MilliCpu(claim.min.0),
        ceiling: MilliCpu(wanted.min(claim.max).0),
    }
}
