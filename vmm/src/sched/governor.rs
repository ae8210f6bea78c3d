//! Whether a sliver may run: its budget and its place among the slivers of its node, looked at
//! together, and all its threads held together when it may not.
//!
//! A *look* compares what the process has used with what it was granted. Between two looks nobody
//! asks: each look says when the next is due, computed as if every busy thread used its processor
//! without pause, and an alarm gets vCPUs out of the guest by then. Time is an argument here; who
//! waits and who is kicked is the machine's business.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::thread::{futex, sched_getaffinity};

use super::budget::{Budget, Grant};
use super::fair::{Claim, Fair, Own, Rival, Turn};
use super::ledger::{Ledger, Published};
use crate::control::proto::CpuStatus;
use crate::nanos::Nanos;
use crate::spec::{CpuLimits, MilliCpu};

/// The longest time between two looks while a vCPU runs, cap or not: the quota page is then brought
/// up to date, and a rival that came is noticed.
const LONGEST: Nanos = Nanos::from_millis(50);

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

#[derive(Debug)]
struct State {
    limits: CpuLimits,
    budget: Budget,
    fair: Fair,
    ledger: Option<Arc<Ledger>>,
    rivals: Vec<Rival>,
    /// What was used before the guest's first instruction.
    provisioning: Option<Nanos>,
    consumed: Nanos,
    looked_at: Nanos,
    /// vCPUs that run or want to.
    busy: u32,
    /// Whether the devices' thread works.
    serving: bool,
    plan: Plan,
    hold: Option<Hold>,
    contended: bool,
    /// vCPUs as rivals see them.
    demand: u32,
    idle_since: Nanos,
    step_backs: u64,
    stepped_back: Nanos,
}

/// What the last look granted.
#[derive(Debug, Clone, Copy)]
struct Plan {
    /// Processor time that was left at `at`, by the most that can have been used since the look.
    left: Nanos,
    at: Nanos,
    /// The next look is due then, however little is used.
    end: Nanos,
}

/// Why nobody runs.
#[derive(Debug, Clone, Copy)]
struct Hold {
    until: Nanos,
    /// Since when it makes room for others, if that is the reason.
    stepped_back_since: Option<Nanos>,
}

/// What came of a look.
#[derive(Debug)]
pub(crate) struct Looked {
    /// Nobody of the sliver may run before this moment, unless told.
    pub(crate) hold: Option<Nanos>,
    /// It could until now: its threads have to be stopped.
    pub(crate) stopped: bool,
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
            state.demand = if state.hold.is_some() {
                state.demand
            } else {
                state.busy
            };
            state.publish(now);
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
        if state.busy == 0 && state.hold.is_some() {
            // It stands still for another reason now, and looks when that has gone.
            state.release(now);
            state.plan.end = Nanos::ZERO;
        }
        if !self.sleeps_unseen && state.ledger.is_some() && state.hold.is_none() {
            state.demand = state.busy;
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
        let mut state = self.lock();
        let state = &mut *state;
        let consumed = used - *state.provisioning.get_or_insert(used);
        let (since, spent) = (now - state.looked_at, consumed - state.consumed);
        state.looked_at = now;
        state.consumed = consumed;
        let quiet = self.sleeps_unseen && spent.0 * 10 < since.0;
        let grant = state.budget.look(now, consumed);
        let throttled_until = match grant {
            Grant::Wait { until } => Some(until),
            _ => None,
        };
        state.demand = match throttled_until {
            Some(_) => 0,
            None if self.sleeps_unseen => demand_of(spent, since, state.busy),
            None => state.busy,
        };
        let turn = self.take_place(state, now);
        let was_held = state.release(now);
        state.hold = match (throttled_until, turn) {
            (Some(until), _) => Some(Hold {
                until,
                stepped_back_since: None,
            }),
            (None, Some(Turn::StepBack { look_at })) => Some(Hold {
                until: look_at,
                stepped_back_since: Some(now),
            }),
            _ => None,
        };
        let is_back =
            |hold: Option<Hold>| hold.is_some_and(|hold| hold.stepped_back_since.is_some());
        if is_back(state.hold) && !is_back(was_held) {
            state.step_backs += 1;
        }
        let (left, mut end) = match grant {
            Grant::Run { left, end } => (left, end),
            _ => (Nanos::NEVER, Nanos::NEVER),
        };
        end = end.min(now + LONGEST);
        if let Some(Turn::Run { look_at }) = turn {
            end = end.min(look_at);
        }
        let shortest = if quiet { UNSEEN_SLEEP } else { SHORTEST };
        let left = left.max(Nanos(shortest.0 * u64::from(state.busy)));
        let end = if quiet {
            end.max(now + UNSEEN_SLEEP)
        } else {
            end
        };
        state.plan = Plan { left, at: now, end };
        state.publish(now);
        self.schedule(state, now);
        if was_held.is_some() && state.hold.is_none() {
            self.open(state);
        }
        Looked {
            hold: state.hold.map(|hold| hold.until),
            stopped: was_held.is_none() && state.hold.is_some(),
            grant: Granted {
                limits: state.limits,
                reserve: state.limits.reserve(self.processors),
                consumed,
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

    /// The sliver's place among its rivals.
    fn take_place(&self, state: &mut State, now: Nanos) -> Option<Turn> {
        let ledger = state.ledger.as_ref()?;
        ledger.rivals(now, &mut state.rivals);
        let own = Own {
            slot: ledger.slot(),
            claim: self.claim(&state.limits),
            demand: state.demand,
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
        Some(decision.turn)
    }

    fn claim(&self, limits: &CpuLimits) -> Claim {
        Claim::of(limits, self.vcpus, self.processors)
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

    /// Lets every thread that is held look again.
    fn open(&self, state: &State) {
        let word = state
            .ledger
            .as_ref()
            .map_or(&self.word, |ledger| ledger.word());
        word.fetch_add(1, Ordering::SeqCst);
        let _ = futex::wake(word, futex::Flags::empty(), i32::MAX as u32);
    }

    /// Has every thread that is held look again, for whatever reason.
    pub(crate) fn wake(&self) {
        self.open(&self.lock());
    }

    /// What a thread needs to wait. To be had before it looks a last time whether it has to.
    pub(crate) fn ticket(&self) -> Ticket {
        let ledger = self.lock().ledger.clone();
        let word = ledger.as_ref().map_or(&self.word, |ledger| ledger.word());
        Ticket {
            seen: word.load(Ordering::SeqCst),
            ledger,
        }
    }

    /// Waits until woken, at most to `until`.
    pub(crate) fn wait(&self, ticket: &Ticket, until: Nanos) {
        let word = ticket
            .ledger
            .as_ref()
            .map_or(&self.word, |ledger| ledger.word());
        let until = futex::Timespec {
            tv_sec: (until.0 / 1_000_000_000).try_into().unwrap_or(i64::MAX),
            tv_nsec: (until.0 % 1_000_000_000) as _,
        };
        // Woken, late, interrupted or told that the word has changed: the caller looks again.
        let _ = futex::wait_bitset(
            word,
            futex::Flags::empty(),
            ticket.seen,
            Some(&until),
            std::num::NonZeroU32::MAX,
        );
    }

    /// Shares the node with the slivers of this ledger from now on, or with nobody.
    pub(crate) fn join(&self, ledger: Option<Ledger>) {
        let mut state = self.lock();
        self.open(&state);
        state.ledger = ledger.map(Arc::new);
        state.plan.end = Nanos::ZERO;
        drop(state);
        self.look_soon();
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
        let mut state = self.lock();
        if let Some(ledger) = &state.ledger {
            let claimed = ledger.set_claim(self.claim(&limits));
            claimed.map_err(|error| error.to_string())?;
        }
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

impl State {
    /// Takes what the busy threads can have used up to `now` from what is left.
    fn advance(&mut self, now: Nanos) {
        let busy = u64::from(self.busy) + u64::from(self.serving);
        if self.plan.left != Nanos::NEVER {
            let used = Nanos((now - self.plan.at).0.saturating_mul(busy));
            self.plan.left = self.plan.left - used;
        }
        self.plan.at = now;
    }

    /// Ends a hold, and gives it.
    fn release(&mut self, now: Nanos) -> Option<Hold> {
        let hold = self.hold.take();
        if let Some(since) = hold.and_then(|hold| hold.stepped_back_since) {
            self.stepped_back = self.stepped_back + (now - since);
        }
        hold
    }

    fn publish(&self, now: Nanos) {
        if let Some(ledger) = &self.ledger {
            let waiting = self
                .hold
                .is_some_and(|hold| hold.stepped_back_since.is_some());
            ledger.publish(now, self.published(waiting));
        }
    }

    fn published(&self, waiting: bool) -> Published {
        Published {
            demand: self.demand,
            waiting,
            vtime: self.fair.vtime(),
            service: self.consumed,
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

/// How many vCPUs want to run, from what was spent.
fn demand_of(spent: Nanos, since: Nanos, vcpus: u32) -> u32 {
    const NEXT_TO_NOTHING: u64 = 20;
    if spent.0 * NEXT_TO_NOTHING < since.0 {
        return 0;
    }
    (spent.0.div_ceil(since.0.max(1)) as u32).clamp(1, vcpus.max(1))
}

/// Processors that this node gives to slivers: those on which this process may run. A control group's
/// quota does not count, it is the sliver's own.
pub(crate) fn processors() -> u32 {
    static COUNT: OnceLock<u32> = OnceLock::new();
    *COUNT.get_or_init(|| sched_getaffinity(None).map_or(1, |set| set.count().max(1)))
}
