//! What each sliver of a node is due, by water-filling: reserves first, what is left by shares,
//! and nobody more than it can use.
//!
//! A share that is worth more processors than a sliver can use at once is readjusted by this
//! (surplus fair scheduling, Chandra 2000): what it cannot use goes to the others by their shares.

use crate::spec::MilliCpu;
use serde::{Deserialize, Serialize};

/// What a sliver may ask of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Weight in what nobody has reserved.
    pub share: u32,
    /// What it gets before anybody gets a share.
    pub reserve: MilliCpu,
    /// The most it can use.
    pub ceiling: MilliCpu,
}

/// The part of the node that cannot be reserved, so that whoever has no reserve still moves.
const UNRESERVED: f64 = 0.001;

/// The least rate that arithmetic is done with.
const LEAST: f64 = 1e-9;

/// Rates in processors for those who make these claims at the same time, in their order.
///
/// Each is its reserve and a part of the rest by its share, but at most its ceiling; their sum is
/// the node's processors or, if that is less, the sum of the ceilings. Reserves that the node
/// cannot honour are scaled down alike.
pub fn rates(claims: &[Claim], processors: u32, out: &mut Vec<f64>) {
    rates_of(claims, f64::from(processors), out);
}

/// The same of so many processors, or of thousands of whatever else is to be shared out.
pub fn rates_of(claims: &[Claim], capacity: f64, out: &mut Vec<f64>) {
    let filling = Filling::of_capacity(claims, capacity);
    out.clear();
    out.extend(claims.iter().map(|claim| filling.rate(claim)));
}

/// What comes of all claims together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filling {
    /// What is left of reserves.
    scale: f64,
    /// What a unit of share is worth, in processors.
    level: f64,
}

impl Filling {
    pub(super) fn of(claims: &[Claim], processors: u32) -> Self {
        Self::of_capacity(claims, f64::from(processors))
    }

    fn of_capacity(claims: &[Claim], most: f64) -> Self {
        let ceilings: f64 = claims.iter().map(ceiling).sum();
        let reserves: f64 = claims.iter().map(reserve).sum();
        let capacity = most.min(ceilings);
        let scale = (most * (1.0 - UNRESERVED) / reserves).min(1.0);
        Self {
            scale,
            level: level(claims, capacity, scale),
        }
    }

    /// The rate of one of the claims.
    pub(super) fn rate(&self, claim: &Claim) -> f64 {
        let share = f64::from(claim.share);
        (self.reserve(claim) + self.level * share).min(ceiling(claim))
    }

    /// What of it is reserved.
    pub(super) fn reserve(&self, claim: &Claim) -> f64 {
        reserve(claim) * self.scale
    }

    /// What of it is not. Never nothing, since somebody may divide by it.
    pub(super) fn spare(&self, claim: &Claim) -> f64 {
        let rate = self.rate(claim);
        (rate - self.reserve(claim)).max(rate / 100.0).max(LEAST)
    }
}

/// What a unit of share is worth.
///
/// Newton's method from below on the sum of the rates, which is concave and made of straight
/// pieces: it ends exactly, and after few steps whatever the claims are, since with each either
/// what is missing or the sum of the shares that are not yet at their ceilings is halved.
fn level(claims: &[Claim], capacity: f64, scale: f64) -> f64 {
    let mut level = 0.0;
    loop {
        let (mut given, mut shares) = (0.0, 0.0);
        for claim in claims {
            let floor = reserve(claim) * scale;
            let share = f64::from(claim.share);
            if floor + level * share < ceiling(claim) {
                given += floor;
                shares += share;
            } else {
                given += ceiling(claim);
            }
        }
        let next = (capacity - given) / shares;
        // Also ends when there are no shares left, which makes it infinite or no number.
        if !(next > level && next.is_finite()) {
            return if shares > 0.0 { level } else { f64::MAX };
        }
        level = next;
    }
}

fn ceiling(claim: &Claim) -> f64 {
    f64::from(claim.ceiling.0) / 1000.0
}

fn reserve(claim: &Claim) -> f64 {
    f64::from(claim.reserve.0.min(claim.ceiling.0)) / 1000.0
}
