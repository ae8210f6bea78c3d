//! The simulated node: its clock, what happens when, and the slivers' threads on the host.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::Setup;
use super::host::{Begun, Host, Ran, Thread};
use super::measure::Measured;
use super::random::Random;
use super::sliver::Sliver;
use super::workload::{Behaviour, Workload};
use crate::nanos::Nanos;
use crate::sched::budget::Grant;
use crate::sched::fair::{Rival, Turn};

/// What is published and not renewed for so long counts for nothing, as in the ledger.
const STALE: Nanos = Nanos::from_millis(500);

/// How late a timer or a wake-up reaches a thread that waits.
const WAKE_UP: (Nanos, Nanos) = (Nanos::from_micros(5), Nanos::from_micros(50));

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Start(usize),
    /// A vCPU has something to do again.
    Wake(Thread),
    /// A thread's slice of the processor, or what it had to do, is over.
    Stop {
        thread: Thread,
        processor: usize,
        turn: u64,
    },
    /// The next look of a sliver is due.
    Alarm {
        sliver: usize,
        plan: u64,
    },
    /// Its vCPUs have left the guest for it.
    Kicked {
        sliver: usize,
        plan: u64,
    },
    /// A sliver that is held looks again, by its timer or woken by a rival.
    Release {
        sliver: usize,
        hold: u64,
    },
    Woken(usize),
}

/// What a vCPU's thread does.
#[derive(Debug, Clone, Copy)]
struct VCpu {
    sliver: usize,
    wants: bool,
    /// What is left to do before it sleeps.
    work: Nanos,
    /// Since when it has waited for its first turn after a sleep.
    woken: Option<Nanos>,
}

/// A node and its slivers.
#[derive(Debug)]
pub(super) struct Node<'a> {
    setup: &'a Setup,
    workload: &'a Workload,
    now: Nanos,
    random: Random,
    events: BinaryHeap<Reverse<(Nanos, u64, Event)>>,
    sequence: u64,
    host: Host,
    vcpus: Vec<VCpu>,
    slivers: Vec<Sliver>,
    /// What each has published, and when.
    published: Vec<(Rival, Nanos)>,
    /// Those that have published a demand.
    demanding: BTreeSet<usize>,
    rivals: Vec<Rival>,
    measured: Measured,
}

impl<'a> Node<'a> {
    pub(super) fn new(setup: &'a Setup, workload: &'a Workload) -> Self {
        let mut slivers = Vec::new();
        let mut vcpus = Vec::new();
        for (index, group) in workload.groups.iter().enumerate() {
            for _ in 0..group.count {
                let first = vcpus.len();
                vcpus.extend((0..group.vcpus).map(|_| VCpu {
                    sliver: slivers.len(),
                    wants: false,
                    work: Nanos::ZERO,
                    woken: None,
                }));
                let threads = first..vcpus.len();
                slivers.push(Sliver::new(index, group, threads, setup.processors));
            }
        }
        let published = slivers.iter().enumerate();
        let published = published.map(|(slot, sliver)| (sliver.published(slot), Nanos::ZERO));
        let mut node = Self {
            setup,
            workload,
            now: Nanos::ZERO,
            random: Random::new(setup.seed),
            events: BinaryHeap::new(),
            sequence: 0,
            host: Host::new(setup.processors, vcpus.len()),
            vcpus,
            published: published.collect(),
            demanding: BTreeSet::new(),
            rivals: Vec::new(),
            measured: Measured::new(workload, slivers.len()),
            slivers,
        };
        for sliver in 0..node.slivers.len() {
            let start = node.group(sliver).start;
            node.at(start, Event::Start(sliver));
        }
        node
    }

    /// Lets the time pass up to the end, and tells what was seen.
    pub(super) fn run(mut self) -> Measured {
        let end = Nanos::from_millis(u64::from(self.setup.seconds) * 1000);
        let mut marks = self.workload.starts();
        marks.push(end);
        for mark in marks {
            while let Some(Reverse((when, _, event))) = self.events.peek().copied() {
                if when >= mark.min(end) {
                    break;
                }
                self.events.pop();
                self.pass_to(when);
                self.handle(event);
                self.give_processors();
            }
            self.pass_to(mark.min(end));
            for sliver in 0..self.slivers.len() {
                self.consumed(sliver);
            }
            let service = self.slivers.iter().map(|sliver| sliver.consumed);
            self.measured.mark(self.now, service.collect());
        }
        for sliver in &self.slivers {
            let throttled = sliver.budget.counters().throttled;
            self.measured.throttled(sliver.group, throttled);
        }
        self.measured
    }

    fn group(&self, sliver: usize) -> &'a super::workload::Group {
        &self.workload.groups[self.slivers[sliver].group]
    }

    fn at(&mut self, when: Nanos, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((when, self.sequence, event)));
    }

    fn pass_to(&mut self, when: Nanos) {
        let span = when - self.now;
        self.now = self.now.max(when);
        self.measured.pass(span, self.host.idle());
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Start(sliver) => {
                self.slivers[sliver].begin(self.now);
                for (turn, thread) in self.slivers[sliver].threads.clone().enumerate() {
                    let rotates = matches!(self.group(sliver).behaviour, Behaviour::Rotate { .. });
                    if turn == 0 || !rotates {
                        // Not all at the same moment.
                        let most = match self.group(sliver).behaviour {
                            Behaviour::Cycle { run, sleep, .. } => run + sleep,
                            _ => Nanos::from_millis(1),
                        };
                        let late = self.random.between(Nanos(0), most);
                        self.at(self.now + late, Event::Wake(thread));
                    }
                }
            }
            Event::Wake(thread) => self.wake(thread),
            Event::Stop {
                thread,
                processor,
                turn,
            } => {
                let begun = Begun {
                    thread,
                    processor,
                    turn,
                };
                if self.host.is_turn(begun) {
                    self.stop(begun);
                }
            }
            Event::Alarm { sliver, plan } if self.slivers[sliver].plan == plan => {
                let threads = self.slivers[sliver].threads.clone();
                if threads
                    .into_iter()
                    .any(|thread| self.host.is_running(thread))
                {
                    let late = self.exit_latency(sliver);
                    self.at(self.now + late, Event::Kicked { sliver, plan });
                } else {
                    self.slivers[sliver].is_due = true;
                }
            }
            Event::Kicked { sliver, plan } if self.slivers[sliver].plan == plan => {
                self.look(sliver);
            }
            Event::Release { sliver, hold } if self.slivers[sliver].holds == hold => {
                self.look(sliver);
            }
            Event::Woken(sliver) if self.slivers[sliver].stepped_back() => self.look(sliver),
            _ => {}
        }
    }

    fn exit_latency(&mut self, sliver: usize) -> Nanos {
        let put_off = self.group(sliver).exit;
        let kick = self.random.about(self.setup.kick, 50);
        kick + self.random.between(Nanos::ZERO, put_off)
    }

    /// A vCPU wants to run from now on.
    fn wake(&mut self, thread: Thread) {
        let sliver = self.vcpus[thread].sliver;
        let work = self.next_work(sliver);
        let vcpu = &mut self.vcpus[thread];
        (vcpu.wants, vcpu.work) = (true, work);
        let steady = matches!(self.group(sliver).behaviour, Behaviour::Steady);
        self.vcpus[thread].woken = (!steady).then_some(self.now);
        let has_to_look = self.slivers[sliver].busy(self.now);
        if self.slivers[sliver].is_held() {
            self.watch(sliver);
            return;
        }
        self.publish(sliver);
        if has_to_look {
            self.look(sliver);
        } else {
            self.schedule(sliver);
        }
        if !self.slivers[sliver].is_held() {
            self.add(thread);
        }
        self.watch(sliver);
    }

    fn next_work(&mut self, sliver: usize) -> Nanos {
        match self.group(sliver).behaviour {
            Behaviour::Steady => Nanos::NEVER,
            Behaviour::Cycle {
                run,
                spread_percent,
                ..
            } => self.random.about(run, spread_percent),
            Behaviour::Rotate { run } => run,
            Behaviour::Edge { sleep } => {
                let period = u64::from(self.group(sliver).limits.period_ms()) * 1_000_000;
                let into = (self.now - self.group(sliver).start).0 % period;
                Nanos(period - into).max(sleep) - Nanos(sleep.0 / 2)
            }
        }
    }

    /// Has the sliver's next vCPU, or the same again, wake after its sleep.
    fn sleep(&mut self, thread: Thread) {
        let sliver = self.vcpus[thread].sliver;
        let threads = self.slivers[sliver].threads.clone();
        let (next, sleep) = match self.group(sliver).behaviour {
            Behaviour::Steady => return,
            Behaviour::Cycle {
                sleep,
                spread_percent,
                ..
            } => (thread, self.random.about(sleep, spread_percent)),
            Behaviour::Edge { sleep } => (thread, sleep),
            Behaviour::Rotate { .. } if thread + 1 < threads.end => (thread + 1, Nanos(1)),
            Behaviour::Rotate { .. } => (threads.start, Nanos(1)),
        };
        self.at(self.now + sleep, Event::Wake(next));
    }

    /// A thread's slice or its work is over.
    fn stop(&mut self, begun: Begun) {
        let thread = begun.thread;
        let span = self.host.charge(thread, self.now);
        self.charge(Ran { thread, span });
        if self.vcpus[thread].work == Nanos::ZERO {
            self.host.remove(thread, self.now);
            self.vcpus[thread].wants = false;
            let sliver = self.vcpus[thread].sliver;
            let looks = self.slivers[sliver].idle(self.now);
            self.publish(sliver);
            self.sleep(thread);
            if looks {
                self.look(sliver);
            } else {
                self.schedule(sliver);
            }
            self.watch(sliver);
        } else if self.host.yield_to_others(thread, self.now).is_none() {
            self.plan_stop(begun);
        } else {
            self.watch(self.vcpus[thread].sliver);
        }
    }

    fn plan_stop(&mut self, begun: Begun) {
        let span = self.vcpus[begun.thread].work.min(self.host.slice());
        let event = Event::Stop {
            thread: begun.thread,
            processor: begun.processor,
            turn: begun.turn,
        };
        self.at(self.now + span.max(Nanos(1)), event);
    }

    fn charge(&mut self, ran: Ran) {
        let vcpu = &mut self.vcpus[ran.thread];
        vcpu.work = match vcpu.work {
            Nanos::NEVER => Nanos::NEVER,
            work => work - ran.span,
        };
        let sliver = &mut self.slivers[vcpu.sliver];
        sliver.consumed = sliver.consumed + ran.span;
    }

    /// What a sliver has consumed up to now.
    fn consumed(&mut self, sliver: usize) -> Nanos {
        for thread in self.slivers[sliver].threads.clone() {
            let span = self.host.charge(thread, self.now);
            self.charge(Ran { thread, span });
        }
        self.slivers[sliver].consumed
    }

    fn add(&mut self, thread: Thread) {
        if let Some(ran) = self.host.add(thread, self.now) {
            self.charge(ran);
            self.watch(self.vcpus[ran.thread].sliver);
        }
    }

    fn give_processors(&mut self) {
        while let Some(begun) = self.host.begin(self.now) {
            let vcpu = &mut self.vcpus[begun.thread];
            let (sliver, woken) = (vcpu.sliver, vcpu.woken.take());
            if let Some(woken) = woken {
                let group = self.slivers[sliver].group;
                self.measured.latency(group, self.now - woken);
            }
            if matches!(self.group(sliver).behaviour, Behaviour::Edge { .. }) {
                self.vcpus[begun.thread].work = self.next_work(sliver);
            }
            self.plan_stop(begun);
            if self.slivers[sliver].is_due {
                self.look(sliver);
            }
            self.watch(sliver);
        }
    }

    /// A sliver looks, as its governor does.
    fn look(&mut self, index: usize) {
        let consumed = self.consumed(index);
        self.refresh_rivals(index);
        let now = self.now;
        let sliver = &mut self.slivers[index];
        let grant = sliver.budget.look(now, consumed);
        let own = sliver.own(index, !matches!(grant, Grant::Wait { .. }));
        let rivals = &self.rivals;
        let decision = sliver
            .fair
            .look(now, consumed, &own, rivals, self.setup.processors);
        let was_held = sliver.is_held();
        sliver.heed(now, grant, decision, own.demand);
        let throttled = matches!(grant, Grant::Wait { .. });
        let stepped_back = matches!(decision.turn, Turn::StepBack { .. });
        self.measured.looked(stepped_back && !was_held);
        if throttled {
            for thread in self.slivers[index].threads.clone() {
                self.vcpus[thread].woken = None;
            }
        }
        self.publish(index);
        let sliver = &self.slivers[index];
        let (threads, is_held) = (sliver.threads.clone(), sliver.is_held());
        if let Some(until) = sliver.held_until() {
            let late = self.random.between(WAKE_UP.0, WAKE_UP.1);
            let hold = sliver.holds;
            self.at(
                until.max(now) + late,
                Event::Release {
                    sliver: index,
                    hold,
                },
            );
        }
        for thread in threads {
            if is_held {
                let ran = self.host.remove(thread, now);
                self.charge(ran);
            } else if was_held && self.vcpus[thread].wants {
                self.add(thread);
            }
        }
        self.watch(index);
        if let Some(slot) = decision.wake {
            let late = self.random.between(WAKE_UP.0, WAKE_UP.1);
            self.at(now + late, Event::Woken(slot));
        }
        self.schedule(index);
    }

    fn refresh_rivals(&mut self, index: usize) {
        self.rivals.clear();
        for slot in &self.demanding {
            let (rival, when) = self.published[*slot];
            if *slot != index && self.now - when <= STALE {
                self.rivals.push(rival);
            }
        }
    }

    fn publish(&mut self, index: usize) {
        let rival = self.slivers[index].published(index);
        if rival.demand > 0 {
            self.demanding.insert(index);
        } else {
            self.demanding.remove(&index);
        }
        self.published[index] = (rival, self.now);
    }

    /// Has it measured how a sliver is.
    fn watch(&mut self, index: usize) {
        let sliver = &self.slivers[index];
        let mut threads = sliver.threads.clone();
        let waits = sliver.wants_more() && !threads.any(|thread| self.host.is_running(thread));
        let held_back = sliver.demand_held_back();
        self.measured.watch(index, waits, held_back, self.now);
    }

    /// Sets the alarm for the next look.
    fn schedule(&mut self, index: usize) {
        let sliver = &mut self.slivers[index];
        let plan = sliver.replan();
        if let Some(when) = sliver.next_look(self.now) {
            let event = Event::Alarm {
                sliver: index,
                plan,
            };
            self.at(when, event);
        }
    }
}
