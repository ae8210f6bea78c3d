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
//! follows the kick therefore sees it. The first end counts, later ones are ignored. Only the
//! control thread pauses, resumes and steps.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::control::proto::{State, StopReason};
use crate::exit::{Exit, Registers};
use crate::kvm::tsc::host_tsc;
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
    /// Done.
    Gone,
}

/// For whom the sliver is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PausedFor {
    /// Somebody said `pause`: only a `resume` ends it.
    Operator,
    /// A debugger: it ends with the debugger, too.
    Debugger,
}

#[derive(Debug)]
struct Inner {
    paused: Option<PausedFor>,
    end: Option<Exit>,
    places: Vec<Place>,
    debug: bool,
    stepping: Option<usize>,
    stop: Option<StopReason>,
    /// Counter value when the last running vCPU came to stand still.
    still_since: Option<u64>,
    /// A request to the parked vCPU of this index, and then its answer.
    errand: Option<(usize, Errand)>,
    /// Whether the attendant's thread is at work in the guest's memory.
    serving: bool,
}

impl Inner {
    fn place(&mut self, index: usize, place: Place) {
        self.places[index] = place;
        self.look_whether_still();
    }

    fn look_whether_still(&mut self) {
        if self.is_still() {
            self.still_since.get_or_insert_with(host_tsc);
        } else {
            self.still_since = None;
        }
    }

    fn is_still(&self) -> bool {
        !self.serving && !self.places.contains(&Place::Running)
    }
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
    /// Whether it has stood still since this was last cleared.
    pub parked: bool,
    /// Registers to show instead of the vCPU's own: those at an exception, whose stub has run.
    pub shown_registers: Option<Registers>,
}

impl Lifecycle {
    /// A sliver with `vcpus` vCPUs, of which vCPU 0 is on its way.
    pub fn new(vcpus: usize, paused: bool) -> Self {
        let mut places = vec![Place::Absent; vcpus];
        places[0] = Place::Running;
        let inner = Inner {
            paused: paused.then_some(PausedFor::Operator),
            end: None,
            places,
            debug: false,
            stepping: None,
            stop: paused.then_some(StopReason::Paused),
            still_since: None,
            errand: None,
            serving: false,
        };
        Self {
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            attention: AtomicBool::new(paused),
        }
    }

    /// Every change below leaves the state sound, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, inner: &Inner) {
        let attention = inner.paused.is_some() || inner.end.is_some();
        self.attention.store(attention, Ordering::SeqCst);
        self.changed.notify_all();
    }

    /// Whether the vCPUs should come to a checkpoint.
    pub fn wants_attention(&self) -> bool {
        self.attention.load(Ordering::SeqCst)
    }

    /// The attendant's thread wants to work in the guest's memory. `false`: it must not now, because
    /// the sliver is paused or has ended.
    pub fn begin_service(&self) -> bool {
        let mut inner = self.lock();
        inner.serving = inner.paused.is_none() && inner.end.is_none();
        inner.look_whether_still();
        inner.serving
    }

    /// It is done. `true`: the sliver has been wanted to stand still in the meantime.
    pub fn end_service(&self) -> bool {
        let mut inner = self.lock();
        inner.serving = false;
        inner.look_whether_still();
        inner.paused.is_some() || inner.end.is_some()
    }

    /// What the sliver is doing.
    pub fn state(&self) -> State {
        let inner = self.lock();
        if inner.end.is_some() {
            State::Ended
        } else if inner.paused.is_some() && inner.is_still() {
            State::Paused
        } else {
            State::Running
        }
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
    pub fn pause(&self, whom: PausedFor) {
        let mut inner = self.lock();
        if inner.paused.is_none() {
            inner.stop = Some(StopReason::Paused);
        }
        if inner.paused != Some(PausedFor::Operator) {
            inner.paused = Some(whom);
        }
        self.publish(&inner);
    }

    /// For whom it is paused, or about to be.
    pub fn paused_for(&self) -> Option<PausedFor> {
        self.lock().paused
    }

    /// Since when it stands still, as a counter value, if it does.
    pub fn still_since(&self) -> Option<u64> {
        self.lock().still_since
    }

    /// Lets the vCPUs go on. From here on they count as running.
    pub fn resume(&self) {
        let mut inner = self.lock();
        if inner.end.is_none() {
            inner.paused = None;
            inner.stop = None;
            inner.stepping = None;
            for index in 0..inner.places.len() {
                if inner.places[index] == Place::Parked {
                    inner.place(index, Place::Running);
                }
            }
        }
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

    /// Whether the parked vCPU `index` could be stepped.
    pub fn can_step(&self, index: usize) -> bool {
        let inner = self.lock();
        inner.end.is_none() && inner.places.get(index) == Some(&Place::Parked)
    }

    /// Lets the parked vCPU `index` run for one instruction.
    pub fn step(&self, index: usize) {
        let mut inner = self.lock();
        inner.stepping = Some(index);
        inner.stop = None;
        inner.place(index, Place::Running);
        self.publish(&inner);
    }

    /// Why the sliver stopped, once it stands still.
    pub fn stop_reason(&self) -> Option<StopReason> {
        let inner = self.lock();
        let still = inner.end.is_some() || inner.is_still();
        inner.stop.clone().filter(|_| still)
    }

    /// Marks vCPU `index` as started. `false` if it was before, or if the sliver has ended.
    pub fn start_vcpu(&self, index: usize) -> bool {
        let mut inner = self.lock();
        if inner.end.is_some() || inner.places.get(index) != Some(&Place::Absent) {
            return false;
        }
        inner.place(index, Place::Running);
        true
    }

    /// The indices of vCPUs that have been started.
    pub fn started(&self) -> Vec<usize> {
        let inner = self.lock();
        (0..inner.places.len())
            .filter(|&i| inner.places[i] != Place::Absent)
            .collect()
    }

    /// A vCPU asks what to do. `parked` is called when it comes to stand still.
    pub fn checkpoint(
        &self,
        vcpu: &mut Vcpu,
        presence: &mut Presence,
        parked: &dyn Fn(),
    ) -> Verdict {
        if !self.attention.load(Ordering::SeqCst) && !presence.stepping {
            return Verdict::Run;
        }
        let index = vcpu.index();
        let mut inner = self.lock();
        loop {
            if inner.end.is_some() {
                inner.place(index, Place::Gone);
                self.changed.notify_all();
                return Verdict::End;
            }
            if inner.paused.is_none() || inner.stepping == Some(index) {
                break;
            }
            if inner.places[index] != Place::Parked {
                vcpu.settle();
                presence.parked = true;
                inner.place(index, Place::Parked);
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
                .unwrap_or_else(PoisonError::into_inner);
        }
        let step = inner.stepping == Some(index);
        if step != presence.stepping
            && let Err(error) = vcpu.set_trap_flag(step)
        {
            inner.end = Some(Exit::error(format!("cannot step vCPU {index}: {error}")));
            inner.place(index, Place::Gone);
            self.publish(&inner);
            return Verdict::End;
        }
        presence.stepping = step;
        inner.place(index, Place::Running);
        Verdict::Run
    }

    /// vCPU `index` left the guest for the debugger: the sliver pauses. The caller kicks the
    /// others. The end of a step that nobody waits for any more changes nothing.
    pub fn stop_for_debugger(&self, index: usize, reason: StopReason) {
        let mut inner = self.lock();
        if matches!(reason, StopReason::Step { .. }) && inner.stepping != Some(index) {
            return;
        }
        inner.stepping = None;
        inner.paused.get_or_insert(PausedFor::Debugger);
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
    /// the answer: it comes at once, because a parked thread waits for nothing else and stays
    /// parked until this one, the control thread, resumes it.
    fn send(&self, index: usize, errand: Errand) -> Result<Registers, String> {
        let mut inner = self.lock();
        if inner.end.is_some() || inner.places.get(index) != Some(&Place::Parked) {
            return Err(format!("vCPU {index} does not stand still"));
        }
        inner.errand = Some((index, errand));
        self.changed.notify_all();
        loop {
            match inner.errand.take() {
                Some((_, Errand::Done(result))) => return result,
                unanswered => inner.errand = unanswered,
            }
            if inner.end.is_some() {
                inner.errand = None;
                return Err("the sliver has ended".to_owned());
            }
            inner = self
                .changed
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Does an errand, if it is still to be done.
fn run_errand(vcpu: &mut Vcpu, presence: &mut Presence, errand: &mut Errand) -> bool {
    let result = match (&errand, presence.shown_registers) {
        (Errand::Done(_), _) => return false,
        (Errand::Read, Some(shown)) => Ok(shown),
        (Errand::Read, None) => vcpu.registers().map_err(|error| error.to_string()),
        (Errand::Write(_), Some(_)) => Err("the vCPU has faulted and cannot go on".to_owned()),
        (Errand::Write(registers), None) => vcpu
            .set_registers(registers)
            .map(|()| *registers)
            .map_err(|error| error.to_string()),
    };
    *errand = Errand::Done(result);
    true
}
