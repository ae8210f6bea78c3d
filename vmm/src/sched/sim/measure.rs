//! What is seen of a simulated node while time passes.

use super::workload::Workload;
use crate::nanos::Nanos;

/// Everything that a report is made from.
#[derive(Debug)]
pub(super) struct Measured {
    /// Moments at which slivers begin, and the end, each with everybody's service until then.
    pub(super) marks: Vec<(Nanos, Vec<Nanos>)>,
    pub(super) groups: Vec<GroupMeasured>,
    /// Processor time that nobody used, and what of it somebody had stepped back in.
    pub(super) idle: Nanos,
    pub(super) wasted: Nanos,
    pub(super) looks: u64,
    pub(super) step_backs: u64,
    slivers: Vec<Waits>,
    held_back: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct GroupMeasured {
    /// From the end of a sleep until the vCPU ran, if it was not throttled.
    pub(super) latencies: Vec<Nanos>,
    /// The longest that one of the slivers wanted to run, could have and did not.
    pub(super) longest_wait: Nanos,
    /// Sum over the slivers.
    pub(super) throttled: Nanos,
}

#[derive(Debug, Clone, Copy)]
struct Waits {
    group: usize,
    since: Option<Nanos>,
    held_back: u32,
}

impl Measured {
    pub(super) fn new(workload: &Workload, slivers: usize) -> Self {
        let mut waits = Vec::with_capacity(slivers);
        for (group, of) in workload.groups.iter().enumerate() {
            waits.extend((0..of.count).map(|_| Waits {
                group,
                since: None,
                held_back: 0,
            }));
        }
        Self {
            marks: Vec::new(),
            groups: vec![GroupMeasured::default(); workload.groups.len()],
            idle: Nanos::ZERO,
            wasted: Nanos::ZERO,
            looks: 0,
            step_backs: 0,
            slivers: waits,
            held_back: 0,
        }
    }

    /// So much time passes with so many idle processors.
    pub(super) fn pass(&mut self, span: Nanos, idle: u32) {
        self.idle = self.idle + Nanos(span.0 * u64::from(idle));
        self.wasted = self.wasted + Nanos(span.0 * u64::from(idle).min(self.held_back));
    }

    pub(super) fn mark(&mut self, now: Nanos, service: Vec<Nanos>) {
        for sliver in 0..self.slivers.len() {
            self.note_wait(sliver, now);
        }
        self.marks.push((now, service));
    }

    pub(super) fn throttled(&mut self, group: usize, throttled: Nanos) {
        let sum = &mut self.groups[group].throttled;
        *sum = *sum + throttled;
    }

    pub(super) fn latency(&mut self, group: usize, latency: Nanos) {
        self.groups[group].latencies.push(latency);
    }

    pub(super) fn looked(&mut self, steps_back: bool) {
        self.looks += 1;
        self.step_backs += u64::from(steps_back);
    }

    /// How a sliver is now: whether it waits though it could run, and how many processors it wants
    /// while it makes room for others.
    pub(super) fn watch(&mut self, sliver: usize, waits: bool, held_back: u32, now: Nanos) {
        if !waits {
            self.note_wait(sliver, now);
        }
        let waited = &mut self.slivers[sliver];
        waited.since = waits.then(|| waited.since.unwrap_or(now));
        self.held_back += u64::from(held_back);
        self.held_back -= u64::from(std::mem::replace(&mut waited.held_back, held_back));
    }

    fn note_wait(&mut self, sliver: usize, now: Nanos) {
        let waits = self.slivers[sliver];
        if let Some(since) = waits.since {
            let longest = &mut self.groups[waits.group].longest_wait;
            *longest = (*longest).max(now - since);
        }
    }
}
