//! The life of a vCPU's thread, and what the run loops of both kinds of guest have in common.

mod legacy;
mod native;

use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;

use kvm_ioctls::VcpuExit;
use rustix::thread::set_current_timer_slack;

use crate::attend::now;
use crate::exit::{Exit, Fault};
use crate::kvm::vcpu::Vcpu;
use crate::lifecycle::Presence;
use crate::machine::{Kind, Machine, TIMER_SLACK_NS};
use crate::sched::account::Doing;
use crate::sched::preempt::Alarm;

/// What a shutdown of the processor means.
const TRIPLE_FAULT: &str = "triple fault";
/// What KVM cannot do for a guest.
const NOT_EMULATED: &str = "instruction that KVM cannot emulate";
/// In place of an exception number, for what KVM reports without one.
const NO_VECTOR: u8 = 255;

/// Runs a vCPU on this thread until the sliver ends.
pub(crate) fn run_vcpu(machine: &Arc<Machine>, mut vcpu: Vcpu) {
    let slot = &machine.slots[vcpu.index()];
    slot.account.adopt(Doing::Monitor);
    machine.governor().busy(now());
    let _ = set_current_timer_slack(NonZeroU64::new(TIMER_SLACK_NS));
    let kick = Arc::clone(vcpu.kick_handle());
    kick.adopt();
    let _ = slot.kick.set(kick);
    let presence = match Alarm::new(vcpu.kick_handle()) {
        Ok(alarm) => match machine.kind() {
            Kind::Native(native) => native::run(machine, native, &mut vcpu, alarm),
            Kind::Legacy(legacy) => legacy::run(machine, legacy, &mut vcpu, alarm),
        },
        Err(error) => {
            machine.end(Exit::error(format!("cannot make a timer: {error}")));
            Presence::default()
        }
    };
    slot.account.close();
    let registers = presence
        .shown_registers
        .map_or_else(|| vcpu.registers().ok(), Some);
    if let Some(registers) = registers {
        let _ = slot.last_registers.set(registers);
    }
}

/// Has the vCPU's alarm go off when the governor wants to look.
fn set_alarm(machine: &Machine, alarm: &mut Alarm) {
    if let Err(error) = alarm.set(machine.governor().next_look(), now()) {
        machine.end(Exit::error(format!("cannot set a timer: {error}")));
    }
}

/// Why the sliver cannot go on after KVM_RUN has failed; `None` if it was only interrupted.
fn failed_run(error: &io::Error) -> Option<String> {
    match error.raw_os_error() {
        Some(libc::EINTR | libc::EAGAIN) => None,
        Some(libc::EFAULT | libc::ENOMEM | libc::EHWPOISON) => {
            Some(format!("the host could not provide guest memory: {error}"))
        }
        _ => Some(format!("KVM_RUN failed: {error}")),
    }
}

/// Why the sliver cannot go on after an exit that nobody serves.
fn unexpected(exit: &VcpuExit<'_>) -> String {
    match exit {
        VcpuExit::FailEntry(reason, cpu) => format!(
            "the processor refused to enter the guest (reason {reason:#x}, on processor {cpu})"
        ),
        VcpuExit::MemoryFault { gpa, .. } => {
            format!("the host could not provide memory at guest address {gpa:#x}")
        }
        other => format!("KVM left the guest for an unexpected reason: {other:?}"),
    }
}

/// The end of a guest that cannot go on.
fn broken(vcpu: &Vcpu, what: &str) -> Exit {
    let fault = Fault {
        vcpu: vcpu.index(),
        exception: what.to_owned(),
        vector: NO_VECTOR,
        error_code: 0,
        address: None,
        access: None,
        target: None,
        registers: vcpu.registers().unwrap_or_default(),
    };
    Exit::fault(fault, Vec::new())
}
