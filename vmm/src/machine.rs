//! A sliver's machine: its VM, devices, clocks and vCPUs, and what the guest's accesses do to them.
//!
//! Shared by the vCPU threads and the control thread. vCPU 0 runs on the thread that calls
//! [`Machine::run`]; the others get a thread each when the guest first wakes them.

mod clocks;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use slice_abi::control;
use slice_abi::vcpu::VcpuBlock;
use vm_memory::{Bytes, GuestAddress};

use self::clocks::host_time;
use crate::attend::{self, Look};
use crate::backtrace;
use crate::boot::image::Image;
use crate::boot::slice::layout::{Layout, low};
use crate::boot::slice::load;
use crate::clock::SliverClock;
use crate::control::bell::Bell;
use crate::control::proto::ExitCounts;
use crate::devices::attendant::Attendant;
use crate::devices::bus::{Bus, DeviceSet};
use crate::devices::virtio::backend::Nanos;
use crate::doze::Doze;
use crate::exit::{Exit, Registers};
use crate::kvm::cpuid::Processor;
use crate::kvm::kick::Kick;
use crate::kvm::tsc::host_tsc;
use crate::kvm::vcpu::Vcpu;
use crate::kvm::vm::{KvmError, Vm};
use crate::lifecycle::{Lifecycle, PausedFor};
use crate::sched::account::GuestAccount;

/// How late a sleep may end to be coalesced with other timers, in nanoseconds. The default of 50 us
/// would make every sleep of the guest that much longer.
pub(crate) const TIMER_SLACK_NS: u64 = 1_000;

/// The guest's clocks are brought up to date this often while it runs.
pub(crate) const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// What one vCPU has outside its thread.
#[derive(Debug, Default)]
pub(crate) struct VcpuSlot {
    pub(crate) doze: Doze,
    pub(crate) look: Look,
    dozes: AtomicBool,
    pub(crate) exits: Exits,
    pub(crate) kick: OnceLock<Arc<Kick>>,
    pub(crate) account: GuestAccount,
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
    image: Image,
    layout: Layout,
    processor: Processor,
    clock: Mutex<SliverClock>,
    /// Where a sliver's life is decided.
    pub lifecycle: Lifecycle,
    /// Wakes the control thread.
    pub bell: Arc<Bell>,
    pub(crate) slots: Vec<VcpuSlot>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The one that attends to the devices while no vCPU does.
    pub(crate) devices_thread: Mutex<Option<JoinHandle<()>>>,
    entered_tsc: AtomicU64,
    /// Made when a device first waits for something.
    pub(crate) attendant: OnceLock<Attendant>,
    /// Counter value at which the clocks are due to be brought up to date, and how often they are.
    follow_at: AtomicU64,
    follow_ticks: u64,
}

/// The parts of a machine, made by [`crate::start`].
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) vm: Vm,
    pub(crate) image: Image,
    pub(crate) layout: Layout,
    pub(crate) processor: Processor,
    pub(crate) bus: Bus,
    pub(crate) bell: Arc<Bell>,
    pub(crate) tsc_khz: u32,
    pub(crate) start_paused: bool,
}

impl Machine {
    /// Puts a machine together.
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            vm,
            image,
            layout,
            processor,
            bus,
            bell,
            tsc_khz,
            start_paused,
        } = parts;
        let clock = SliverClock::start(host_time(), tsc_khz);
        let follow_ticks = FOLLOW_EVERY.as_millis() as u64 * u64::from(tsc_khz);
        vm.system().clock().publish(|| *clock.reading());
        bus.publish_states(&vm);
        Self {
            lifecycle: Lifecycle::new(layout.vcpus(), start_paused),
            slots: (0..layout.vcpus()).map(|_| VcpuSlot::default()).collect(),
            vm,
            image,
            layout,
            processor,
            bus,
            clock: Mutex::new(clock),
            bell,
            threads: Mutex::default(),
            devices_thread: Mutex::default(),
            entered_tsc: AtomicU64::new(0),
            attendant: OnceLock::new(),
            follow_at: AtomicU64::new(host_tsc() + follow_ticks),
            follow_ticks,
        }
    }

    /// Runs vCPU 0 on this thread until the sliver has ended and every other thread of it with it:
    /// whoever holds the machine next is its last owner, and with it go its devices.
    pub fn run(self: &Arc<Self>, vcpu: Vcpu) {
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
    }

    /// Makes a further vCPU, ready to enter the image.
    fn further_vcpu(&self, index: usize) -> Result<Vcpu, KvmError> {
        let entry = load::prepare_vcpu(index, &self.image, &self.layout, self.vm.ram()).map_err(
            |source| KvmError::Call {
                call: "writing the vCPU block",
                source,
            },
        )?;
        Vcpu::further(&self.vm, &self.processor, index, &entry)
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

    /// Whether some vCPU runs, so that its clocks have to be looked after.
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
    }

    /// Nanoseconds that all vCPUs have spent in the guest.
    pub fn guest_ns(&self) -> u64 {
        self.slots.iter().map(|slot| slot.account.guest_ns()).sum()
    }

    /// The guest's memory and where things lie in it.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Where things lie.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The image it runs.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Its devices.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Counter value of the guest's first instruction: as the guest noted it, if that can be,
    /// or else when vCPU 0 was entered; 0 if it never was.
    pub fn first_instruction_tsc(&self) -> u64 {
        let entered = self.entered_tsc.load(Ordering::Relaxed);
        let block = load::vcpu_block(&self.layout, 0);
        let at = block.this + std::mem::offset_of!(VcpuBlock, entry_tsc) as u64;
        let noted = self.read_word(at).unwrap_or(0);
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

    /// Return addresses of vCPU `index`, from its registers.
    pub(crate) fn backtrace(&self, index: usize, registers: &Registers) -> Vec<u64> {
        let stack = self.layout.stack(index);
        let read = |at| self.read_word(at);
        backtrace::walk(
            registers.rip,
            registers.rbp,
            (stack.start, stack.end()),
            read,
        )
    }

    pub(crate) fn read_byte(&self, address: u64) -> Option<u8> {
        self.vm.ram().read_obj(GuestAddress(address)).ok()
    }

    fn read_word(&self, address: u64) -> Option<u64> {
        self.vm.ram().read_obj(GuestAddress(address)).ok()
    }

    /// A write to the control window, except `EXIT`. `index` is the vCPU that writes. Gives the
    /// devices that have more to serve.
    pub(crate) fn write_control(
        self: &Arc<Self>,
        index: usize,
        register: u64,
        value: u64,
    ) -> DeviceSet {
        match register {
            control::IDLE => return self.idle(index, value),
            control::YIELD => std::thread::yield_now(),
            control::WAKE => self.wake(value),
            _ => self.bus.ignore(),
        }
        DeviceSet::default()
    }

    /// Serves all queues, then sleeps until woken or until the sliver's monotonic clock shows
    /// `deadline` (0: no limit).
    fn idle(self: &Arc<Self>, index: usize, deadline: u64) -> DeviceSet {
        let until = (deadline != 0).then(|| {
            let now = self.clock().monotonic_ns(host_tsc());
            Nanos(attend::now().0.saturating_add(deadline.saturating_sub(now)))
        });
        let slot = &self.slots[index];
        slot.dozes.store(true, Ordering::SeqCst);
        let unfinished = self.rest(index, until);
        slot.dozes.store(false, Ordering::SeqCst);
        if host_tsc() >= self.follow_at.load(Ordering::Relaxed) {
            self.follow_host_time();
            // The control thread looks after the clocks while a vCPU runs, and sleeps otherwise.
            self.bell.ring();
        }
        unfinished
    }

    fn wake(self: &Arc<Self>, target: u64) {
        let target = match usize::try_from(target) {
            Ok(index) if index < self.slots.len() => index,
            _ => return self.bus.ignore(),
        };
        if self.lifecycle.start_vcpu(target) {
            self.start_thread(target);
        } else {
            self.wake_vcpu(target);
        }
    }

    fn start_thread(self: &Arc<Self>, index: usize) {
        let machine = Arc::clone(self);
        let spawned = std::thread::Builder::new()
            .name(format!("vcpu{index}"))
            .spawn(move || {
                let _guard = EndGuard::new(&machine);
                match machine.further_vcpu(index) {
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

/// Whether an address lies in the control window, and at which register.
pub(crate) fn control_register(address: u64) -> Option<u64> {
    address
        .checked_sub(low::CONTROL)
        .filter(|offset| *offset < control::CONTROL_WINDOW_SIZE)
}
