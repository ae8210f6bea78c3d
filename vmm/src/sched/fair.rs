//! Which of the slivers of a node run when not all can: start-time fair queueing (Goyal 1996) on
//! several processors, at the rates of [`rates()`].
//!
//! Each sliver has a virtual time, which grows by its service divided by its rate; those with the
//! least run. Nobody is in charge: each sliver looks at the others' last published state and
//! decides for itself to run or to step back, and wakes whoever's turn it is. States that are a
//! little old only cost order, not shares: service is charged in full whenever it was used.

mod rates;
#[cfg(test)]
mod tests;

use crate::nanos::Nanos;
use crate::sched::place::Place;
use crate::spec::MilliCpu;

use rates::Filling;
pub use rates::{Claim, rates, rates_of};

/// What another sliver of the node has published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rival {
    /// Its number in the ledger.
    pub slot: usize,
    /// What it may ask.
    pub claim: Claim,
    /// Processors that it wants now; 0 if it is idle or throttled.
    pub demand: u32,
    /// Whether it has stepped back.
    pub waiting: bool,
    /// Where it runs, as it says.
    pub place: Place,
    /// Its virtual time.
    pub vtime: u64,
}

/// The sliver that looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Own {
    /// Its number in the ledger.
    pub slot: usize,
    /// What it may ask.
    pub claim: Claim,
    /// Processors that it wants now; 0 if it goes idle or is throttled.
    pub demand: u32,
    /// Whether its budget keeps it from running.
    pub throttled: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Run, and look again at that moment at the latest.
    Run {
        /// The moment.
        look_at: Nanos,
    },
    /// Wait until woken, and look again at that moment at the latest.
    StepBack {
        /// The moment.
        look_at: Nanos,
    },
}

/// The answer to a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What to do.
    pub turn: Turn,
    /// The rival, by its slot, that has stepped back and may run now: to be woken once this
    /// sliver's own state has been published.
    pub wake: Option<usize>,
    /// Whether more processors are wanted than there are.
    pub contended: bool,
}

/// Service after which whoever is ahead steps back, for each processor it wants.
const QUANTUM: Nanos = Nanos::from_millis(10);
/// How much of a quantum is not worth another look.
const SCRAP: Nanos = Nanos::from_micros(500);
/// When to look again if there is enough for all, and one more.
const CALM: Nanos = Nanos::from_millis(50);
/// The longest wait without a look; what is older than 500 ms counts for nothing in the ledger.
const LONGEST_WAIT: Nanos = Nanos::from_millis(200);
/// How long processors may be free before somebody takes them whose turn it is not.
const PATIENCE: Nanos = Nanos::from_millis(1);
/// Quanta that a sliver can be behind the last of the others, and ahead of their mean, its own.
const MOST_CREDIT: f64 = 3.0;
const MOST_DEBT: f64 = 100.0;
/// Quanta of reserved time that are kept for a sliver that waits.
const MOST_RESERVED: f64 = 3.0;
/// Nobody is further ahead of the clock than this, in its virtual time: a day.
const HORIZON: Nanos = Nanos::from_millis(86_400_000);

/// A sliver's part in the fairness of its node.
#[derive(Debug)]
pub struct Fair {
    vtime: u64,
    /// Rate at the last look at which it passes.
    rate: f64,
    /// Reserved processor time that it has not used since it wants to run, and the rate at which
    /// there is more.
    reserved: f64,
    reserve: f64,
    looked: Nanos,
    consumed: Nanos,
    state: State,
    /// Why it did not want processors when it last did not.
    absence: Absence,
    /// Whether its share would be worth more than its cap.
    due_its_cap: bool,
    /// Kept for their memory: claims of all who want to run, this sliver's first, and their rates.
    claims: Vec<Claim>,
    rates: Vec<f64>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Idle,
    /// It runs; the quantum began when so much had been consumed.
    Running {
        quantum_from: Nanos,
    },
    /// It has stepped back.
    Waiting {
        /// Since when it is its turn, if it is.
        due: Option<Nanos>,
        /// Since when processors have been free, if they are.
        free: Option<Nanos>,
    },
}

/// Why a sliver does not want processors.
#[derive(Debug, Clone, Copy)]
enum Absence {
    /// It never has.
    New,
    /// It has nothing to do.
    Asleep { since: Nanos },
    /// Its budget does not let it.
    Throttled,
}

/// What a look shows of those rivals who want to run.
#[derive(Debug, Clone, Copy)]
struct Scene {
    /// Their least virtual time.
    least: Option<u64>,
    /// The longest of their quanta, in virtual time.
    longest: f64,
    /// Sum of their rates, and of their virtual times by their rates.
    rates: f64,
    weighted: f64,
    /// Processors wanted by those who have not stepped back.
    active: u64,
    /// Processors wanted by all of them.
    wanted: u64,
    /// The first of those who have stepped back.
    next: Option<(u64, usize)>,
}

impl Fair {
    /// For a sliver that does not run yet and has consumed so much.
    pub fn new(consumed: Nanos) -> Self {
        Self {
            vtime: 0,
            rate: 1.0,
            reserved: 0.0,
            reserve: 0.0,
            looked: Nanos::ZERO,
            consumed,
            state: State::Idle,
            absence: Absence::New,
            due_its_cap: false,
            claims: Vec::new(),
            rates: Vec::new(),
        }
    }

    /// The virtual time, to be published.
    pub fn vtime(&self) -> u64 {
        self.vtime
    }

    /// Charges what was consumed since the last look and decides who runs.
    ///
    /// To be called when the sliver begins to want processors, when it no longer does (with no
    /// demand), when it is woken, and at the moment that the last look told.
    pub fn look(
        &mut self,
        now: Nanos,
        consumed: Nanos,
        own: &Own,
        rivals: &[Rival],
        processors: u32,
    ) -> Decision {
        let service = consumed - self.consumed;
        self.consumed = self.consumed.max(consumed);
        let rate = self.refresh_rates(own, rivals, processors);
        if own.demand == 0 {
            self.charge(now, service, self.rate);
            self.leave(now, own.throttled);
            let scene = self.survey(now, rivals);
            return Decision {
                turn: Turn::Run {
                    look_at: Nanos::NEVER,
                },
                wake: scene.wake(0, processors),
                contended: scene.wanted > u64::from(processors),
            };
        }
        // Who wants to run may have changed at any moment since the last look.
        self.charge(now, service, (self.rate + rate) / 2.0);
        let scene = self.survey(now, rivals);
        let wanted = scene.wanted + u64::from(own.demand);
        let contended = wanted > u64::from(processors);
        // Whoever comes next compares itself with what was published last.
        let full = wanted >= u64::from(processors);
        let joins = matches!(self.state, State::Idle);
        // Who has slept off all that it was ahead need not wait for its first quantum: it pays for
        // it afterwards.
        let slept = joins && !matches!(self.absence, Absence::Throttled);
        let rested = slept && self.vtime <= scene.mean();
        self.place(now, rate, own.demand, contended, &scene);
        let ahead = match rested {
            true => 0,
            false => self.ahead(now, own.slot, rivals, joins),
        };
        let turn = self.decide(now, own.demand, ahead, &scene, processors);
        let taken = match turn {
            Turn::Run { .. } => own.demand,
            Turn::StepBack { .. } => 0,
        };
        let turn = match turn {
            Turn::Run { .. } if !full => Turn::Run {
                look_at: now + CALM,
            },
            turn => turn,
        };
        Decision {
            turn,
            wake: scene.wake(taken, processors),
            contended,
        }
    }

    /// Finds the rates that virtual times pass by, of all who want to run; returns the sliver's own.
    ///
    /// A cap that is less than its share of the node does not count in that: the budget sees to
    /// it. A sliver that is due all of its cap never makes room for others, since budget that it
    /// has not used by the end of a period is lost.
    fn refresh_rates(&mut self, own: &Own, rivals: &[Rival], processors: u32) -> f64 {
        let claim = wanted(own.claim, own.demand);
        self.claims.clear();
        self.claims.push(claim);
        let demanding = rivals.iter().filter(|rival| rival.demand > 0);
        self.claims
            .extend(demanding.map(|rival| wanted(rival.claim, rival.demand)));
        let filling = Filling::of(&self.claims, processors);
        self.rates.clear();
        self.rates
            .extend(self.claims.iter().map(|claim| filling.spare(claim)));
        let uncapped = Claim {
            ceiling: MilliCpu(u32::MAX),
            ..own.claim
        };
        let uncapped = wanted(uncapped, own.demand);
        self.due_its_cap = filling.rate(&uncapped) > filling.rate(&claim);
        if own.demand > 0 {
            self.reserve = filling.reserve(&claim);
        }
        filling.spare(&uncapped)
    }

    /// Charges service: what is reserved first, as far as its time has come, and what is beyond
    /// that to the virtual time.
    fn charge(&mut self, now: Nanos, service: Nanos, rate: f64) {
        self.earn(now);
        let service = service.0 as f64;
        let reserved = self.reserved.min(service);
        self.reserved -= reserved;
        let passed = (service - reserved) / rate;
        self.vtime = self.vtime.saturating_add(passed as u64);
    }

    /// The sliver no longer wants processors. The next look, if it is not for that, is that of one
    /// who comes.
    pub fn idle(&mut self, now: Nanos) {
        self.earn(now);
        self.leave(now, false);
    }

    fn leave(&mut self, now: Nanos, throttled: bool) {
        self.absence = match (self.state, self.absence) {
            (State::Idle, Absence::Asleep { since }) => Absence::Asleep { since },
            _ if throttled => Absence::Throttled,
            _ => Absence::Asleep { since: now },
        };
        self.state = State::Idle;
    }

    /// Reserved time comes while the sliver wants to run.
    fn earn(&mut self, now: Nanos) {
        if !matches!(self.state, State::Idle) {
            let earned = (now - self.looked).0 as f64 * self.reserve;
            let most = MOST_RESERVED * QUANTUM.0 as f64;
            self.reserved = self.reserved.max(most.min(self.reserved + earned));
        }
        self.looked = now;
    }

    fn survey(&self, now: Nanos, rivals: &[Rival]) -> Scene {
        let mut scene = Scene {
            least: None,
            longest: 0.0,
            rates: 0.0,
            weighted: 0.0,
            active: 0,
            wanted: 0,
            next: None,
        };
        let demanding = rivals.iter().filter(|rival| rival.demand > 0);
        for (rival, rate) in demanding.zip(&self.rates[1..]) {
            let vtime = believable(rival.vtime, now);
            scene.least = Some(scene.least.map_or(vtime, |least| least.min(vtime)));
            scene.longest = scene.longest.max(in_vtime(rival.demand, *rate));
            scene.rates += rate;
            scene.weighted += vtime as f64 * rate;
            scene.wanted += u64::from(rival.demand);
            if rival.waiting {
                let place = (vtime, rival.slot);
                scene.next = Some(scene.next.map_or(place, |next| next.min(place)));
            } else {
                scene.active += u64::from(rival.demand);
            }
        }
        scene
    }

    /// Moves the virtual time to where it is comparable with the others'.
    fn place(&mut self, now: Nanos, rate: f64, demand: u32, contended: bool, scene: &Scene) {
        let joins = matches!(self.state, State::Idle);
        let least = match scene.least {
            // Alone: virtual times pass like the clock when all have what they are due, so that
            // this is where whoever comes next will be compared.
            None if joins => {
                self.vtime = now.0;
                now.0
            }
            None => self.vtime,
            // Who has slept begins where the others are in the mean: with those who have had least
            // it would gain what lies between, each time it wakes. What it was owed it is still
            // owed, but no more: while it slept, virtual time has passed for it, too.
            Some(least) if joins => {
                let placed = match self.absence {
                    Absence::New => scene.mean(),
                    Absence::Asleep { since } => {
                        let passed = self.vtime.saturating_add((now - since).0);
                        passed.min(scene.mean())
                    }
                    // It is owed what it could not use meanwhile.
                    Absence::Throttled => least,
                };
                if self.vtime < placed {
                    self.vtime = placed;
                    self.rate = rate;
                }
                least.min(self.vtime)
            }
            Some(least) => least.min(self.vtime),
        };
        // What it is ahead, it is ahead in service: at another rate that is another virtual time.
        // That is not believed of more than a few quanta: `least` is what somebody has published.
        let quantum = in_vtime(demand, rate);
        let before = in_vtime(demand, self.rate).max(scene.longest);
        let ahead = (self.vtime - least) as f64;
        let ahead = ahead + ahead.min(MOST_CREDIT * before) * (self.rate / rate - 1.0);
        let vtime = least as f64 + ahead;
        let mean = (scene.weighted + vtime * rate) / (scene.rates + rate);
        // Credit ends below the last of the others, not below their mean, and is worth at least a
        // quantum of theirs: one with a large rate, and so with short quanta, would else lose what
        // it is owed while those with small rates have theirs.
        let last = scene.least.map_or(vtime, |least| least as f64);
        let credit = (MOST_CREDIT * quantum).max(2.0 * scene.longest);
        let vtime = vtime.max(last - credit).min(mean + MOST_DEBT * quantum);
        self.vtime = believable(vtime as u64, now);
        if !contended {
            // Nobody is owed anything.
            self.vtime = self.vtime.min(now.0);
        }
        self.rate = rate;
    }

    /// Processors wanted by rivals whose turn it is before this sliver's. Of several with the same
    /// virtual time the one with the least slot is first, but nobody is before one who joins. Who
    /// runs and has a reserve may run on that.
    fn ahead(&self, now: Nanos, slot: usize, rivals: &[Rival], joins: bool) -> u64 {
        rivals
            .iter()
            .filter(|rival| {
                let vtime = believable(rival.vtime, now);
                vtime < self.vtime
                    || (vtime == self.vtime && rival.slot < slot && !joins)
                    || (rival.claim.reserve > MilliCpu(0) && !rival.waiting && !joins)
            })
            .map(|rival| u64::from(rival.demand))
            .sum()
    }

    fn decide(
        &mut self,
        now: Nanos,
        demand: u32,
        ahead: u64,
        scene: &Scene,
        processors: u32,
    ) -> Turn {
        let processors = u64::from(processors);
        let quantum = Nanos(QUANTUM.0 * u64::from(demand));
        let enough = match self.state {
            State::Waiting { .. } => QUANTUM,
            _ => SCRAP,
        };
        let entitled = self.due_its_cap || self.reserved >= enough.0 as f64;
        let outranked = ahead >= processors && !entitled;
        let (mut due, mut free) = (None, None);
        match self.state {
            State::Running { quantum_from } => {
                let used = self.consumed - quantum_from;
                if used + SCRAP < quantum {
                    return run(now, quantum - used, demand);
                }
                if !outranked {
                    return self.begin_quantum(now, demand);
                }
            }
            State::Idle => {
                if !outranked {
                    return self.begin_quantum(now, demand);
                }
            }
            State::Waiting {
                due: due_before,
                free: free_before,
            } => {
                let room = scene.active < processors;
                free = room.then(|| free_before.unwrap_or(now));
                due = (!outranked).then(|| due_before.unwrap_or(now));
                let has_waited =
                    |since: Option<Nanos>, span| since.is_some_and(|since| now - since >= span);
                if entitled
                    || (room && !outranked)
                    || has_waited(free, PATIENCE)
                    || has_waited(due, QUANTUM + QUANTUM)
                {
                    return self.begin_quantum(now, demand);
                }
            }
        }
        self.state = State::Waiting { due, free };
        let span = if free.is_some() {
            PATIENCE
        } else {
            let turns = 1 + (ahead + 1).saturating_sub(processors) / processors;
            let lacking = (QUANTUM.0 as f64 - self.reserved).max(0.0);
            let reserved = Nanos((lacking / self.reserve) as u64);
            Nanos(QUANTUM.0.saturating_mul(turns))
                .min(LONGEST_WAIT)
                .min(reserved)
        };
        Turn::StepBack {
            look_at: now + span,
        }
    }

    fn begin_quantum(&mut self, now: Nanos, demand: u32) -> Turn {
        self.state = State::Running {
            quantum_from: self.consumed,
        };
        run(now, Nanos(QUANTUM.0 * u64::from(demand)), demand)
    }
}

impl Scene {
    /// Mean of their virtual times, by their rates; of nobody's, the end of time.
    fn mean(&self) -> u64 {
        match self.least {
            Some(least) => ((self.weighted / self.rates) as u64).max(least),
            None => u64::MAX,
        }
    }

    /// Who is to be woken if this sliver takes so many processors.
    fn wake(&self, taken: u32, processors: u32) -> Option<usize> {
        let room = self.active + u64::from(taken) < u64::from(processors);
        self.next.filter(|_| room).map(|(_, slot)| slot)
    }
}

/// Runs until so much service has been used by as many processors as are wanted.
fn run(now: Nanos, service: Nanos, demand: u32) -> Turn {
    Turn::Run {
        look_at: now + Nanos(service.0 / u64::from(demand)),
    }
}

/// A quantum of virtual time.
fn in_vtime(demand: u32, rate: f64) -> f64 {
    QUANTUM.0 as f64 * f64::from(demand) / rate
}

/// A claim as far as it can be used.
fn wanted(claim: Claim, demand: u32) -> Claim {
    let usable = demand.saturating_mul(1000);
    Claim {
        share: claim.share.max(1),
        ceiling: MilliCpu(claim.ceiling.0.min(usable).max(1)),
        ..claim
    }
}

/// A virtual time that arithmetic can be done with, whatever somebody has published.
fn believable(vtime: u64, now: Nanos) -> u64 {
    vtime.min((now + HORIZON).0)
}
