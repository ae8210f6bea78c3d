//! Whether a sliver may run: its budget and its place among the slivers of its node, looked at
//! together, and all its threads held together when it may not.
//!
//! A *look* compares what the process has used with what it was granted. Between two looks nobody
//! asks: each look says when the next is due, computed as if every busy thread used its processor
//! without pause, and an alarm gets vCPUs out of the guest by then. Time is an argument here; who
//! waits and who is kicked is the machine's business.

mod state;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::state::{Hold, Plan, State, Stretch};
use super::budget::{Budget, Grant};
use super::fair::{Claim, Decision, Fair, Own, Turn};
use super::ledger::Ledger;
use super::place::{self, Place};
use super::turnstile;
use crate::control::proto::CpuStatus;
use crate::nanos::Nanos;
use crate::spec::{CpuLimits, MilliCpu};

/// The longest time between two looks while a vCPU runs, cap or not: the quota page is then brought
/// up to date, and a rival that came is noticed.
const LONGEST: Nanos = Nanos::from_millis(50);

/// The same while the vCPUs of a sliver without a cap seem to sleep inside KVM. Shorter than the time
/// after which the ledger takes it for dead.
const LONGEST_SLEEP: Nanos = Nanos::from_millis(200);

/// The shortest stay that is granted, to each vCPU: entering the guest and leaving it may take as
/// long as a small budget lasts, and a guest that is stopped on its way in gets nowhere. What is
/// used beyond the budget is debt.
const SHORTEST: Nanos = Nanos::from_micros(150);

/// After a pause of less than this a sliver takes its place among its rivals without a look.
const SHORT_PAUSE: Nanos = Nanos::from_millis(1);

/// The next look of a sliver whose threads may sleep inside KVM, unseen, is not sooner than this if
/// they have used next to nothing since the last.
const UNSEEN_SLEEP: Nanos = Nanos::from_millis(10);

/// Whether a sliver may run, and what it has used.
#[derive(Debug)]
pub(crate) struct Governor {
    processors: u32,
    vcpus: usize,
    /// Whether vCPUs sleep inside KVM, where nobody sees it.
    sleeps_unseen: bool,
    /// When the next look is due; at once while the sliver is held.
    next_look: AtomicU64,
    /// Who is held waits on it, if there is no ledger.
    word: AtomicU32,
    state: Mutex<State>,
}

/// What came of a look.
#[derive(Debug)]
pub(crate) struct Looked {
    /// Nobody of the sliver may run before this moment, unless told.
    pub(crate) hold: Option<Nanos>,
    /// It could until now: its threads have to be stopped.
    pub(crate) stopped: bool,
    /// The processor that the vCPU that has looked shall go to.
    pub(crate) go_to: Option<u32>,
    /// What its guest is told.
    pub(crate) grant: Granted,
}

/// What a guest reads in its quota page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Granted {
    pub(crate) limits: CpuLimits,
    pub(crate) reserve: MilliCpu,
    pub(crate) consumed: Nanos,
    pub(crate) throttled: Nanos,
    /// When the budget is renewed, and what was left of it; `None` without a cap.
    pub(crate) budget: Option<(Nanos, Nanos)>,
    pub(crate) now: Nanos,
}

/// Lets a thread wait until its sliver may run again.
#[derive(Debug)]
pub(crate) struct Ticket {
    seen: u32,
    ledger: Option<Arc<Ledger>>,
}

impl Governor {
    /// The governor of a sliver with so many vCPUs that is made `now`.
    pub(crate) fn new(limits: CpuLimits, vcpus: usize, sleeps_unseen: bool, now: Nanos) -> Self {
        let state = State {
            limits,
            budget: Budget::new(limits.bandwidth(), now, Nanos::ZERO),
            fair: Fair::new(Nanos::ZERO),
            ledger: None,
            rivals: Vec::new(),
            provisioning: None,
            consumed: Nanos::ZERO,
            looked_at: now,
            busy: 0,
            serving: false,
            plan: Plan {
                left: Nanos::ZERO,
                at: now,
                end: Nanos::ZERO,
            },
            hold: None,
            contended: false,
            processor: 0,
            demand: 0,
            idle_since: now,
            step_backs: 0,
            stepped_back: Nanos::ZERO,
        };
        Self {
            processors: processors(),
            vcpus,
            sleeps_unseen,
            next_look: AtomicU64::new(0),
            word: AtomicU32::new(0),
            state: Mutex::new(state),
        }
    }

    /// Every change leaves the state sound: a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody has to look before the sliver goes on.
    pub(crate) fn is_due(&self, now: Nanos) -> bool {
        now.0 >= self.next_look.load(Ordering::SeqCst)
    }

    /// When the next look is due.
    pub(crate) fn next_look(&self) -> Nanos {
        Nanos(self.next_look.load(Ordering::SeqCst))
    }

    /// Has the next thread that comes by look.
    pub(crate) fn look_soon(&self) {
        self.next_look.store(0, Ordering::SeqCst);
    }

    /// A vCPU runs from now on, or wants to.
    pub(crate) fn busy(&self, now: Nanos) {
        let mut state = self.lock();
        state.advance(now);
        state.busy += 1;
        if !self.sleeps_unseen && state.ledger.is_some() {
            let paused = now - state.idle_since;
            if state.busy == 1 && (state.contended || paused > SHORT_PAUSE) {
                state.plan.end = Nanos::ZERO;
            }
            // Its virtual time is of the past until it has looked: others would take it for one
            // who has had nothing since.
            if state.plan.end != Nanos::ZERO && state.hold.is_none() {
                state.demand = state.busy;
                state.publish(now);
            }
        }
        self.schedule(&state, now);
    }

    /// A vCPU sleeps from now on, or stands still. `true`: a rival may wait for that, somebody has
    /// to look.
    pub(crate) fn idle(&self, now: Nanos) -> bool {
        let mut state = self.lock();
        state.advance(now);
        state.busy = state.busy.saturating_sub(1);
        state.idle_since = now;
        if state.busy == 0 && !self.sleeps_unseen {
            state.fair.idle(now);
        }
        if state.busy == 0 && state.hold.is_some() {
            // It stands still for another reason now, and looks when that has gone.
            state.release(now);
            state.plan.end = Nanos::ZERO;
        }
        if !self.sleeps_unseen && state.ledger.is_some() && state.hold.is_none() {
            let looked = state.plan.end != Nanos::ZERO;
            state.demand = if looked { state.busy } else { 0 };
            state.publish(now);
        }
        self.schedule(&state, now);
        state.contended && state.ledger.is_some()
    }

    /// The devices' thread works from now on, or no longer.
    pub(crate) fn serving(&self, works: bool, now: Nanos) {
        let mut state = self.lock();
        state.advance(now);
        state.serving = works;
        self.schedule(&state, now);
    }

    /// Compares what the process has `used` so far with what it was granted.
    pub(crate) fn look(&self, now: Nanos, used: Nanos) -> Looked {
        self.look_locked(&mut self.lock(), now, used, None)
    }

    /// The same, unless another thread has just done it: one more look would take back a stay that is
    /// granted beyond the budget. `here` is the processor of who looks, if it is a vCPU.
    pub(crate) fn look_if_due(&self, now: Nanos, used: Nanos, here: Option<u32>) -> Option<Looked> {
        let mut state = self.lock();
        self.is_due(now)
            .then(|| self.look_locked(&mut state, now, used, here))
    }

    fn look_locked(&self, state: &mut State, now: Nanos, used: Nanos, here: Option<u32>) -> Looked {
        state.processor = here.unwrap_or(state.processor);
        let stretch = state.charge(now, used);
        let grant = state.budget.look(now, state.consumed);
        state.demand = self.demand(state, &grant, &stretch);
        let decision = self.take_place(state, &grant, now);
        let turn = decision.map(|decision| decision.turn);
        let was_held = state.release(now);
        state.hold = Hold::of(&grant, turn, now);
        let steps_back = |hold: Option<Hold>| hold.is_some_and(|hold| hold.steps_back());
        state.step_backs += u64::from(steps_back(state.hold) && !steps_back(was_held));
        state.plan = self.plan(state, &grant, turn, &stretch);
        let go_to = here.and_then(|here| self.elsewhere(state, here, decision));
        state.processor = go_to.unwrap_or(state.processor);
        state.publish(now);
        self.schedule(state, now);
        if was_held.is_some() && state.hold.is_none() {
            turnstile::open(self.word_of(state.ledger.as_deref()));
        }
        Looked {
            hold: state.hold.map(|hold| hold.until),
            stopped: was_held.is_none() && state.hold.is_some(),
            go_to,
            grant: Granted {
                limits: state.limits,
                reserve: state.limits.reserve(self.processors),
                consumed: state.consumed,
                throttled: state.budget.counters().throttled,
                budget: match grant {
                    Grant::Run { left, end } => Some((end, left)),
                    Grant::Wait { until } => Some((until, Nanos::ZERO)),
                    Grant::Unlimited => None,
                },
                now,
            },
        }
    }

    /// vCPUs that want to run, as rivals shall see it.
    fn demand(&self, state: &State, grant: &Grant, stretch: &Stretch) -> u32 {
        match grant {
            Grant::Wait { .. } => 0,
            _ if !self.sleeps_unseen => state.busy,
            // While it makes room it shows nothing new.
            _ if state.hold.is_some_and(|hold| hold.steps_back()) => state.demand,
            _ if stretch.is_next_to_nothing() => 0,
            _ => stretch.processors().clamp(1, state.busy.max(1)),
        }
    }

    /// Until when nobody has to look, at most.
    fn plan(&self, state: &State, grant: &Grant, turn: Option<Turn>, stretch: &Stretch) -> Plan {
        let now = stretch.end;
        let (left, end) = match *grant {
            Grant::Run { left, end } => (left, end),
            _ => (Nanos::NEVER, Nanos::NEVER),
        };
        let end = match turn {
            Some(Turn::Run { look_at }) => end.min(look_at),
            _ => end,
        };
        let sleeps = self.sleeps_unseen && stretch.is_next_to_nothing();
        let shortest = if sleeps { UNSEEN_SLEEP } else { SHORTEST };
        let least = if sleeps { now + UNSEEN_SLEEP } else { now };
        // Each look gets it out of its sleep.
        let uncapped = matches!(grant, Grant::Unlimited);
        let longest = if sleeps && uncapped {
            LONGEST_SLEEP
        } else {
            LONGEST
        };
        Plan {
            left: left.max(Nanos(shortest.0 * u64::from(state.busy))),
            at: now,
            end: end.min(now + longest).max(least),
        }
    }

    /// The sliver's place among its rivals.
    fn take_place(&self, state: &mut State, grant: &Grant, now: Nanos) -> Option<Decision> {
        let ledger = state.ledger.as_ref()?;
        ledger.rivals(now, &mut state.rivals);
        let own = Own {
            slot: ledger.slot(),
            claim: self.claim(&state.limits),
            demand: state.demand,
            throttled: matches!(grant, Grant::Wait { .. }),
        };
        let decision = state
            .fair
            .look(now, state.consumed, &own, &state.rivals, self.processors);
        state.contended = decision.contended;
        if let Some(slot) = decision.wake {
            // What this sliver does now must be seen by who is woken.
            let waiting = matches!(decision.turn, Turn::StepBack { .. });
            ledger.publish(now, state.published(waiting));
            ledger.wake(slot);
        }
        Some(decision)
    }

    fn claim(&self, limits: &CpuLimits) -> Claim {
        Claim::of(limits, self.vcpus, self.processors)
    }

    /// Where a vCPU that looks `here` shall go, to run or to wait. Of several, nobody says where the
    /// others are.
    fn elsewhere(&self, state: &State, here: u32, decision: Option<Decision>) -> Option<u32> {
        let ledger = state.ledger.as_ref()?;
        let decision = decision.filter(|_| state.busy == 1)?;
        let there = match decision.turn {
            _ if state.hold.is_none() => place::to_run(here, &state.rivals, place::processors()),
            Turn::StepBack { look_at } => {
                let here = Place {
                    processor: here,
                    until: look_at,
                };
                let own = (state.fair.vtime(), ledger.slot());
                place::to_wait(here, own, decision.wake, &state.rivals, place::processors())
            }
            Turn::Run { .. } => here,
        };
        (there != here).then_some(there)
    }

    /// Says when the next look is due.
    fn schedule(&self, state: &State, now: Nanos) {
        let busy = u64::from(state.busy) + u64::from(state.serving);
        let next = if state.hold.is_some() {
            0
        } else if let Some(used_up) = state.plan.left.0.checked_div(busy) {
            state.plan.end.min(now + Nanos(used_up)).0
        } else if state.plan.end == Nanos::ZERO {
            0
        } else {
            u64::MAX
        };
        self.next_look.store(next, Ordering::SeqCst);
    }

    /// What threads wait on: a word that rivals know of, if there is a ledger.
    fn word_of<'a>(&'a self, ledger: Option<&'a Ledger>) -> &'a AtomicU32 {
        ledger.map_or(&self.word, Ledger::word)
    }

    /// Has every thread that is held look again, for whatever reason.
    pub(crate) fn wake(&self) {
        let ledger = self.ledger();
        turnstile::open(self.word_of(ledger.as_deref()));
    }

    /// What a thread needs to wait. To be had before it looks a last time whether it has to.
    pub(crate) fn ticket(&self) -> Ticket {
        let ledger = self.ledger();
        Ticket {
            seen: self.word_of(ledger.as_deref()).load(Ordering::SeqCst),
            ledger,
        }
    }

    /// Waits until woken, at most to `until`.
    pub(crate) fn wait(&self, ticket: &Ticket, until: Nanos) {
        turnstile::wait(self.word_of(ticket.ledger.as_deref()), ticket.seen, until);
    }

    /// Shares the node with the slivers of this ledger from now on, or with nobody.
    pub(crate) fn join(&self, ledger: Option<Ledger>) {
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.ledger, ledger.map(Arc::new));
        state.plan.end = Nanos::ZERO;
        drop(state);
        self.look_soon();
        turnstile::open(self.word_of(before.as_deref()));
    }

    /// The ledger in use.
    pub(crate) fn ledger(&self) -> Option<Arc<Ledger>> {
        self.lock().ledger.clone()
    }

    /// What it claims of the node.
    pub(crate) fn own_claim(&self) -> Claim {
        self.claim(&self.lock().limits)
    }

    /// The quotas in force.
    pub(crate) fn limits(&self) -> CpuLimits {
        self.lock().limits
    }

    /// Puts other quotas in force, unless the node cannot honour them. The caller has the sliver
    /// look.
    pub(crate) fn set_limits(&self, limits: CpuLimits, now: Nanos) -> Result<(), String> {
        // Somebody may keep the ledger locked for a while: the sliver runs on meanwhile.
        if let Some(ledger) = self.ledger() {
            let claimed = ledger.set_claim(self.claim(&limits));
            claimed.map_err(|error| error.to_string())?;
        }
        let mut state = self.lock();
        let consumed = state.consumed;
        state.budget.set(limits.bandwidth(), now, consumed);
        state.limits = limits;
        drop(state);
        self.look_soon();
        Ok(())
    }

    /// What was used before the guest's first instruction.
    pub(crate) fn provisioning(&self) -> Option<Nanos> {
        self.lock().provisioning
    }

    /// What it is granted and what has come of it, the process having `used` so much.
    pub(crate) fn status(&self, used: Nanos) -> CpuStatus {
        let state = self.lock();
        let counters = state.budget.counters();
        CpuStatus {
            limits: state.limits,
            consumed_us: state
                .provisioning
                .map_or(0, |before| (used - before).micros()),
            throttled_us: counters.throttled.micros(),
            periods: counters.periods,
            throttled_periods: counters.throttled_periods,
            overrun_us: counters.overrun.micros(),
            worst_overrun_us: counters.worst_overrun.micros(),
            debt_us: counters.debt.micros(),
            step_backs: state.step_backs,
            stepped_back_us: state.stepped_back.micros(),
            rivals: state
                .ledger
                .as_ref()
                .map(|_| state.rivals.iter().filter(|rival| rival.demand > 0).count()),
        }
    }
}

impl Claim {
    /// What a sliver with these quotas and vCPUs claims of a node with so many processors.
    pub(crate) fn of(limits: &CpuLimits, vcpus: usize, processors: u32) -> Self {
        let most = MilliCpu(1000 * vcpus as u32);
        Self {
            share: limits.share(),
            reserve: limits.reserve(processors),
            ceiling: limits.cap().map_or(most, |cap| cap.min(most)),
        }
    }
}

/// Processors that this node gives to slivers.
pub(crate) fn processors() -> u32 {
    place::processors().count().max(1)
}
