//! The run loop of a legacy vCPU: the interrupt controllers, waiting for interrupts and most
//! doorbells are KVM's business; what is left are registers and ports.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kvm_ioctls::VcpuExit;
use rustix::time::{ClockId, clock_gettime};

use super::{NOT_EMULATED, TRIPLE_FAULT, broken, failed_run, set_alarm, unexpected};
use crate::attend::now;
use crate::devices::bus::Done;
use crate::devices::ports::power::PowerEvent;
use crate::exit::Exit;
use crate::kvm::vcpu::Vcpu;
use crate::lifecycle::{Presence, Verdict};
use crate::machine::Machine;
use crate::machine::legacy::Legacy;
use crate::sched::account::Doing;
use crate::sched::preempt::Alarm;

/// What an exit comes to, once KVM's view of it is given back.
enum Next {
    Enter,
    Served(Done),
    Power(PowerEvent),
    Broken(&'static str),
    Error(String),
}

/// Runs a vCPU on this thread until the sliver ends.
pub(super) fn run(
    machine: &Arc<Machine>,
    legacy: &Arc<Legacy>,
    vcpu: &mut Vcpu,
    mut alarm: Alarm,
) -> Presence {
    let kick = Arc::clone(vcpu.kick_handle());
    let mut presence = Presence::default();
    loop {
        kick.clear();
        if machine.checkpoint(vcpu, &mut presence) == Verdict::End {
            return presence;
        }
        if std::mem::take(&mut presence.parked) {
            vcpu.tell_of_pause();
        }
        if !machine.pass_gate(Some(vcpu.index())) {
            continue;
        }
        set_alarm(machine, &mut alarm);
        match enter(machine, legacy, vcpu) {
            Next::Enter => {}
            Next::Served(done) => {
                if !machine.follow_up(done).is_empty() {
                    machine.hand_over();
                }
            }
            Next::Power(event) => machine.end(legacy.end(event)),
            Next::Broken(what) => machine.end(broken(vcpu, what)),
            Next::Error(message) => machine.end(Exit::error(message)),
        }
    }
}

/// One stay in the guest, and what follows from its end.
fn enter(machine: &Arc<Machine>, legacy: &Arc<Legacy>, vcpu: &mut Vcpu) -> Next {
    let index = vcpu.index();
    let slot = &machine.slots[index];
    machine.note_entry();
    slot.account.switch(Doing::Guest);
    let result = vcpu.run();
    slot.account.switch(Doing::Monitor);
    let exit = match result {
        Ok(exit) => exit,
        Err(error) => return failed_run(&error).map_or(Next::Enter, Next::Error),
    };
    let counter = match &exit {
        VcpuExit::MmioWrite(..) | VcpuExit::IoOut(..) => &slot.exits.device_writes,
        VcpuExit::MmioRead(..) | VcpuExit::IoIn(..) => &slot.exits.device_reads,
        _ => &slot.exits.other,
    };
    counter.fetch_add(1, Ordering::Relaxed);
    if !std::ptr::eq(counter, &slot.exits.other) {
        slot.account.was_device();
    }
    match exit {
        VcpuExit::IoOut(port, data) => legacy
            .write_port(machine, index, port, data)
            .map_or(Next::Enter, Next::Power),
        VcpuExit::IoIn(port, data) => {
            legacy.ports().read(port, data, realtime);
            Next::Enter
        }
        VcpuExit::MmioWrite(address, data) => {
            Next::Served(machine.bus().write(address, data, machine.vm(), now()))
        }
        VcpuExit::MmioRead(address, data) => {
            machine.bus().read(address, data);
            Next::Enter
        }
        VcpuExit::Intr => Next::Enter,
        VcpuExit::Shutdown => Next::Broken(TRIPLE_FAULT),
        VcpuExit::InternalError => Next::Broken(NOT_EMULATED),
        other => Next::Error(unexpected(&other)),
    }
}

/// The host's time, in seconds since 1970.
fn realtime() -> u64 {
    clock_gettime(ClockId::Realtime).tv_sec as u64
}
