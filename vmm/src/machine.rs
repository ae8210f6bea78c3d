//! A sliver's machine: its VM, devices, clocks and vCPUs, and what the guest's accesses do to them.
//!
//! Shared by the vCPU threads and the control thread. vCPU 0 runs on the thread that calls
//! [`Machine::run`]; the others get a thread each when the guest first wakes them.

mod govern;
pub(crate) mod legacy;
pub(crate) mod native;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use self::legacy::Legacy;
use self::native::Native;
use crate::attend::{Look, now};
use crate::control::bell::Bell;
use crate::control::proto::{DeviceStatus, ExitCounts};
use crate::devices::attendant::Attendant;
use crate::devices::bus::Bus;
use crate::devices::uplink::UplinkSeat;
use crate::devices::virtio::block::SharedBudget;
use crate::doze::Doze;
use crate::exit::{Exit, Registers};
use crate::kvm::kick::Kick;
use crate::kvm::tsc::host_tsc;
use crate::kvm::vcpu::Vcpu;
use crate::kvm::vm::{KvmError, Vm};
use crate::lifecycle::{Lifecycle, PausedFor};
use crate::net::gate::Gate;
use crate::sched::account::ThreadAccount;
use crate::sched::governor::Governor;
use crate::spec::CpuLimits;

/// How late a sleep may end to be coalesced with other timers, in nanoseconds. The default of 50 us
/// would make every sleep of the guest that much longer.
pub(crate) const TIMER_SLACK_NS: u64 = 1_000;

/// What one vCPU has outside its thread.
#[derive(Debug, Default)]
pub(crate) struct VcpuSlot {
    pub(crate) doze: Doze,
    pub(crate) look: Look,
    /// Whether it idles, as a native guest's does.
    pub(crate) dozes: AtomicBool,
    pub(crate) exits: Exits,
    pub(crate) kick: OnceLock<Arc<Kick>>,
    pub(crate) account: ThreadAccount,
    /// Registers when it left the guest for good.
    pub(crate) last_registers: OnceLock<Registers>,
}

/// Exits of one vCPU by reason, counted by its thread.
#[derive(Debug, Default)]
pub(crate) struct Exits {
    pub(crate) device_writes: AtomicU64,
    pub(crate) device_reads: AtomicU64,
    pub(crate) idle: AtomicU64,
    pub(crate) other: AtomicU64,
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    // First, and so dropped first: a device waits for the kernel to be done with guest memory.
    bus: Bus,
    vm: Vm,
    kind: Kind,
    /// Where a sliver's life is decided.
    pub lifecycle: Lifecycle,
    /// Wakes the control thread.
    pub bell: Arc<Bell>,
    pub(crate) slots: Vec<VcpuSlot>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The one that attends to the devices while no vCPU does.
    pub(crate) devices_thread: Mutex<Option<JoinHandle<()>>>,
    pub(crate) devices_account: ThreadAccount,
    governor: Governor,
    /// What its frames pass, if it has a network card.
    gate: Option<Arc<Mutex<Gate>>>,
    /// Its seat on the node's uplink, if it has one.
    uplink: Option<Arc<UplinkSeat>>,
    /// What its disks draw on, if it has any.
    disk_budget: Option<SharedBudget>,
    entered_tsc: AtomicU64,
    /// Made when a device first waits for something.
    pub(crate) attendant: OnceLock<Attendant>,
}

/// What a machine has according to the kind of its image.
#[derive(Debug)]
pub(crate) enum Kind {
    Native(Arc<Native>),
    Legacy(Arc<Legacy>),
}

/// The parts of a machine, made by [`crate::start`].
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) vm: Vm,
    pub(crate) kind: Kind,
    pub(crate) bus: Bus,
    pub(crate) bell: Arc<Bell>,
    pub(crate) vcpus: usize,
    pub(crate) start_paused: bool,
    pub(crate) limits: CpuLimits,
    pub(crate) gate: Option<Arc<Mutex<Gate>>>,
    pub(crate) uplink: Option<Arc<UplinkSeat>>,
    pub(crate) disk_budget: Option<SharedBudget>,
}

impl Machine {
    /// Puts a machine together.
    pub(crate) fn new(parts: Parts) -> Self {
        let sleeps_unseen = matches!(parts.kind, Kind::Legacy(_));
        Self {
            governor: Governor::new(parts.limits, parts.vcpus, sleeps_unseen, now()),
            lifecycle: Lifecycle::new(parts.vcpus, parts.start_paused),
            slots: (0..parts.vcpus).map(|_| VcpuSlot::default()).collect(),
            vm: parts.vm,
            kind: parts.kind,
            bus: parts.bus,
            bell: parts.bell,
            threads: Mutex::default(),
            devices_thread: Mutex::default(),
            devices_account: ThreadAccount::default(),
            gate: parts.gate,
            uplink: parts.uplink,
            disk_budget: parts.disk_budget,
            entered_tsc: AtomicU64::new(0),
            attendant: OnceLock::new(),
        }
    }

    /// Runs vCPU 0 on this thread until the sliver has ended and every other thread of it with it:
    /// whoever holds the machine next is its last owner, and with it go its devices.
    pub fn run(self: &Arc<Self>, vcpu: Vcpu) {
        if let Some(legacy) = self.legacy() {
            legacy.begin(self);
        }
        crate::run::run_vcpu(self, vcpu);
        loop {
            let Some(thread) = self.threads().pop() else {
                break;
            };
            // A panic has been reported by the thread's guard.
            let _ = thread.join();
        }
        let devices_thread = self.devices_thread.lock();
        let devices_thread = devices_thread
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = devices_thread {
            // An idle vCPU may have taken the nudge that came with the end. Now nobody else can.
            self.nudge();
            let _ = thread.join();
        }
        if let Some(legacy) = self.legacy() {
            legacy.finish();
        }
    }

    /// Ends the sliver.
    pub fn end(&self, exit: Exit) {
        self.lifecycle.end(exit);
        self.kick_all();
        self.nudge();
        self.bell.ring();
    }

    /// Pauses it; the vCPUs stand still a little later, and the bell rings when each does.
    pub fn pause(&self, whom: PausedFor) {
        self.lifecycle.pause(whom);
        self.kick_all();
    }

    /// Lets it go on, its monotonic clock where it stood.
    pub fn resume(&self) {
        self.restart_clock();
        self.lifecycle.resume();
        self.nudge();
    }

    /// Has the devices looked at, whatever they have told while nobody could act on it.
    fn nudge(&self) {
        if let Some(attendant) = self.attendant.get() {
            attendant.nudge();
        }
    }

    /// Lets the parked vCPU `index` run for one instruction.
    pub fn step(&self, index: usize) -> Result<(), String> {
        if !self.lifecycle.can_step(index) {
            return Err(format!("vCPU {index} does not stand still"));
        }
        self.restart_clock();
        self.lifecycle.step(index);
        Ok(())
    }

    /// Whether some device waits for more than its doorbell.
    pub(crate) fn is_attended(&self) -> bool {
        self.attendant.get().is_some()
    }

    /// Whether some vCPU runs: its clocks have to be looked after, and its place in the ledger.
    pub(crate) fn is_busy(&self) -> bool {
        let awake = |index: &usize| !self.slots[*index].dozes.load(Ordering::SeqCst);
        !self.is_still() && self.lifecycle.started().iter().any(awake)
    }

    /// Gets every vCPU out of the guest and out of its sleep.
    pub fn kick_all(&self) {
        for slot in &self.slots {
            if let Some(kick) = slot.kick.get() {
                kick.kick();
            }
            slot.doze.wake();
        }
        self.governor.wake();
    }

    /// The guest's memory and where things lie in it.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Its native part, if it runs a native image.
    pub(crate) fn native(&self) -> Option<&Arc<Native>> {
        match &self.kind {
            Kind::Native(native) => Some(native),
            Kind::Legacy(_) => None,
        }
    }

    /// Its legacy part, if it runs a kernel.
    pub(crate) fn legacy(&self) -> Option<&Arc<Legacy>> {
        match &self.kind {
            Kind::Native(_) => None,
            Kind::Legacy(legacy) => Some(legacy),
        }
    }

    /// What it has according to the kind of its image.
    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Its devices.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Counter value of the guest's first instruction: as the guest noted it, if that can be,
    /// or else when vCPU 0 was entered; 0 if it never was.
    pub fn first_instruction_tsc(&self) -> u64 {
        let entered = self.entered_tsc.load(Ordering::Relaxed);
        let noted = self
            .native()
            .and_then(|native| native.noted_entry(&self.vm));
        let noted = noted.unwrap_or(0);
        if entered != 0 && (entered..host_tsc()).contains(&noted) {
            noted
        } else {
            entered
        }
    }

    pub(crate) fn note_entry(&self) {
        let _ =
            self.entered_tsc
                .compare_exchange(0, host_tsc(), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Takes the time for which the sliver has stood still, if it has, out of its own clock. The
    /// clock of a legacy guest is KVM's, which goes on with the host's.
    fn restart_clock(&self) {
        if let (Some(native), Some(since)) = (self.native(), self.lifecycle.still_since()) {
            native.restart_clock(since);
        }
    }

    /// Brings the guest's clocks up to date with the host's, unless that was done lately.
    pub(crate) fn follow_host_time(&self) {
        if let Some(native) = self.native() {
            native.follow_host_time(self);
        }
    }

    fn is_still(&self) -> bool {
        self.lifecycle.still_since().is_some()
    }

    /// Starts the thread of vCPU `index`, which `make` makes on it.
    fn start_thread(
        self: &Arc<Self>,
        index: usize,
        make: impl FnOnce(&Vm) -> Result<Vcpu, KvmError> + Send + 'static,
    ) {
        let machine = Arc::clone(self);
        let spawned = std::thread::Builder::new()
            .name(format!("vcpu{index}"))
            .spawn(move || {
                let _guard = EndGuard::new(&machine);
                match make(&machine.vm) {
                    Ok(vcpu) => crate::run::run_vcpu(&machine, vcpu),
                    Err(error) => {
                        machine.end(Exit::error(format!("cannot start vCPU {index}: {error}")))
                    }
                }
            });
        match spawned {
            Ok(thread) => self.threads().push(thread),
            Err(error) => {
                self.end(Exit::error(format!(
                    "cannot start a thread for vCPU {index}: {error}"
                )));
            }
        }
    }

    /// How each device does.
    pub fn device_status(&self) -> Vec<DeviceStatus> {
        let serial = self.legacy().map(|legacy| legacy.ports().serial.status());
        self.bus.status().into_iter().chain(serial).collect()
    }

    /// What its frames pass, if it has a network card.
    pub(crate) fn gate(&self) -> Option<&Arc<Mutex<Gate>>> {
        self.gate.as_ref()
    }

    /// Its seat on the node's uplink, if it has one.
    pub(crate) fn uplink(&self) -> Option<&UplinkSeat> {
        self.uplink.as_deref()
    }

    /// Accesses of the guest that meant nothing, so far.
    pub fn ignored(&self) -> u64 {
        let ports = self.legacy().map_or(0, |legacy| legacy.ports().ignored());
        self.bus.ignored() + ports
    }

    /// Why vCPUs left the guest, and how often.
    pub fn exit_counts(&self) -> ExitCounts {
        let sum = |field: fn(&Exits) -> &AtomicU64| {
            let slots = self.slots.iter();
            slots
                .map(|slot| field(&slot.exits).load(Ordering::Relaxed))
                .sum()
        };
        ExitCounts {
            device_writes: sum(|exits| &exits.device_writes),
            device_reads: sum(|exits| &exits.device_reads),
            idle: sum(|exits| &exits.idle),
            other: sum(|exits| &exits.other),
            looking_us: self.slots.iter().map(|slot| slot.look.spent_us()).sum(),
        }
    }

    fn threads(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the sliver when a thread of its ends for whatever reason, a panic among them.
#[derive(Debug)]
pub(crate) struct EndGuard(Arc<Machine>);

impl EndGuard {
    pub(crate) fn new(machine: &Arc<Machine>) -> Self {
        Self(Arc::clone(machine))
    }
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        // The first end counts: this one only if the thread did not get as far as another.
        self.0.end(Exit::error("a thread of the monitor panicked"));
    }
}
