//! A simulated sliver: its budget, its part in the fairness, and what its governor makes of them.

use std::ops::Range;

use super::host::Thread;
use super::workload::Group;
use crate::nanos::Nanos;
use crate::sched::budget::{Budget, Grant};
use crate::sched::fair::{Claim, Decision, Fair, Own, Rival, Turn};
use crate::sched::place::Place;

/// As in the governor: the longest time between two looks, the shortest stay that is granted, and
/// the pause after which a sliver takes its place again.
const LONGEST: Nanos = Nanos::from_millis(50);
const SHORTEST: Nanos = Nanos::from_micros(150);
const SHORT_PAUSE: Nanos = Nanos::from_millis(1);

#[derive(Debug)]
pub(super) struct Sliver {
    pub(super) group: usize,
    pub(super) threads: Range<Thread>,
    pub(super) budget: Budget,
    pub(super) fair: Fair,
    pub(super) consumed: Nanos,
    /// Tells an alarm from those of former plans.
    pub(super) plan: u64,
    /// Tells a hold from others.
    pub(super) holds: u64,
    /// A look is due as soon as one of its threads runs.
    pub(super) is_due: bool,
    limits: crate::spec::CpuLimits,
    claim: Claim,
    busy: u32,
    demand: u32,
    hold: Option<Hold>,
    contended: bool,
    idle_since: Nanos,
    /// What is left at a moment if all vCPUs that want to have run since the look.
    left: Nanos,
    at: Nanos,
    end: Nanos,
}

#[derive(Debug, Clone, Copy)]
struct Hold {
    until: Nanos,
    stepped_back: bool,
}

impl Sliver {
    pub(super) fn new(group: usize, of: &Group, threads: Range<Thread>, processors: u32) -> Self {
        Self {
            group,
            budget: Budget::new(of.limits.bandwidth(), of.start, Nanos::ZERO),
            fair: Fair::new(Nanos::ZERO),
            consumed: Nanos::ZERO,
            plan: 0,
            holds: 0,
            is_due: false,
            limits: of.limits,
            claim: Claim::of(&of.limits, threads.len(), processors),
            threads,
            busy: 0,
            demand: 0,
            hold: None,
            contended: false,
            idle_since: Nanos::ZERO,
            left: Nanos::ZERO,
            at: Nanos::ZERO,
            end: Nanos::ZERO,
        }
    }

    /// It is started.
    pub(super) fn begin(&mut self, now: Nanos) {
        self.budget = Budget::new(self.limits.bandwidth(), now, Nanos::ZERO);
    }

    pub(super) fn is_held(&self) -> bool {
        self.hold.is_some()
    }

    pub(super) fn stepped_back(&self) -> bool {
        self.hold.is_some_and(|hold| hold.stepped_back)
    }

    pub(super) fn held_until(&self) -> Option<Nanos> {
        self.hold.map(|hold| hold.until)
    }

    /// Processors that it wants while it makes room for others.
    pub(super) fn demand_held_back(&self) -> u32 {
        if self.stepped_back() { self.busy } else { 0 }
    }

    /// Whether it wants to run and its budget lets it.
    pub(super) fn wants_more(&self) -> bool {
        self.busy > 0 && self.hold.is_none_or(|hold| hold.stepped_back)
    }

    /// One more vCPU wants to run; tells whether the sliver has to look before.
    pub(super) fn busy(&mut self, now: Nanos) -> bool {
        self.advance(now);
        self.busy += 1;
        let paused = now - self.idle_since;
        let looks = self.busy == 1 && (self.contended || paused > SHORT_PAUSE);
        if self.hold.is_none() {
            self.demand = self.busy;
        }
        looks || now >= self.end || self.left == Nanos::ZERO
    }

    /// One vCPU less wants to run; tells whether somebody may wait for that.
    pub(super) fn idle(&mut self, now: Nanos) -> bool {
        self.advance(now);
        self.busy -= 1;
        self.idle_since = now;
        self.demand = self.busy;
        if self.busy == 0 {
            self.fair.idle(now);
        }
        self.contended
    }

    fn advance(&mut self, now: Nanos) {
        if self.left != Nanos::NEVER {
            let used = (now - self.at).0.saturating_mul(u64::from(self.busy));
            self.left = self.left - Nanos(used);
        }
        self.at = now;
    }

    /// It as a look is told of it.
    pub(super) fn own(&self, slot: usize, has_budget: bool) -> Own {
        Own {
            slot,
            claim: self.claim,
            demand: if has_budget { self.busy } else { 0 },
            throttled: !has_budget,
        }
    }

    /// Does what a look has come to.
    pub(super) fn heed(&mut self, now: Nanos, grant: Grant, decision: Decision, demand: u32) {
        self.is_due = false;
        self.contended = decision.contended;
        self.demand = demand;
        self.holds += 1;
        self.hold = match (grant, decision.turn) {
            _ if self.busy == 0 => None,
            (Grant::Wait { until }, _) => Some(Hold {
                until,
                stepped_back: false,
            }),
            (_, Turn::StepBack { look_at }) => Some(Hold {
                until: look_at,
                stepped_back: true,
            }),
            _ => None,
        };
        let (left, end) = match grant {
            Grant::Run { left, end } => (left, end),
            _ => (Nanos::NEVER, Nanos::NEVER),
        };
        self.left = left.max(Nanos(SHORTEST.0 * u64::from(self.busy)));
        self.at = now;
        self.end = end.min(now + LONGEST);
        if let Turn::Run { look_at } = decision.turn {
            self.end = self.end.min(look_at);
        }
        if self.busy == 0 {
            // Whoever wakes looks first.
            self.end = now;
        }
    }

    /// Makes former alarms void.
    pub(super) fn replan(&mut self) -> u64 {
        self.plan += 1;
        self.plan
    }

    /// When the next look is due, if the sliver runs.
    pub(super) fn next_look(&self, now: Nanos) -> Option<Nanos> {
        if self.hold.is_some() || self.busy == 0 {
            return None;
        }
        let used_up = now + Nanos(self.left.0 / u64::from(self.busy));
        Some(self.end.min(used_up).max(now))
    }

    /// What others see of it.
    pub(super) fn published(&self, slot: usize) -> Rival {
        Rival {
            slot,
            claim: self.claim,
            demand: self.demand,
            waiting: self.stepped_back(),
            place: Place::default(),
            vtime: self.fair.vtime(),
        }
    }
}
