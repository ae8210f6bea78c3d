//! The run loop of a native vCPU: enter the guest, do what its exit asks for, look whether to go on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kvm_ioctls::VcpuExit;
use slice_abi::control::{EXIT, EXIT_STATUS_MASK, IDLE};
use slice_abi::info::access;
use vm_memory::{Bytes, GuestAddress};

use super::{NOT_EMULATED, TRIPLE_FAULT, broken, failed_run, set_alarm, unexpected};
use crate::attend::{TURNS, now};
use crate::boot::slice::layout::low;
use crate::boot::slice::platform::exception_name;
use crate::control::proto::StopReason;
use crate::devices::bus::{DeviceSet, Done};
use crate::exit::{Exit, Fault, Registers};
use crate::kvm::vcpu::Vcpu;
use crate::lifecycle::{Presence, Verdict};
use crate::machine::native::{Native, control_register};
use crate::machine::{Machine, VcpuSlot};
use crate::sched::account::Doing;
use crate::sched::preempt::Alarm;

/// Exception number of a debug exception.
const DEBUG_EXCEPTION: u32 = 1;
/// Exception number of a breakpoint instruction.
const BREAKPOINT: u32 = 3;
/// The breakpoint instruction.
const INT3: u8 = 0xcc;
/// Exception number of a page fault.
const PAGE_FAULT: u8 = 14;
/// What an exit comes to, once KVM's view of it is given back.
enum Next {
    /// Nothing happened: the stay was interrupted.
    Enter,
    /// An access to a device was served.
    Served(Done),
    Control {
        register: u64,
        value: u64,
    },
    Exited(u8),
    Exception,
    Broken(&'static str),
    Error(String),
}

/// Runs a vCPU on this thread until the sliver ends.
pub(super) fn run(
    machine: &Arc<Machine>,
    native: &Arc<Native>,
    vcpu: &mut Vcpu,
    mut alarm: Alarm,
) -> Presence {
    let index = vcpu.index();
    let kick = Arc::clone(vcpu.kick_handle());
    let mut presence = Presence::default();
    let mut unfinished = DeviceSet::default();
    let mut turns = 0;
    loop {
        kick.clear();
        if machine.checkpoint(vcpu, &mut presence) == Verdict::End {
            break;
        }
        if presence.shown_registers.is_some() {
            // A fault that a debugger has looked at: it ends the sliver now.
            machine.end(fault(machine, native, index));
            continue;
        }
        if !presence.stepping && !machine.pass_gate(Some(index)) {
            continue;
        }
        let next = if unfinished.is_empty() {
            turns = 0;
            // A step passes no gate: a look that is due would interrupt it again and again.
            if !presence.stepping {
                set_alarm(machine, &mut alarm);
            }
            enter(machine, vcpu)
        } else if turns >= TURNS && !presence.stepping {
            machine.hand_over();
            Next::Served(Done::default())
        } else {
            turns += 1;
            Next::Served(machine.bus().serve(unfinished, machine.vm(), now()))
        };
        let ended_step = presence.stepping
            && match &next {
                Next::Served(done) => done.unfinished.is_empty(),
                Next::Control { .. } => true,
                _ => false,
            };
        unfinished = act(machine, native, vcpu, &mut presence, next);
        if ended_step {
            // KVM executed the instruction itself and raised no exception for it.
            vcpu.settle();
            stop_for_debugger(machine, index, StopReason::Step { vcpu: index });
        }
    }
    presence
}

/// One stay in the guest.
fn enter(machine: &Arc<Machine>, vcpu: &mut Vcpu) -> Next {
    let index = vcpu.index();
    let account = &machine.slots[index].account;
    machine.note_entry();
    account.switch(Doing::Guest);
    let result = vcpu.run();
    account.switch(Doing::Monitor);
    match result {
        Ok(exit) => serve(machine, &machine.slots[index], exit),
        Err(error) => failed_run(&error).map_or(Next::Enter, Next::Error),
    }
}

/// Does what needs KVM's view of the exit, and says what is left to do.
fn serve(machine: &Machine, slot: &VcpuSlot, exit: VcpuExit<'_>) -> Next {
    let exits = &slot.exits;
    let counter = match &exit {
        VcpuExit::MmioWrite(address, _) if control_register(*address) == Some(IDLE) => &exits.idle,
        VcpuExit::MmioWrite(address, _) if control_register(*address).is_none() => {
            &exits.device_writes
        }
        VcpuExit::MmioRead(..) => &exits.device_reads,
        _ => &exits.other,
    };
    counter.fetch_add(1, Ordering::Relaxed);
    if !std::ptr::eq(counter, &exits.other) {
        slot.account.was_device();
    }
    match exit {
        VcpuExit::MmioWrite(address, data) => match control_register(address) {
            Some(register) => match <[u8; 8]>::try_from(data).map(u64::from_le_bytes) {
                Ok(value) if register == EXIT => Next::Exited((value & EXIT_STATUS_MASK) as u8),
                Ok(value) => Next::Control { register, value },
                Err(_) => {
                    machine.bus().ignore();
                    Next::Served(Done::default())
                }
            },
            None if address == low::FAULT => Next::Exception,
            None => Next::Served(machine.bus().write(address, data, machine.vm(), now())),
        },
        VcpuExit::MmioRead(address, data) => {
            if control_register(address).is_some() {
                data.fill(0);
                machine.bus().ignore();
            } else {
                machine.bus().read(address, data);
            }
            Next::Served(Done::default())
        }
        VcpuExit::Intr => Next::Enter,
        VcpuExit::Shutdown => Next::Broken(TRIPLE_FAULT),
        VcpuExit::InternalError => Next::Broken(NOT_EMULATED),
        other => Next::Error(unexpected(&other)),
    }
}

/// Does what is left to do. Gives the devices that have not finished.
fn act(
    machine: &Arc<Machine>,
    native: &Arc<Native>,
    vcpu: &mut Vcpu,
    presence: &mut Presence,
    next: Next,
) -> DeviceSet {
    let index = vcpu.index();
    match next {
        // What interrupted the stay may have been work that this thread gave to the kernel.
        Next::Enter if machine.is_attended() => {
            let done = machine.bus().serve(DeviceSet::ALL, machine.vm(), now());
            return machine.follow_up(done);
        }
        Next::Enter => {}
        Next::Served(done) => return machine.follow_up(done),
        // A step does not sleep: `IDLE` may return early.
        Next::Control { register: IDLE, .. } if presence.stepping => {}
        Next::Control { register, value } => {
            return native.write_control(machine, index, register, value);
        }
        Next::Exited(status) => {
            let mut exit = Exit::exited(status);
            if status != 0 {
                let registers = vcpu.registers().unwrap_or_default();
                exit.detail.backtrace = native.backtrace(index, &registers, machine.vm());
            }
            machine.end(exit);
        }
        Next::Exception if presence.stepping || machine.lifecycle.is_debugged() => {
            debug_exception(machine, native, vcpu, presence);
        }
        Next::Exception => {
            let record = native.system().fault_record(index);
            presence.shown_registers = Some(Registers::from(&record));
            machine.end(fault(machine, native, index));
        }
        Next::Broken(what) => {
            let mut exit = broken(vcpu, what);
            if let Some(fault) = &exit.detail.fault {
                exit.detail.backtrace = native.backtrace(index, &fault.registers, machine.vm());
            }
            machine.end(exit);
        }
        Next::Error(message) => machine.end(Exit::error(message)),
    }
    DeviceSet::default()
}

/// An exception while a debugger is there or was a moment ago. Breakpoints and single steps are
/// exceptions of the guest like others: KVM's own guest debugging does not keep them from the guest
/// where it is page-table based. The vCPU is put back to where it was before the stub.
fn debug_exception(machine: &Machine, native: &Native, vcpu: &mut Vcpu, presence: &mut Presence) {
    let index = vcpu.index();
    let record = native.system().fault_record(index);
    let mut registers = Registers::from(&record);
    let reason = match u32::try_from(record.vector) {
        Ok(BREAKPOINT) if machine.lifecycle.is_debugged() => {
            // The instruction has been executed; a debugger wants to see it before that.
            let at = registers.rip.wrapping_sub(1);
            let is_int3 = read_byte(machine, at) == Some(INT3);
            registers.rip = if is_int3 { at } else { registers.rip };
            is_int3.then_some(StopReason::Breakpoint { vcpu: index })
        }
        Ok(DEBUG_EXCEPTION) if presence.stepping => Some(StopReason::Step { vcpu: index }),
        _ => None,
    };
    if let Some(reason) = reason
        && vcpu.return_from_exception(&registers).is_ok()
    {
        // The trap flag went with the exception.
        presence.stepping = false;
        return stop_for_debugger(machine, index, reason);
    }
    presence.shown_registers = Some(registers);
    if machine.lifecycle.is_debugged() {
        let vector = record.vector as u8;
        stop_for_debugger(
            machine,
            index,
            StopReason::Fault {
                vcpu: index,
                vector,
            },
        );
    }
}

fn read_byte(machine: &Machine, address: u64) -> Option<u8> {
    machine.vm().ram().read_obj(GuestAddress(address)).ok()
}

fn stop_for_debugger(machine: &Machine, index: usize, reason: StopReason) {
    machine.lifecycle.stop_for_debugger(index, reason);
    machine.kick_all();
}

/// The exception whose record vCPU `index` has left.
fn fault(machine: &Machine, native: &Native, index: usize) -> Exit {
    const WRITE: u64 = 1 << 1;
    const FETCH: u64 = 1 << 4;
    let record = native.system().fault_record(index);
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
            .then(|| describe(native, record.cr2))
            .flatten(),
        registers,
    };
    Exit::fault(fault, native.backtrace(index, &registers, machine.vm()))
}

/// What lies at an address, in words for a person.
fn describe(native: &Native, address: u64) -> Option<String> {
    let segment = native.image().segments().iter().find(|segment| {
        let (start, end) = segment.pages();
        (start..end).contains(&address)
    });
    match segment.map(|segment| segment.access) {
        Some(bits) if bits & access::EXECUTE != 0 => Some("the image's code".to_owned()),
        Some(bits) if bits & access::WRITE != 0 => Some("the image's data".to_owned()),
        Some(_) => Some("the image's read-only data".to_owned()),
        None => native.layout().describe(address),
    }
}
