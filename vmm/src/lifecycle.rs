//! The life of a sliver: running, paused, ended; and the place where its vCPUs meet.
//!
//! ```text
//!            pause, breakpoint            end
//!   running -------------------> paused -------> ended
//!      ^  ^                      |    |             ^
//!      |  +------- resume -------+    +-- step ->   |
//!      +--------------------------------------------+
//! ```
//!
//! Each vCPU thread calls [`Lifecycle::checkpoint`] between two stays in the guest. Whoever wants
//! something of the vCPUs writes it here first and kicks them afterwards; a checkpoint that
//! follows the kick therefore sees it. The first end counts, later ones are ignored.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::control::proto::{State, StopReason};
use crate::exit::{Exit, Registers};
use crate::kvm::vcpu::Vcpu;

/// Where a vCPU is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Never started.
    Absent,
    /// In the guest or on its way.
    Running,
    /// At a checkpoint, until the sliver is resumed.
    Parked,
    /// Outside the guest, until somebody reads its output.
    Waiting,
    /// Done.
    Gone,
}

#[derive(Debug)]
struct Inner {
    paused: bool,
    end: Option<Exit>,
    places: Vec<Place>,
    debug: bool,
    stepping: Option<usize>,
    stop: Option<StopReason>,
    /// A request to the parked vCPU of this index, and then its answer.
    errand: Option<(usize, Errand)>,
}

#[derive(Debug)]
enum Errand {
    Read,
    Write(Registers),
    Done(Result<Registers, String>),
}

/// What a vCPU thread does after a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Enter the guest.
    Run,
    /// End the thread.
    End,
}

/// The shared state.
#[derive(Debug)]
pub struct Lifecycle {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Whether a checkpoint has anything to look at.
    attention: AtomicBool,
}

/// What one vCPU thread keeps between checkpoints.
#[derive(Debug, Default)]
pub struct Presence {
    /// Whether it may execute one instruction only.
    pub stepping: bool,
    /// Registers to show instead of the vCPU's own: those at an exception, whose stub has run.
    pub shown_registers: Option<Registers>,
}

impl Lifecycle {
    /// A sliver with `vcpus` vCPUs, none of them started.
    pub fn new(vcpus: usize, paused: bool) -> Self {
        let inner = Inner {
            paused,
            end: None,
            places: vec![Place::Absent; vcpus],
            debug: false,
            stepping: None,
            stop: paused.then_some(StopReason::Paused),
            errand: None,
        };
        Self {
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            attention: AtomicBool::new(paused),
        }
    }

    /// Every change below leaves the state sound, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn publish(&self, inner: &Inner) {
        let attention = inner.paused || inner.end.is_some();
        self.attention.store(attention, Ordering::Release);
        self.changed.notify_all();
    }

    /// What the sliver is doing.
    pub fn state(&self) -> State {
        let inner = self.lock();
        if inner.end.is_some() {
            State::Ended
        } else if inner.paused && !inner.places.contains(&Place::Running) {
            State::Paused
        } else {
            State::Running
        }
    }

    /// Whether the sliver has ended, without waiting for anything.
    pub fn has_ended(&self) -> bool {
        self.attention.load(Ordering::Acquire) && self.lock().end.is_some()
    }

    /// How it ended.
    pub fn end_reason(&self) -> Option<Exit> {
        self.lock().end.clone()
    }

    /// Ends the sliver, unless it has ended already. The caller kicks the vCPUs.
    pub fn end(&self, exit: Exit) {
        let mut inner = self.lock();
        if inner.end.is_none() {
            let status = exit.status;
            inner.end = Some(exit);
            inner.stop = Some(StopReason::Ended { status });
        }
        self.publish(&inner);
    }

    /// Wants the vCPUs to stand still. The caller kicks them.
    pub fn pause(&self, reason: StopReason) {
        let mut inner = self.lock();
        if !inner.paused {
            inner.paused = true;
            inner.stop = Some(reason);
        }
        self.publish(&inner);
    }

    /// Lets them go on.
    pub fn resume(&self) {
        let mut inner = self.lock();
        inner.paused = false;
        inner.stop = None;
        self.publish(&inner);
    }

    /// Says whether a debugger is there, to whom breakpoints and faults are told.
    pub fn set_debug(&self, on: bool) {
        self.lock().debug = on;
    }

    /// Whether a debugger is there.
    pub fn is_debugged(&self) -> bool {
        self.lock().debug
    }

    /// Lets the parked vCPU `index` run for one instruction.
    pub fn step(&self, index: usize) -> Result<(), &'static str> {
        let mut inner = self.lock();
        match inner.places.get(index) {
            Some(Place::Parked) if inner.end.is_none() => {}
            _ => return Err("the vCPU does not stand still"),
        }
        inner.stepping = Some(index);
        inner.stop = None;
        inner.places[index] = Place::Running;
        self.publish(&inner);
        Ok(())
    }

    /// Why the sliver stopped, once it stands still.
    pub fn stop_reason(&self) -> Option<StopReason> {
        let inner = self.lock();
        let still = inner.end.is_some() || !inner.places.contains(&Place::Running);
        inner.stop.clone().filter(|_| still)
    }

    /// Marks vCPU `index` as started. `false` if it was before, or if the sliver has ended.
    pub fn start_vcpu(&self, index: usize) -> bool {
        let mut inner = self.lock();
        if inner.end.is_some() || inner.places.get(index) != Some(&Place::Absent) {
            return false;
        }
        inner.places[index] = Place::Running;
        true
    }

    /// Whether vCPU `index` exists and has not been started.
    pub fn is_absent(&self, index: usize) -> bool {
        self.lock().places.get(index) == Some(&Place::Absent)
    }

    /// The indices of vCPUs that have been started.
    pub fn started(&self) -> Vec<usize> {
        let inner = self.lock();
        (0..inner.places.len())
            .filter(|&i| inner.places[i] != Place::Absent)
            .collect()
    }

    /// A vCPU waits for its output to be read, or has ceased to.
    pub fn set_waiting(&self, index: usize, waits: bool) {
        let mut inner = self.lock();
        inner.places[index] = if waits {
            Place::Waiting
        } else {
            Place::Running
        };
        self.changed.notify_all();
    }

    /// A vCPU asks what to do. `parked` is called when it comes to stand still.
    pub fn checkpoint(
        &self,
        vcpu: &mut Vcpu,
        presence: &mut Presence,
        parked: &dyn Fn(),
    ) -> Verdict {
        if !self.attention.load(Ordering::Acquire) {
            return Verdict::Run;
        }
        let index = vcpu.index();
        let mut inner = self.lock();
        loop {
            if inner.end.is_some() {
                inner.places[index] = Place::Gone;
                self.changed.notify_all();
                return Verdict::End;
            }
            if !inner.paused || inner.stepping == Some(index) {
                break;
            }
            if inner.places[index] != Place::Parked {
                vcpu.settle();
                inner.places[index] = Place::Parked;
                self.changed.notify_all();
                parked();
            }
            if let Some((target, errand)) = &mut inner.errand
                && *target == index
                && run_errand(vcpu, presence, errand)
            {
                self.changed.notify_all();
            }
            inner = self
                .changed
                .wait(inner)
                .unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        inner.places[index] = Place::Running;
        presence.stepping = inner.stepping == Some(index);
        if presence.stepping
            && let Err(error) = vcpu.set_trap_flag(true)
        {
            inner.end = Some(Exit::error(format!("cannot step vCPU {index}: {error}")));
            inner.places[index] = Place::Gone;
            self.publish(&inner);
            return Verdict::End;
        }
        Verdict::Run
    }

    /// A vCPU left the guest for the debugger: the sliver pauses. The caller kicks the others.
    pub fn stop_for_debugger(&self, reason: StopReason) {
        let mut inner = self.lock();
        inner.stepping = None;
        inner.paused = true;
        inner.stop = Some(reason);
        self.publish(&inner);
    }

    /// Registers of a parked vCPU.
    pub fn read_registers(&self, index: usize) -> Result<Registers, String> {
        self.send(index, Errand::Read)
    }

    /// Sets registers of a parked vCPU.
    pub fn write_registers(&self, index: usize, registers: Registers) -> Result<(), String> {
        self.send(index, Errand::Write(registers)).map(drop)
    }

    /// Hands an errand to a parked vCPU, whose thread alone touches its registers, and waits for
    /// the answer: it comes at once, because the thread waits for nothing else.
    fn send(&self, index: usize, errand: Errand) -> Result<Registers, String> {
        let mut inner = self.lock();
        if inner.end.is_some() || inner.places.get(index) != Some(&Place::Parked) {
            return Err(format!("vCPU {index} does not stand still"));
        }
        inner.errand = Some((index, errand));
        self.changed.notify_all();
        loop {
            if let Some((_, Errand::Done(_))) = &inner.errand
                && let Some((_, Errand::Done(result))) = inner.errand.take()
            {
                return result;
            }
            if inner.end.is_some() {
                inner.errand = None;
                return Err("the sliver has ended".to_owned());
            }
            inner = self
                .changed
                .wait(inner)
                .unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }
}

/// Does an errand, if it is still to be done.
fn run_errand(vcpu: &mut Vcpu, presence: &mut Presence, errand: &mut Errand) -> bool {
    let result = match (&errand, presence.shown_registers) {
        (Errand::Done(_), _) => return false,
        (Errand::Read, Some(shown)) => Ok(shown),
        (Errand::Read, None) => vcpu.registers(),
        (Errand::Write(_), Some(_)) => {
            *errand = Errand::Done(Err("the vCPU has faulted and cannot go on".to_owned()));
            return true;
        }
        (Errand::Write(registers), None) => vcpu.set_registers(registers).map(|()| *registers),
    };
    *errand = Errand::Done(result.map_err(|error| error.to_string()));
    true
}
