//! Holds a sliver's traffic to its rates and to its daily allowance. Pure.
//!
//! What is sent is of one of two classes, by its destination: plain, or to an exempt prefix. Each
//! has a bucket whose rate is the lesser of the class's own and what its allowance leaves, but never
//! less than the class's minimum. Both draw on one more bucket, with what the uplink has for the
//! sliver. What is received has a bucket of its own, and no allowance: the sliver does not decide
//! what it is sent.

mod allowance;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use super::bucket::Bucket;
use super::prefix::PrefixSet;
use crate::nanos::Nanos;
use crate::spec::{Class, NetLimits};
use allowance::Allowance;
pub use allowance::UsedToday;

/// How often rates that pass with time are found anew.
const REFRESH_EVERY: Nanos = Nanos::from_millis(50);

/// How often somebody looks whose allowance is gone: it may be raised, or the day may end.
const LOOK_AGAIN: Nanos = Nanos::from_millis(1000);

/// Who waits, waits for as much as comes in this time, or for a part of the bucket if that is less:
/// to wake up costs more than to send a frame.
const TOGETHER: Nanos = Nanos::from_micros(200);

/// That part.
const PART: u64 = 4;

/// For so long one class may keep the other from going.
const LONGEST_IN_THE_WAY: Nanos = Nanos::from_millis(50);

/// The bytes that a second brings at a kbit/s.
const KBIT: u64 = 125;

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the sliver.
    Out,
    /// To it.
    In,
}

/// What is sent, by what it counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Most of it.
    Plain,
    /// To exempt prefixes.
    Exempt,
    /// What keeps the link going and does not leave it: no allowance, but the rate of plain traffic.
    Link,
}

/// Limits of what has none of its own.
const UNLIMITED: Class = Class {
    min_kbit: 0,
    max_kbit: None,
    max_kbyte: None,
    thresh_kbyte: None,
};

/// What was done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShaperCounters {
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// How often a frame had to wait.
    pub tx_waits: u64,
    /// For how long, in all.
    pub tx_waited: Nanos,
    /// How often the tap was left alone.
    pub rx_waits: u64,
}

/// What a sliver sends, as far as its uplink is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sending {
    /// Bytes sent so far.
    pub tx_bytes: u64,
    /// How often a frame had to wait so far.
    pub waits: u64,
    /// Whether one does now.
    pub waits_now: bool,
    /// What the sliver's own limits allow at present, in kbit/s, if they limit it.
    pub most_kbit: Option<u64>,
}

/// The shaper of a sliver.
#[derive(Debug)]
pub struct Shaper {
    limits: NetLimits,
    prefixes: PrefixSet,
    plain: Lane,
    exempt: Lane,
    rx: Option<Bucket>,
    rx_waits: bool,
    /// What the uplink has for the sliver, in kbit/s.
    uplink_kbit: Option<u64>,
    uplink: Option<Bucket>,
    /// Nanoseconds since 1970 when the monotonic clock showed 0.
    epoch: Nanos,
    refresh_at: Nanos,
    counters: ShaperCounters,
}

/// What one class of traffic has.
#[derive(Debug)]
struct Lane {
    bucket: Option<Bucket>,
    allowance: Allowance,
    waits_since: Option<Nanos>,
}

impl Shaper {
    /// A shaper whose sliver has used so much today already. `epoch` is nanoseconds since 1970 when
    /// the monotonic clock showed 0.
    pub fn new(limits: &NetLimits, used: UsedToday, now: Nanos, epoch: Nanos) -> Self {
        let lane = |bytes| Lane {
            bucket: None,
            allowance: Allowance::new(used.day, bytes),
            waits_since: None,
        };
        let mut shaper = Self {
            limits: limits.clone(),
            prefixes: limits.exempt_prefixes(),
            plain: lane(used.bytes),
            exempt: lane(used.exempt_bytes),
            rx: None,
            rx_waits: false,
            uplink_kbit: None,
            uplink: None,
            epoch,
            refresh_at: Nanos::ZERO,
            counters: ShaperCounters::default(),
        };
        shaper.refresh(now);
        shaper
    }

    /// Other limits, from now on. What was used today stays used.
    pub fn set_limits(&mut self, limits: &NetLimits, now: Nanos) {
        self.limits = limits.clone();
        self.prefixes = limits.exempt_prefixes();
        self.refresh(now);
    }

    /// The limits in force.
    pub fn limits(&self) -> &NetLimits {
        &self.limits
    }

    /// What the uplink has for the sliver from now on, in kbit/s.
    pub fn set_uplink_rate(&mut self, kbit: Option<u64>, now: Nanos) {
        self.uplink_kbit = kbit;
        self.refresh(now);
    }

    /// The time of day, as for [`Shaper::new`].
    pub fn set_epoch(&mut self, epoch: Nanos) {
        self.epoch = epoch;
    }

    /// Whether what goes to an address, or comes from it, is exempt.
    pub fn is_exempt(&self, address: IpAddr) -> bool {
        self.prefixes.contains(address)
    }

    /// Whether so many bytes may be sent now; if not, when.
    pub fn check(&mut self, bytes: u64, kind: Traffic, now: Nanos) -> Result<(), Nanos> {
        if now >= self.refresh_at {
            self.refresh(now);
        }
        let (lane, class) = match kind {
            Traffic::Exempt => (&mut self.exempt, self.limits.exempt()),
            Traffic::Plain => (&mut self.plain, self.limits.plain()),
            // It does not leave the link: no allowance is used.
            Traffic::Link => (&mut self.plain, &UNLIMITED),
        };
        let uplink = self.uplink.as_mut();
        let until = match (lane.check(bytes, class, now), check(uplink, bytes, now)) {
            (Err(one), Err(other)) => Err(one.max(other)),
            (one, other) => one.and(other),
        };
        if until.is_err() && lane.waits_since.is_none() {
            lane.waits_since = Some(now);
            self.counters.tx_waits += 1;
        }
        until
    }

    /// Whether what has to wait would keep what is of the other class from going for long: the two
    /// come in one queue.
    pub fn is_in_the_way(&self, bytes: u64, kind: Traffic, now: Nanos) -> bool {
        let (lane, class) = match kind {
            Traffic::Exempt => (&self.exempt, self.limits.exempt()),
            Traffic::Plain => (&self.plain, self.limits.plain()),
            Traffic::Link => return false,
        };
        let waits_long = |bucket: &Bucket| bucket.ready_at(bytes, now) > now + LONGEST_IN_THE_WAY;
        !self.limits.prefixes().is_empty()
            && (lane.is_used_up(bytes, class) || lane.bucket.as_ref().is_some_and(waits_long))
    }

    /// Why what has to wait does, if that is a cap of the sliver's own.
    pub fn cap(&self, bytes: u64, kind: Traffic, now: Nanos) -> Option<&'static str> {
        let (lane, class) = match kind {
            Traffic::Exempt => (&self.exempt, self.limits.exempt()),
            Traffic::Plain | Traffic::Link => (&self.plain, self.limits.plain()),
        };
        let is_short = |bucket: &Bucket| bucket.ready_at(bytes, now) > now;
        if lane.is_used_up(bytes, class) {
            Some("the day's allowance is used up")
        } else if !lane.bucket.as_ref().is_some_and(is_short) {
            None
        } else if lane.is_beyond_threshold(class) {
            Some("what is left of the day's allowance is spread over the rest of the day")
        } else {
            Some("the rate is at its limit")
        }
    }

    /// Nobody waits any more for what has been asked for.
    pub fn stop_waiting(&mut self) {
        self.plain.waits_since = None;
        self.exempt.waits_since = None;
    }

    /// Charges what was sent.
    pub fn charge_sent(&mut self, bytes: u64, kind: Traffic, now: Nanos) {
        self.counters.tx_bytes += bytes;
        let (lane, class) = match kind {
            Traffic::Exempt => (&mut self.exempt, Some(self.limits.exempt())),
            Traffic::Plain => (&mut self.plain, Some(self.limits.plain())),
            Traffic::Link => (&mut self.plain, None),
        };
        if class.is_some_and(|class| lane.allowance.use_up(bytes, class)) {
            // From here on the rate is another one.
            self.refresh_at = now;
        }
        for bucket in lane.bucket.iter_mut().chain(&mut self.uplink) {
            bucket.take(bytes);
        }
        if let Some(since) = lane.waits_since.take() {
            self.counters.tx_waited = self.counters.tx_waited + (now - since);
        }
    }

    /// Whether a frame may be taken from the tap now; if not, when.
    pub fn may_receive(&mut self, now: Nanos) -> Result<(), Nanos> {
        // How long the next is shows when it has been read: any debt is paid first.
        let until = check(self.rx.as_mut(), 1, now);
        self.counters.rx_waits += u64::from(until.is_err() && !self.rx_waits);
        self.rx_waits = until.is_err();
        until
    }

    /// Charges what was received.
    pub fn charge_received(&mut self, bytes: u64) {
        self.counters.rx_bytes += bytes;
        if let Some(bucket) = &mut self.rx {
            bucket.take(bytes);
        }
    }

    /// Finds rates anew.
    fn refresh(&mut self, now: Nanos) {
        self.refresh_at = now + REFRESH_EVERY;
        let wall = self.epoch + now;
        let limits = &self.limits;
        for (lane, class) in [
            (&mut self.plain, limits.plain()),
            (&mut self.exempt, limits.exempt()),
        ] {
            let rate = lane.rate(class, wall);
            let kbit = rate.map_or(0, |rate| rate / KBIT);
            set(&mut lane.bucket, rate, limits.burst_bytes(kbit), now);
        }
        let uplink = self.uplink_kbit;
        let uplink = uplink.map(|kbit| kbit.max(limits.guaranteed_kbit()));
        let burst = limits.burst_bytes(uplink.unwrap_or(0));
        set(&mut self.uplink, uplink.map(|kbit| kbit * KBIT), burst, now);
        let rx = limits.rx_max_kbit();
        let burst = limits.rx_burst_bytes(rx.unwrap_or(0));
        set(&mut self.rx, rx.map(|kbit| kbit * KBIT), burst, now);
    }

    /// What may be sent at present, in kbit/s, if that is limited.
    pub fn kbit(&self) -> Option<u64> {
        let buckets = self.plain.bucket.iter().chain(&self.uplink);
        buckets.map(|bucket| bucket.rate() / KBIT).min()
    }

    /// What is sent, as far as the uplink is concerned.
    pub fn sending(&self) -> Sending {
        let lanes = [&self.plain, &self.exempt];
        let used = if self.limits.prefixes().is_empty() {
            1
        } else {
            2
        };
        let rates = lanes[..used].iter();
        let rates = rates.map(|lane| lane.bucket.as_ref().map(|bucket| bucket.rate() / KBIT));
        Sending {
            tx_bytes: self.counters.tx_bytes,
            waits: self.counters.tx_waits,
            waits_now: lanes.iter().any(|lane| lane.waits_since.is_some()),
            most_kbit: rates.sum(),
        }
    }

    /// What was used of today's allowance.
    pub fn used_today(&self) -> UsedToday {
        UsedToday {
            day: self.plain.allowance.day(),
            bytes: self.plain.allowance.used(),
            exempt_bytes: self.exempt.allowance.used(),
        }
    }

    /// Bytes that may still be sent today, if that is limited.
    pub fn left_today(&self) -> Option<u64> {
        self.plain.allowance.left(self.limits.plain())
    }

    /// What was done so far.
    pub fn counters(&self) -> ShaperCounters {
        self.counters
    }
}

impl Lane {
    /// Whether so many bytes may be sent now; if not, when.
    fn check(&mut self, bytes: u64, class: &Class, now: Nanos) -> Result<(), Nanos> {
        if self.is_used_up(bytes, class) {
            return Err(now + LOOK_AGAIN);
        }
        check(self.bucket.as_mut(), bytes, now)
    }

    /// Whether the day's allowance has no room for so many bytes.
    fn is_used_up(&self, bytes: u64, class: &Class) -> bool {
        // Who has a minimum keeps it when the allowance is gone.
        let left = self.allowance.left(class).filter(|_| class.min_kbit == 0);
        left.is_some_and(|left| left < bytes)
    }

    /// Whether the rate is that which the rest of the allowance leaves.
    fn is_beyond_threshold(&self, class: &Class) -> bool {
        let threshold = class.threshold_bytes();
        threshold.is_some_and(|threshold| self.allowance.used() >= threshold)
    }

    /// Bytes in a second that may be sent, if that is limited.
    fn rate(&mut self, class: &Class, wall: Nanos) -> Option<u64> {
        let allowed = self.allowance.rate(class, wall);
        let own = class.max_kbit.map(|kbit| kbit * KBIT);
        let rate = own.into_iter().chain(allowed).min()?;
        Some(rate.max(class.min_kbit * KBIT))
    }
}

fn check(bucket: Option<&mut Bucket>, bytes: u64, now: Nanos) -> Result<(), Nanos> {
    let Some(bucket) = bucket else {
        return Ok(());
    };
    bucket.check(bytes, now).map_err(|until| {
        let together = bucket.brought_in(TOGETHER).min(bucket.capacity() / PART);
        // The rate may be higher soon.
        until
            .max(bucket.ready_at(together, now))
            .min(now + REFRESH_EVERY)
    })
}

/// Gives a bucket its rate, or does away with it.
fn set(bucket: &mut Option<Bucket>, rate: Option<u64>, burst: u64, now: Nanos) {
    match (bucket.as_mut(), rate) {
        (_, None) => *bucket = None,
        (Some(bucket), Some(rate)) => bucket.set(rate, burst, now),
        (None, Some(rate)) => *bucket = Some(Bucket::new(rate, burst)),
    }
}
