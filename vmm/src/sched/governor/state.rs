//! What a [`Governor`](super::Governor) keeps between two looks.

use std::sync::Arc;

use crate::nanos::Nanos;
use crate::sched::budget::{Budget, Grant};
use crate::sched::fair::{Fair, Rival, Turn};
use crate::sched::ledger::{Ledger, Published};
use crate::sched::place::Place;
use crate::spec::CpuLimits;

#[derive(Debug)]
pub(super) struct State {
    pub(super) limits: CpuLimits,
    pub(super) budget: Budget,
    pub(super) fair: Fair,
    pub(super) ledger: Option<Arc<Ledger>>,
    pub(super) rivals: Vec<Rival>,
    /// What was used before the guest's first instruction.
    pub(super) provisioning: Option<Nanos>,
    pub(super) consumed: Nanos,
    pub(super) looked_at: Nanos,
    /// vCPUs that run or want to.
    pub(super) busy: u32,
    /// Whether the devices' thread works.
    pub(super) serving: bool,
    pub(super) plan: Plan,
    pub(super) hold: Option<Hold>,
    pub(super) contended: bool,
    /// The processor that the last vCPU to look runs on.
    pub(super) processor: u32,
    /// vCPUs as rivals see them.
    pub(super) demand: u32,
    pub(super) idle_since: Nanos,
    pub(super) step_backs: u64,
    pub(super) stepped_back: Nanos,
}

/// What the last look granted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Processor time that was left at `at`, by the most that can have been used since the look.
    pub(super) left: Nanos,
    pub(super) at: Nanos,
    /// The next look is due then, however little is used.
    pub(super) end: Nanos,
}

/// Why nobody runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    pub(super) until: Nanos,
    /// Since when it makes room for others, if that is the reason.
    pub(super) stepped_back_since: Option<Nanos>,
}

impl Hold {
    pub(super) fn of(grant: &Grant, turn: Option<Turn>, now: Nanos) -> Option<Self> {
        match (*grant, turn) {
            (Grant::Wait { until }, _) => Some(Self {
                until,
                stepped_back_since: None,
            }),
            (_, Some(Turn::StepBack { look_at })) => Some(Self {
                until: look_at,
                stepped_back_since: Some(now),
            }),
            _ => None,
        }
    }

    pub(super) fn steps_back(&self) -> bool {
        self.stepped_back_since.is_some()
    }
}

/// The time between two looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    pub(super) lasted: Nanos,
    pub(super) end: Nanos,
    /// Processor time used in it.
    pub(super) used: Nanos,
    /// Whether nobody could use any.
    pub(super) held: bool,
}

impl Stretch {
    /// Whether vCPUs that cannot be seen have most likely slept. Those that were held have not.
    pub(super) fn is_next_to_nothing(&self) -> bool {
        !self.held && self.used.0.saturating_mul(20) < self.lasted.0
    }

    /// Processors in use, rounded up.
    pub(super) fn processors(&self) -> u32 {
        let processors = self.used.0.div_ceil(self.lasted.0.max(1));
        processors.try_into().unwrap_or(u32::MAX)
    }
}

impl State {
    /// Takes what the busy threads can have used up to `now` from what is left.
    pub(super) fn advance(&mut self, now: Nanos) {
        let busy = u64::from(self.busy) + u64::from(self.serving);
        if self.plan.left != Nanos::NEVER {
            let used = Nanos((now - self.plan.at).0.saturating_mul(busy));
            self.plan.left = self.plan.left - used;
        }
        self.plan.at = now;
    }

    /// Takes down what was used since the last look.
    pub(super) fn charge(&mut self, now: Nanos, used: Nanos) -> Stretch {
        let consumed = used - *self.provisioning.get_or_insert(used);
        let stretch = Stretch {
            lasted: now - self.looked_at,
            end: now,
            used: consumed - self.consumed,
            held: self.hold.is_some(),
        };
        // Of two who look at the same time, the later may have read the clocks first.
        self.looked_at = self.looked_at.max(now);
        self.consumed = self.consumed.max(consumed);
        stretch
    }

    /// Ends a hold, and gives it.
    pub(super) fn release(&mut self, now: Nanos) -> Option<Hold> {
        let hold = self.hold.take();
        if let Some(since) = hold.and_then(|hold| hold.stepped_back_since) {
            self.stepped_back = self.stepped_back + (now - since);
        }
        hold
    }

    pub(super) fn publish(&self, now: Nanos) {
        if let Some(ledger) = &self.ledger {
            let waiting = self.hold.is_some_and(|hold| hold.steps_back());
            ledger.publish(now, self.published(waiting));
        }
    }

    pub(super) fn published(&self, waiting: bool) -> Published {
        Published {
            demand: self.demand,
            waiting,
            place: Place {
                processor: self.processor,
                until: self.plan.end,
            },
            vtime: self.fair.vtime(),
            service: self.consumed,
        }
    }
}
