//! One vCPU: its state at entry, entering the guest, and its registers.

mod legacy;

use std::io;
use std::sync::Arc;

use kvm_bindings::{CpuId, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::{VcpuExit, VcpuFd};

use super::cpuid::Processor;
use super::kick::Kick;
use super::tsc;
use super::vm::{KvmError, Memory, Vm};
use crate::boot::slice::platform::{
    GDT_REGISTER, IDT_REGISTER, TASK_STATE_SIZE, selector, vcpu_page,
};
use crate::exit::{Registers, registers};

/// The state in which a vCPU enters a native image.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// First instruction.
    pub rip: u64,
    /// Top of its stack.
    pub rsp: u64,
    /// First argument.
    pub rdi: u64,
    /// Second argument.
    pub rsi: u64,
    /// Base of the `fs` segment.
    pub fs_base: u64,
    /// Guest physical address of the root page table.
    pub page_tables: u64,
}

/// A vCPU, owned by the thread that runs it.
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
    kick: Arc<Kick>,
    index: usize,
    /// What the guest runs in; dropped after `fd`.
    _memory: Arc<Memory>,
}

impl Vcpu {
    /// Creates vCPU 0 at the entry of an image, and finds out on it what of `processor` KVM allows.
    pub fn first(vm: &Vm, processor: &mut Processor, entry: &Entry) -> Result<Self, KvmError> {
        let vcpu = Self::create(vm, &processor.cpuid(0)?, 0)?;
        let mut sregs = vcpu.system_registers(entry)?;
        processor.negotiate(&vcpu.fd, &mut sregs)?;
        vcpu.enter_at(entry)?;
        Ok(vcpu)
    }

    /// Creates a further vCPU like the first.
    pub fn further(
        vm: &Vm,
        processor: &Processor,
        index: usize,
        entry: &Entry,
    ) -> Result<Self, KvmError> {
        let vcpu = Self::create(vm, &processor.cpuid(index)?, index)?;
        processor.apply(&vcpu.fd, &mut vcpu.system_registers(entry)?)?;
        vcpu.enter_at(entry)?;
        Ok(vcpu)
    }

    fn create(vm: &Vm, cpuid: &CpuId, index: usize) -> Result<Self, KvmError> {
        let (fd, memory) = vm.create_vcpu(index)?;
        fd.set_cpuid2(cpuid)
            .map_err(KvmError::call("KVM_SET_CPUID2"))?;
        tsc::share_host_tsc(&fd).map_err(|source| KvmError::Call {
            call: "KVM_SET_DEVICE_ATTR (TSC offset)",
            source,
        })?;
        let kick = Kick::new(&fd).map_err(|source| KvmError::Call {
            call: "mapping a vCPU's page",
            source,
        })?;
        Ok(Self {
            fd,
            kick: Arc::new(kick),
            index,
            _memory: memory,
        })
    }

    fn enter_at(&self, entry: &Entry) -> Result<(), KvmError> {
        let regs = kvm_regs {
            rip: entry.rip,
            rsp: entry.rsp,
            rdi: entry.rdi,
            rsi: entry.rsi,
            rflags: 2,
            ..Default::default()
        };
        self.set_general_registers(&regs)
    }

    /// Takes the vCPU from the stub of an exception back to the guest, with these registers.
    pub fn return_from_exception(&mut self, registers: &Registers) -> Result<(), KvmError> {
        self.settle();
        let mut sregs = self
            .fd
            .get_sregs()
            .map_err(KvmError::call("KVM_GET_SREGS"))?;
        (sregs.cs, sregs.ss) = (user_code(), user_data());
        self.fd
            .set_sregs(&sregs)
            .map_err(KvmError::call("KVM_SET_SREGS"))?;
        self.set_registers(registers)
    }

    /// 64-bit mode at privilege level 3 with paging on; CR4 is left to be negotiated.
    fn system_registers(&self, entry: &Entry) -> Result<kvm_sregs, KvmError> {
        const CR0_PE_MP_ET_NE_WP_PG: u64 = 0x8001_0033;
        const EFER_LME_LMA_NXE: u64 = 1 << 8 | 1 << 10 | 1 << 11;
        let mut sregs = self
            .fd
            .get_sregs()
            .map_err(KvmError::call("KVM_GET_SREGS"))?;
        let data = user_data();
        (sregs.ds, sregs.es, sregs.gs, sregs.ss) = (data, data, data, data);
        sregs.fs = kvm_segment {
            base: entry.fs_base,
            ..data
        };
        sregs.cs = user_code();
        sregs.tr = kvm_segment {
            base: vcpu_page(self.index),
            limit: TASK_STATE_SIZE - 1,
            selector: selector::TASK,
            type_: 11, // busy 64-bit task state
            present: 1,
            ..Default::default()
        };
        sregs.ldt = kvm_segment {
            unusable: 1,
            ..Default::default()
        };
        (sregs.gdt.base, sregs.gdt.limit) = GDT_REGISTER;
        (sregs.idt.base, sregs.idt.limit) = IDT_REGISTER;
        sregs.cr0 = CR0_PE_MP_ET_NE_WP_PG;
        sregs.cr3 = entry.page_tables;
        sregs.efer = EFER_LME_LMA_NXE;
        Ok(sregs)
    }

    /// Index of this vCPU.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Enters the guest until it exits. `Interrupted` when a [`Kick`] came.
    pub fn run(&mut self) -> io::Result<VcpuExit<'_>> {
        self.fd
            .run()
            .map_err(|error| io::Error::from_raw_os_error(error.errno()))
    }

    /// Makes KVM finish what the last exit left pending, without running the guest, so that its
    /// registers are what the guest would see. Of a kick only the reason remains.
    pub fn settle(&mut self) {
        self.kick.raise();
        let _ = self.fd.run();
        self.kick.clear();
    }

    /// Counter ticks per millisecond.
    pub fn tsc_khz(&self) -> Result<u32, KvmError> {
        self.fd
            .get_tsc_khz()
            .map_err(KvmError::call("KVM_GET_TSC_KHZ"))
    }

    /// The general registers.
    pub fn registers(&self) -> Result<Registers, KvmError> {
        Ok(registers!(Registers, self.general_registers()?))
    }

    /// Sets the general registers; of the flags only those a program may change by itself.
    pub fn set_registers(&self, registers: &Registers) -> Result<(), KvmError> {
        const USER_FLAGS: u64 = 0xcd5; // carry, parity, adjust, zero, sign, direction, overflow
        let old = self.general_registers()?;
        let mut regs = registers!(kvm_regs, registers);
        regs.rflags = old.rflags & !USER_FLAGS | registers.rflags & USER_FLAGS;
        self.set_general_registers(&regs)
    }

    fn general_registers(&self) -> Result<kvm_regs, KvmError> {
        self.fd.get_regs().map_err(KvmError::call("KVM_GET_REGS"))
    }

    fn set_general_registers(&self, regs: &kvm_regs) -> Result<(), KvmError> {
        self.fd
            .set_regs(regs)
            .map_err(KvmError::call("KVM_SET_REGS"))
    }

    /// Makes the guest's next instruction end in a debug exception, or no longer.
    pub fn set_trap_flag(&self, on: bool) -> Result<(), KvmError> {
        const TRAP_FLAG: u64 = 1 << 8;
        let mut regs = self.general_registers()?;
        regs.rflags = regs.rflags & !TRAP_FLAG | if on { TRAP_FLAG } else { 0 };
        self.set_general_registers(&regs)
    }

    /// A way to get this vCPU out of the guest.
    pub fn kick_handle(&self) -> &Arc<Kick> {
        &self.kick
    }
}

/// The guest's data segment.
fn user_data() -> kvm_segment {
    kvm_segment {
        limit: 0xffff_ffff,
        selector: selector::USER_DATA,
        type_: 3, // read, write, accessed
        present: 1,
        dpl: 3,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    }
}

/// The guest's code segment.
fn user_code() -> kvm_segment {
    kvm_segment {
        selector: selector::USER_CODE,
        type_: 11, // execute, read, accessed
        db: 0,
        l: 1,
        ..user_data()
    }
}
