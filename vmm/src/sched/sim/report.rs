//! What came of a simulation: what each group of slivers was due, what it got, and how soon.
//!
//! Due is what water-filling gives when each sliver that sleeps wants no more than it used. For a
//! sliver that sleeps itself it is what it could have had by not sleeping: service beyond that is
//! theft.

use serde::Serialize;

use super::Setup;
use super::measure::Measured;
use super::workload::{Behaviour, Group, Workload};
use crate::nanos::Nanos;
use crate::sched::fair::{Claim, rates};
use crate::spec::MilliCpu;

/// Millionths of a processor in one: claims are made in them, so that little is lost by rounding.
const FINE: f64 = 1e6;

/// The whole report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Processors of the node.
    pub processors: u32,
    /// How long it was simulated.
    pub seconds: u32,
    /// The seed.
    pub seed: u64,
    /// Slivers in all.
    pub slivers: usize,
    /// Of the node's processor time, what was used, in percent.
    pub used_pct: f64,
    /// What was idle while a sliver made room for others, in percent.
    pub wasted_pct: f64,
    /// Looks for each second.
    pub looks_per_s: f64,
    /// How often, in a second, a sliver made room for others.
    pub step_backs_per_s: f64,
    /// The groups, in the workload's order.
    pub groups: Vec<GroupReport>,
}

/// What came of one group; percents of a processor are those of one of its slivers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupReport {
    /// Its name.
    pub name: String,
    /// How many slivers it has.
    pub slivers: u32,
    /// Processor time that each was due, in percent of one.
    pub due_pct: f64,
    /// What they got, in the mean.
    pub service_pct: f64,
    /// What they got too little or too much, in percent of what they were due: in the mean, and
    /// that of the one with most. Absent if they sleep.
    pub share_error_pct: Option<Spread>,
    /// What the one with most got beyond what it was due, in percent of that.
    pub theft_pct: f64,
    /// From waking until running, in microseconds. Absent if they never sleep.
    pub latency_us: Option<Latency>,
    /// The longest that one wanted to run, could have by its budget and did not, in milliseconds.
    pub longest_wait_ms: f64,
    /// Of their time, what they were throttled in, in percent.
    pub throttled_pct: f64,
}

/// A mean and a maximum.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The maximum.
    pub max: f64,
}

/// How soon somebody runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 99th of 100.
    pub p99: f64,
    /// The worst.
    pub max: f64,
}

impl Report {
    pub(super) fn new(workload: &Workload, setup: &Setup, mut measured: Measured) -> Self {
        let capacity = f64::from(setup.seconds) * f64::from(setup.processors) * 1e9;
        let seconds = f64::from(setup.seconds);
        let ledger = Account::of(workload, setup, &measured);
        let mut first = 0;
        let mut groups = Vec::with_capacity(workload.groups.len());
        for (index, group) in workload.groups.iter().enumerate() {
            let service = &ledger.service[first..first + group.count as usize];
            first += service.len();
            let lived = (seconds - group.start.0 as f64 / 1e9).max(0.0) * 1e9;
            let due = ledger.due[index];
            let error = |service: &f64| percent(service - due, due);
            let count = f64::from(group.count);
            let mean = service.iter().map(|one| error(one).abs()).sum::<f64>() / count;
            let max = service.iter().map(|one| error(one).abs());
            let theft = service.iter().map(error).fold(0.0, f64::max);
            let seen = &mut measured.groups[index];
            groups.push(GroupReport {
                name: group.name.clone(),
                slivers: group.count,
                due_pct: rounded(percent(due, lived)),
                service_pct: rounded(percent(service.iter().sum::<f64>() / count, lived)),
                share_error_pct: group.is_steady().then(|| Spread {
                    mean: rounded(mean),
                    max: rounded(max.fold(0.0, f64::max)),
                }),
                theft_pct: rounded(theft),
                latency_us: latency(&mut seen.latencies),
                longest_wait_ms: rounded(seen.longest_wait.0 as f64 / 1e6),
                throttled_pct: rounded(percent(seen.throttled.0 as f64, count * lived)),
            });
        }
        Self {
            processors: setup.processors,
            seconds: setup.seconds,
            seed: setup.seed,
            slivers: ledger.service.len(),
            used_pct: rounded(100.0 - percent(measured.idle.0 as f64, capacity)),
            wasted_pct: rounded(percent(measured.wasted.0 as f64, capacity)),
            looks_per_s: rounded(measured.looks as f64 / seconds),
            step_backs_per_s: rounded(measured.step_backs as f64 / seconds),
            groups,
        }
    }
}

/// Service of each sliver, and what each of a group was due, in nanoseconds.
struct Account {
    service: Vec<f64>,
    due: Vec<f64>,
}

/// A stretch of time in which no sliver comes.
struct Stretch<'a> {
    workload: &'a Workload,
    processors: u32,
    begin: Nanos,
    span: f64,
    /// What each sliver used in it.
    service: Vec<f64>,
}

impl Account {
    fn of(workload: &Workload, setup: &Setup, measured: &Measured) -> Self {
        let slivers = measured
            .marks
            .last()
            .map_or(0, |(_, service)| service.len());
        let mut account = Self {
            service: vec![0.0; slivers],
            due: vec![0.0; workload.groups.len()],
        };
        let mut before = (Nanos::ZERO, vec![Nanos::ZERO; slivers]);
        for (end, served) in &measured.marks {
            let both = served.iter().zip(&before.1);
            let stretch = Stretch {
                workload,
                processors: setup.processors,
                begin: before.0,
                span: (*end - before.0).0 as f64,
                service: both
                    .map(|(after, before)| (*after - *before).0 as f64)
                    .collect(),
            };
            for (sum, used) in account.service.iter_mut().zip(&stretch.service) {
                *sum += used;
            }
            for (sum, due) in account.due.iter_mut().zip(stretch.due()) {
                *sum += due;
            }
            before = (*end, served.clone());
        }
        account
    }
}

impl Stretch<'_> {
    /// What each sliver of each group is due.
    fn due(&self) -> Vec<f64> {
        if self.span == 0.0 {
            return vec![0.0; self.workload.groups.len()];
        }
        let groups = || self.workload.groups.iter().enumerate();
        let used: Vec<_> = (0..self.workload.groups.len()).map(|_| f64::MAX).collect();
        let mut due: Vec<_> = used.clone();
        for (index, group) in groups().filter(|(_, group)| !group.is_steady()) {
            due[index] = self.due_of(index, group, &used);
        }
        // What somebody stole is not taken from what the others are due.
        let limits = due.clone();
        for (index, group) in groups().filter(|(_, group)| group.is_steady()) {
            due[index] = self.due_of(index, group, &limits);
        }
        due
    }

    /// What one of a group is due, if no other that sleeps is given more than it used, or than
    /// `limits`.
    fn due_of(&self, index: usize, group: &Group, limits: &[f64]) -> f64 {
        if group.start > self.begin {
            return 0.0;
        }
        let mut claims = vec![claim(group, group.ceiling(), self.processors)];
        let mut first = 0;
        for (other, of) in self.workload.groups.iter().enumerate() {
            let service = &self.service[first..first + of.count as usize];
            first += service.len();
            // The first is the one in question.
            for used in service.iter().skip(usize::from(other == index)) {
                let ceiling = match of.is_steady() {
                    true => of.ceiling(),
                    false => of.ceiling().min(used.min(limits[other]) / self.span),
                };
                if of.start <= self.begin {
                    claims.push(claim(of, ceiling, self.processors));
                }
            }
        }
        let mut out = Vec::new();
        rates(&claims, self.processors.saturating_mul(1000), &mut out);
        out[0] / 1000.0 * self.span
    }
}

impl Group {
    fn is_steady(&self) -> bool {
        self.behaviour == Behaviour::Steady
    }

    /// The most that one of its slivers can use, in processors.
    fn ceiling(&self) -> f64 {
        let cap = self
            .limits
            .cap()
            .map_or(f64::MAX, |cap| f64::from(cap.0) / 1000.0);
        let at_once = match self.behaviour {
            Behaviour::Rotate { .. } => 1,
            _ => self.vcpus,
        };
        cap.min(f64::from(at_once))
    }
}

fn claim(group: &Group, ceiling: f64, processors: u32) -> Claim {
    Claim {
        share: group.limits.share(),
        reserve: MilliCpu(group.limits.reserve(processors).0.saturating_mul(1000)),
        ceiling: MilliCpu((ceiling * FINE) as u32),
    }
}

fn latency(latencies: &mut [Nanos]) -> Option<Latency> {
    latencies.sort_unstable();
    let last = latencies.len().checked_sub(1)?;
    let at = |permille: usize| rounded(latencies[last * permille / 1000].0 as f64 / 1e3);
    Some(Latency {
        p50: at(500),
        p99: at(990),
        max: at(1000),
    })
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 {
        part / whole * 100.0
    } else {
        0.0
    }
}

/// To three digits: more would be noise.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
