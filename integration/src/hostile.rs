//! Hostile guests: many slivers at once, each doing one wrong thing to a device, beside a peaceful
//! neighbour.
//!
//! A guest tells through its memory that it has seen what came of its case, then rests while the
//! host looks; released, it mends the device, works with it and ends with its verdict.

pub mod cases;
mod machine;
mod outside;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use vmm::control::proto::{Answer, DeviceStatus, Op, State, Status};
use vmm::exit::ExitKind;

use crate::client::Client;
use crate::sliver::{Ended, Running, Sliver, until, until_within};
pub use machine::Machine;
use outside::Outside;
pub use outside::Subject;

/// For how long a device that was misused is watched.
const WATCH: Duration = Duration::from_secs(1);

/// How long a case may take until the guest has seen what came of it: many run at once.
const SETTLING: Duration = Duration::from_secs(180);

/// Memory of a guest, in MiB.
const MEMORY: u64 = 32;
/// Of one that names more than 4 GiB in a queue of 16 descriptors.
const MUCH_MEMORY: u64 = 512;

/// A case by name, and what is left of it.
pub type Case = (&'static str, Trace);

/// What the host sees of a case afterwards.
#[derive(Debug, Clone, Copy)]
pub enum Trace {
    /// The device has failed, once, and its fault says this.
    Fault(&'static str),
    /// This counter of the device has counted.
    Counter(&'static str),
    /// An access that meant nothing was counted.
    Ignored,
    /// The guest was told; or there is nothing to tell.
    Answer,
}

/// Runs cases about one device of a machine, and asserts of each that the guest saw what it had to, that the
/// monitor bore it and says why, and that it cost nobody anything.
///
/// # Panics
/// If it is not so; it tells of all cases that went wrong.
pub fn bear(machine: &Machine, subject: Subject, cases: &[Case]) {
    if !crate::kvm_or_left_out() {
        return;
    }
    let place = tempfile::tempdir().expect("a temporary directory is made");
    let mut problems = Vec::new();
    for some in cases.chunks(machine.at_once) {
        bear_together(machine, subject, some, &place, &mut problems);
    }
    assert!(problems.is_empty(), "{subject:?}:\n{}", problems.join("\n"));
}

/// A sliver that does a case.
struct Doer<'a> {
    case: Case,
    sliver: Running,
    control: Control<'a>,
    /// Processor time before the watch, in microseconds.
    cpu_us: u64,
}

fn bear_together(
    machine: &Machine,
    subject: Subject,
    cases: &[Case],
    place: &TempDir,
    problems: &mut Vec<String>,
) {
    let neighbour = Neighbour::begin(machine);
    let mut outside = Outside::new(subject, cases.len(), place);
    let slivers: Vec<_> = cases
        .iter()
        .map(|case| (*case, outside.equip(guest(machine, subject, *case)).spawn()))
        .collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| outside.feed(&done));
        // Whatever happens, the feeding ends.
        let _end = OnDrop(|| done.store(true, Ordering::Relaxed));
        let mut doers = Vec::new();
        for (case, sliver) in slivers {
            match Doer::settled(machine, case, sliver) {
                Ok(doer) => doers.push(doer),
                Err(problem) => problems.push(format!("{}: {problem}", case.0)),
            }
        }
        for doer in &mut doers {
            doer.cpu_us = processor_time(&doer.control.client.status());
        }
        thread::sleep(WATCH);
        let (mut found, released): (Vec<_>, Vec<_>) = doers
            .into_iter()
            .map(|mut doer| (doer.judge(subject), doer.release()))
            .unzip();
        for (found, doer) in found.iter_mut().zip(released) {
            found.extend(doer.judge_end());
        }
        problems.extend(found.into_iter().flatten());
    });
    neighbour.end();
}

fn guest(machine: &Machine, subject: Subject, (name, _): Case) -> Sliver {
    let memory = match name {
        "total-over-4-gib" => MUCH_MEMORY,
        _ => MEMORY,
    };
    machine
        .sliver(&[name, subject.name(), "held"])
        .vcpus(2)
        .memory_mib(memory)
}

impl<'a> Doer<'a> {
    /// Waits until the guest has seen what came of its case.
    fn settled(machine: &'a Machine, case: Case, mut sliver: Running) -> Result<Self, String> {
        let mut control = sliver
            .control_if_it_runs()
            .map(|client| Control { client, machine });
        let settled = control.as_mut().and_then(|control| {
            until_within(SETTLING, &format!("{} is settled", case.0), || {
                control.peek("SETTLED")
            })
        });
        match (control, settled) {
            (Some(control), Some(_)) => Ok(Self {
                case,
                sliver,
                control,
                cpu_us: 0,
            }),
            _ => Err(format!("it ended early: {}", told(&sliver.wait()))),
        }
    }

    /// What is wrong while the guest rests.
    fn judge(&mut self, subject: Subject) -> Vec<String> {
        let mut problems = Vec::new();
        let status = self.control.client.status();
        if status.state != State::Running {
            problems.push(format!("it is {:?}", status.state));
        }
        let cost = processor_time(&status) - self.cpu_us;
        if cost >= self.control.machine.affordable_us {
            problems.push(format!("it cost {cost} us of a processor in {WATCH:?}"));
        }
        let device = status.devices.iter().find(|d| d.tag == subject.tag());
        match device {
            None => problems.push(format!("there is no device {}", subject.tag())),
            Some(device) => problems.extend(self.case.1.missing_in(device)),
        }
        self.about(problems)
    }

    /// Lets the guest go on to its end.
    fn release(mut self) -> Self {
        self.control.poke("RELEASED");
        self
    }

    fn judge_end(self) -> Vec<String> {
        let (name, trace) = self.case;
        let ended = self.sliver.wait();
        let mut problems = Vec::new();
        let exit = &ended.record().exit;
        if (exit.kind, exit.status) != (ExitKind::Exited, 0) {
            problems.push(told(&ended));
        }
        let ignored = ended.record().ignored_accesses;
        if matches!(trace, Trace::Ignored) && ignored == 0 {
            problems.push("no access was counted as one that means nothing".to_owned());
        }
        let messages = ended.errors.matches("stopped until the guest resets it");
        let (messages, expected) = (messages.count(), matches!(trace, Trace::Fault(_)));
        if expected && messages != 1 {
            problems.push(format!(
                "the fault was told {messages} times: {:?}",
                ended.errors
            ));
        }
        problems
            .iter()
            .map(|problem| format!("{name}: {problem}"))
            .collect()
    }

    fn about(&self, problems: Vec<String>) -> Vec<String> {
        let name = self.case.0;
        problems
            .iter()
            .map(|problem| format!("{name}: {problem}"))
            .collect()
    }
}

impl Trace {
    /// What of it the device does not show.
    fn missing_in(self, device: &DeviceStatus) -> Option<String> {
        let count = |name: &str| device.counters.get(name).copied();
        let fault = device.fault.as_deref();
        match self {
            Self::Fault(reason) => (!fault.is_some_and(|fault| fault.contains(reason))
                || count("faults") != Some(1)
                || device.up)
                .then(|| format!("it shows no fault of {reason:?}: {device:?}")),
            Self::Counter(name) => (count(name).is_none_or(|count| count == 0) || fault.is_some())
                .then(|| format!("it did not count {name}: {device:?}")),
            Self::Ignored | Self::Answer => None,
        }
    }
}

/// A sliver that does nothing wrong.
struct Neighbour<'a> {
    sliver: Running,
    control: Control<'a>,
    beats: u64,
}

impl<'a> Neighbour<'a> {
    fn begin(machine: &'a Machine) -> Self {
        let sliver = machine.sliver(&["beat"]).memory_mib(MEMORY);
        let sliver = sliver.spawn_running();
        let mut control = Control::of(machine, &sliver);
        let beats = until("the neighbour lives", || control.peek("SETTLED"));
        Self {
            sliver,
            control,
            beats: beats.expect("the neighbour does not end"),
        }
    }

    fn end(mut self) {
        let before = self.beats;
        let goes_on = || {
            let beats = self.control.peek("SETTLED")??;
            (beats > before).then_some(())
        };
        until("the neighbour goes on", goes_on);
        let status = self.control.client.status();
        assert_eq!(status.state, State::Running);
        assert!(status.devices.iter().all(|device| device.fault.is_none()));
        self.control.poke("RELEASED");
        self.sliver.wait().assert_exited(0);
    }
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn processor_time(status: &Status) -> u64 {
    status.cpu_us.guest + status.cpu_us.monitor
}

fn told(ended: &Ended) -> String {
    let exit = &ended.record().exit;
    let said = [&ended.console, &ended.errors];
    format!("{:?} with {}: {said:?}", exit.kind, exit.status)
}

/// Steers a sliver, and reads and writes what its guest keeps.
struct Control<'a> {
    client: Client,
    machine: &'a Machine,
}

impl<'a> Control<'a> {
    fn of(machine: &'a Machine, sliver: &Running) -> Self {
        let client = sliver.control();
        Self { client, machine }
    }

    /// A number in the guest's memory: `None` as long as it is 0, `Some(None)` if the sliver has
    /// ended.
    fn peek(&mut self, symbol: &str) -> Option<Option<u64>> {
        let address = self.machine.address_of(symbol);
        match self.client.try_ask(Op::ReadMemory { address, len: 8 }) {
            None => Some(None),
            Some(Ok(Answer::Memory(hex))) => {
                let number = u64::from_str_radix(&hex, 16).expect("the answer is hexadecimal");
                (number != 0).then_some(Some(number.swap_bytes()))
            }
            Some(other) => panic!("asked for memory, got {other:?}"),
        }
    }

    /// Makes a number in the guest's memory 1.
    fn poke(&mut self, symbol: &str) {
        let address = self.machine.address_of(symbol);
        let hex = "0100000000000000".to_owned();
        // One that has ended shows it in its record.
        let _ = self.client.try_ask(Op::WriteMemory { address, hex });
    }
}
