//! The run loop of one vCPU: enter the guest, do what its exit asks for, look whether to go on.

use std::io;
use std::sync::Arc;

use kvm_ioctls::VcpuExit;
use slice_abi::control::{EXIT, EXIT_STATUS_MASK};

use crate::boot::slice::layout::low;
use crate::boot::slice::platform::exception_name;
use crate::control::proto::StopReason;
use crate::exit::{Exit, Fault, Registers};
use crate::kvm::vcpu::Vcpu;
use crate::lifecycle::{Presence, Verdict};
use crate::machine::{Machine, WaitForOutput, control_register};

/// Exception number of a debug exception.
const DEBUG_EXCEPTION: u32 = 1;
/// Exception number of a page fault.
const PAGE_FAULT: u8 = 14;
/// In place of an exception number, for what KVM reports without one.
const NO_VECTOR: u8 = 255;

/// What an exit comes to, once KVM's view of it is given back.
enum Next {
    Enter,
    Control { register: u64, value: u64 },
    Exited(u8),
    Exception,
    Debug { vector: u32 },
    Broken(&'static str),
    Error(String),
}

/// Runs a vCPU on this thread until the sliver ends.
pub(crate) fn run_vcpu(machine: &Arc<Machine>, mut vcpu: Vcpu) {
    let index = vcpu.index();
    let slot = &machine.slots[index];
    slot.account.adopt();
    let kick = slot.kick.get_or_init(|| vcpu.kick_handle());
    let mut presence = Presence::default();
    loop {
        vcpu.clear_kick();
        let verdict = machine
            .lifecycle
            .checkpoint(&mut vcpu, &mut presence, &|| machine.note_paused());
        if verdict == Verdict::End {
            break;
        }
        if presence.shown_registers.is_some() {
            // A fault that a debugger has looked at: it ends the sliver now.
            machine.end(fault(machine, index));
            continue;
        }
        machine.note_entry();
        slot.account.enter();
        let result = vcpu.run();
        slot.account.leave();
        let next = match result {
            Ok(exit) => serve(machine, index, exit),
            Err(error) => failed_run(&error),
        };
        act(machine, &vcpu, &mut presence, next);
    }
    let registers = presence
        .shown_registers
        .map_or_else(|| vcpu.registers().ok(), Some);
    if let Some(registers) = registers {
        let _ = slot.last_registers.set(registers);
    }
    kick.retire();
}

/// Does what needs KVM's view of the exit, and says what is left to do.
fn serve(machine: &Arc<Machine>, index: usize, exit: VcpuExit<'_>) -> Next {
    match exit {
        VcpuExit::MmioWrite(address, data) => match control_register(address) {
            Some(register) => match <[u8; 8]>::try_from(data).map(u64::from_le_bytes) {
                Ok(value) if register == EXIT => Next::Exited((value & EXIT_STATUS_MASK) as u8),
                Ok(value) => Next::Control { register, value },
                Err(_) => {
                    machine.bus().ignore();
                    Next::Enter
                }
            },
            None if address == low::FAULT => Next::Exception,
            None => {
                let mut patience = WaitForOutput { machine, index };
                if machine
                    .bus()
                    .write(address, data, machine.vm().ram(), &mut patience)
                {
                    machine.used_ring_moved();
                }
                Next::Enter
            }
        },
        VcpuExit::MmioRead(address, data) => {
            if control_register(address).is_some() {
                data.fill(0);
                machine.bus().ignore();
            } else {
                machine.bus().read(address, data);
            }
            Next::Enter
        }
        VcpuExit::Intr => Next::Enter,
        VcpuExit::Debug(debug) => Next::Debug {
            vector: debug.exception,
        },
        VcpuExit::Shutdown => Next::Broken("triple fault"),
        VcpuExit::InternalError => Next::Broken("instruction that KVM cannot emulate"),
        VcpuExit::FailEntry(reason, cpu) => Next::Error(format!(
            "the processor refused to enter the guest (reason {reason:#x}, on processor {cpu})"
        )),
        VcpuExit::MemoryFault { gpa, .. } => Next::Error(format!(
            "the host could not provide memory at guest address {gpa:#x}"
        )),
        other => Next::Error(format!(
            "KVM left the guest for an unexpected reason: {other:?}"
        )),
    }
}

fn failed_run(error: &io::Error) -> Next {
    match error.raw_os_error() {
        Some(libc::EINTR | libc::EAGAIN) => Next::Enter,
        Some(libc::EFAULT | libc::ENOMEM | libc::EHWPOISON) => {
            Next::Error(format!("the host could not provide guest memory: {error}"))
        }
        _ => Next::Error(format!("KVM_RUN failed: {error}")),
    }
}

fn act(machine: &Arc<Machine>, vcpu: &Vcpu, presence: &mut Presence, next: Next) {
    let index = vcpu.index();
    match next {
        Next::Enter => {}
        Next::Control { register, value } => machine.write_control(index, register, value),
        Next::Exited(status) => {
            let mut exit = Exit::exited(status);
            if status != 0 {
                let registers = vcpu.registers().unwrap_or_default();
                exit.detail.backtrace = machine.backtrace(index, &registers);
            }
            machine.end(exit);
        }
        Next::Exception => {
            let record = machine.vm().system().fault_record(index);
            presence.shown_registers = Some(Registers::from(&record));
            if machine.lifecycle.is_debugged() {
                let vector = record.vector as u8;
                stop_for_debugger(
                    machine,
                    StopReason::Fault {
                        vcpu: index,
                        vector,
                    },
                );
            } else {
                machine.end(fault(machine, index));
            }
        }
        Next::Debug { vector } => {
            let reason = if vector == DEBUG_EXCEPTION {
                StopReason::Step { vcpu: index }
            } else {
                StopReason::Breakpoint { vcpu: index }
            };
            stop_for_debugger(machine, reason);
        }
        Next::Broken(what) => {
            let registers = vcpu.registers().unwrap_or_default();
            let fault = Fault {
                vcpu: index,
                exception: what.to_owned(),
                vector: NO_VECTOR,
                error_code: 0,
                address: None,
                access: None,
                target: None,
                registers,
            };
            machine.end(Exit::fault(fault, machine.backtrace(index, &registers)));
        }
        Next::Error(message) => machine.end(Exit::error(message)),
    }
}

fn stop_for_debugger(machine: &Machine, reason: StopReason) {
    machine.lifecycle.stop_for_debugger(reason);
    machine.kick_all();
}

/// The exception whose record vCPU `index` has left.
fn fault(machine: &Machine, index: usize) -> Exit {
    const WRITE: u64 = 1 << 1;
    const FETCH: u64 = 1 << 4;
    let record = machine.vm().system().fault_record(index);
    let vector = record.vector as u8;
    let registers = Registers::from(&record);
    let is_page_fault = vector == PAGE_FAULT;
    let access = match record.error_code {
        code if code & FETCH != 0 => "execute",
        code if code & WRITE != 0 => "write",
        _ => "read",
    };
    let fault = Fault {
        vcpu: index,
        exception: exception_name(vector).to_owned(),
        vector,
        error_code: record.error_code,
        address: is_page_fault.then_some(record.cr2),
        access: is_page_fault.then(|| access.to_owned()),
        target: is_page_fault
            .then(|| machine.layout().describe(record.cr2))
            .flatten(),
        registers,
    };
    Exit::fault(fault, machine.backtrace(index, &registers))
}
