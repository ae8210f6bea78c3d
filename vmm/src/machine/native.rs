//! What only a native sliver's machine has: its image's layout, the memory that tells it of its
//! surroundings, a clock of its own, and the control window.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use slice_abi::control;
use slice_abi::vcpu::VcpuBlock;
use vm_memory::{Bytes, GuestAddress};

use super::Machine;
use crate::attend;
use crate::backtrace;
use crate::boot::slice::NativeImage;
use crate::boot::slice::layout::{Layout, low};
use crate::boot::slice::load;
use crate::clock::{HostTime, SliverClock};
use crate::devices::bus::DeviceSet;
use crate::exit::Registers;
use crate::kvm::cpuid::Processor;
use crate::kvm::system::SystemArea;
use crate::kvm::tsc::host_tsc;
use crate::kvm::vcpu::Vcpu;
use crate::kvm::vm::{KvmError, Vm};
use crate::nanos::Nanos;
use crate::sched::governor::Granted;
use crate::sched::quota::{self, NetGranted};

/// The guest's clocks are brought up to date this often while it runs.
pub(crate) const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// The native part of a machine.
#[derive(Debug)]
pub(crate) struct Native {
    image: NativeImage,
    layout: Layout,
    processor: Processor,
    system: Arc<SystemArea>,
    clock: Mutex<SliverClock>,
    /// Counter value at which the clocks are due to be brought up to date, and how often they are.
    follow_at: AtomicU64,
    follow_ticks: u64,
}

impl Native {
    /// The part of a machine that runs `image`, whose clock begins now.
    pub(crate) fn new(
        image: NativeImage,
        layout: Layout,
        processor: Processor,
        system: Arc<SystemArea>,
        tsc_khz: u32,
    ) -> Self {
        let clock = SliverClock::start(host_time(), tsc_khz);
        let follow_ticks = FOLLOW_EVERY.as_millis() as u64 * u64::from(tsc_khz);
        system.clock().publish(|| *clock.reading());
        Self {
            image,
            layout,
            processor,
            system,
            clock: Mutex::new(clock),
            follow_at: AtomicU64::new(host_tsc() + follow_ticks),
            follow_ticks,
        }
    }

    /// Where things lie.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The image it runs.
    pub(crate) fn image(&self) -> &NativeImage {
        &self.image
    }

    /// What it may read, and its exceptions' records.
    pub(crate) fn system(&self) -> &Arc<SystemArea> {
        &self.system
    }

    /// Makes a further vCPU, ready to enter the image.
    fn further_vcpu(&self, index: usize, vm: &Vm) -> Result<Vcpu, KvmError> {
        let entry =
            load::prepare_vcpu(index, &self.image, &self.layout, vm.ram()).map_err(|source| {
                KvmError::Call {
                    call: "writing the vCPU block",
                    source,
                }
            })?;
        Vcpu::further(vm, &self.processor, index, &entry)
    }

    /// Counter value at the guest's first instruction as the guest noted it.
    pub(super) fn noted_entry(&self, vm: &Vm) -> Option<u64> {
        let block = load::vcpu_block(&self.layout, 0);
        let at = block.this + std::mem::offset_of!(VcpuBlock, entry_tsc) as u64;
        vm.ram().read_obj(GuestAddress(at)).ok()
    }

    /// Return addresses of vCPU `index`, from its registers.
    pub(crate) fn backtrace(&self, index: usize, registers: &Registers, vm: &Vm) -> Vec<u64> {
        let stack = self.layout.stack(index);
        let read = |at| vm.ram().read_obj(GuestAddress(at)).ok();
        backtrace::walk(
            registers.rip,
            registers.rbp,
            (stack.start, stack.end()),
            read,
        )
    }

    /// A write to the control window, except `EXIT`. `index` is the vCPU that writes. Gives the
    /// devices that have more to serve.
    pub(crate) fn write_control(
        self: &Arc<Self>,
        machine: &Arc<Machine>,
        index: usize,
        register: u64,
        value: u64,
    ) -> DeviceSet {
        match register {
            control::IDLE => return self.idle(machine, index, value),
            control::YIELD => std::thread::yield_now(),
            control::WAKE => self.wake(machine, value),
            _ => machine.bus().ignore(),
        }
        DeviceSet::default()
    }

    /// Serves all queues, then sleeps until woken or until the sliver's monotonic clock shows
    /// `deadline` (0: no limit).
    fn idle(&self, machine: &Arc<Machine>, index: usize, deadline: u64) -> DeviceSet {
        let until = (deadline != 0).then(|| {
            let now = self.clock().monotonic_ns(host_tsc());
            Nanos(attend::now().0.saturating_add(deadline.saturating_sub(now)))
        });
        let slot = &machine.slots[index];
        slot.dozes.store(true, Ordering::SeqCst);
        let unfinished = machine.rest(index, until);
        slot.dozes.store(false, Ordering::SeqCst);
        if host_tsc() >= self.follow_at.load(Ordering::Relaxed) {
            self.follow_host_time(machine);
            // The control thread looks after the clocks while a vCPU runs, and sleeps otherwise.
            machine.bell.ring();
        }
        unfinished
    }

    fn wake(self: &Arc<Self>, machine: &Arc<Machine>, target: u64) {
        let target = match usize::try_from(target) {
            Ok(index) if index < machine.slots.len() => index,
            _ => return machine.bus().ignore(),
        };
        if machine.lifecycle.start_vcpu(target) {
            let native = Arc::clone(self);
            machine.start_thread(target, move |vm| native.further_vcpu(target, vm));
        } else {
            machine.wake_vcpu(target);
        }
    }

    /// Takes the time for which the sliver has stood still out of its monotonic clock.
    pub(super) fn restart_clock(&self, still_since: u64) {
        self.set_clock(|clock, now| clock.resume(still_since, now));
    }

    fn set_clock(&self, change: impl FnOnce(&mut SliverClock, HostTime)) {
        let mut clock = self.clock();
        self.system.clock().publish(|| {
            change(&mut clock, host_time());
            *clock.reading()
        });
    }

    /// Brings the guest's clocks up to date with the host's, unless that was done lately.
    pub(super) fn follow_host_time(&self, machine: &Machine) {
        if host_tsc() >= self.follow_at.load(Ordering::Relaxed) && !machine.is_still() {
            self.set_clock(|clock, now| clock.follow(now));
            self.follow_at
                .store(host_tsc() + self.follow_ticks, Ordering::Relaxed);
        }
    }

    /// Writes the quota page.
    pub(super) fn tell_quota(&self, granted: &Granted, net: Option<&NetGranted>) {
        let clock = self.clock();
        let now = Nanos(clock.monotonic_ns(host_tsc()));
        // Holding the clock keeps other writers away.
        quota::write(self.system.quota(), granted, now);
        if let Some(net) = net {
            quota::write_net(self.system.quota(), net, now);
        }
    }

    fn clock(&self) -> MutexGuard<'_, SliverClock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an address lies in the control window, and at which register.
pub(crate) fn control_register(address: u64) -> Option<u64> {
    address
        .checked_sub(low::CONTROL)
        .filter(|offset| *offset < control::CONTROL_WINDOW_SIZE)
}

/// The host's clocks now. They cannot be read at one moment: of a few attempts, the one that took
/// the shortest time is taken, so that a preemption in between does not shift one against another.
fn host_time() -> HostTime {
    const ATTEMPTS: usize = 4;
    /// A reading without interruption takes less than this.
    const QUICK_TICKS: u64 = 2_000;
    let nanos = |id| {
        let time = clock_gettime(id);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    };
    let mut best: Option<(u64, HostTime)> = None;
    for _ in 0..ATTEMPTS {
        let before = host_tsc();
        let (monotonic_ns, realtime_ns) = (nanos(ClockId::Monotonic), nanos(ClockId::Realtime));
        let took = host_tsc().saturating_sub(before);
        let time = HostTime {
            tsc: before + took / 2,
            monotonic_ns,
            realtime_ns,
        };
        if best.is_none_or(|(least, _)| took < least) {
            best = Some((took, time));
        }
        if took < QUICK_TICKS {
            break;
        }
    }
    best.map(|(_, time)| time).expect("there was an attempt")
}
