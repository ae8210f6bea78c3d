//! A legacy guest's vCPU: the state in which its kernel is entered, as firmware would leave it.

use kvm_bindings::{Msrs, kvm_fpu, kvm_msr_entry, kvm_regs, kvm_segment};

use super::Vcpu;
use crate::boot::legacy::{CODE, DATA, Entry, Mode, TASK};
use crate::kvm::cpuid::legacy::LegacyCpuid;
use crate::kvm::vm::{KvmError, Vm};

const CR0_PE_ET: u64 = 1 << 0 | 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME_LMA: u64 = 1 << 8 | 1 << 10;

/// Model-specific registers that firmware leaves with a value (Intel SDM volume 4).
mod msr {
    /// Fast string operations on.
    pub(super) const MISC_ENABLE: (u32, u64) = (0x1a0, 1);
    /// Memory is cached, write-back, where nothing else is said.
    pub(super) const MTRR_DEFAULT_TYPE: (u32, u64) = (0x2ff, 1 << 11 | 6);
}

/// Offsets in the local APIC's registers, and what is written there.
mod lapic {
    pub(super) const LINT0: usize = 0x350;
    pub(super) const LINT1: usize = 0x360;
    /// The line brings an interrupt of the 8259s.
    pub(super) const EXTERNAL: u32 = 7 << 8;
    /// The line brings an NMI.
    pub(super) const NMI: u32 = 4 << 8;
}

impl Vcpu {
    /// Creates vCPU `index`; the one with an `entry` begins there, the others wait to be started by
    /// it through their local APICs.
    pub fn legacy(
        vm: &Vm,
        cpuid: &LegacyCpuid,
        index: usize,
        entry: Option<&Entry>,
    ) -> Result<Self, KvmError> {
        let vcpu = Self::create(vm, &cpuid.of_vcpu(index)?, index)?;
        vcpu.set_registers_of_firmware()?;
        if let Some(entry) = entry {
            vcpu.enter_kernel(entry)?;
        }
        Ok(vcpu)
    }

    fn set_registers_of_firmware(&self) -> Result<(), KvmError> {
        let entry = |(index, data)| kvm_msr_entry {
            index,
            data,
            ..Default::default()
        };
        // One by one: which of them a KVM has differs, and none is worth not to start for.
        for register in [msr::MISC_ENABLE, msr::MTRR_DEFAULT_TYPE] {
            if let Ok(msrs) = Msrs::from_entries(&[entry(register)]) {
                let _ = self.fd.set_msrs(&msrs);
            }
        }
        let fpu = kvm_fpu {
            fcw: 0x37f,
            mxcsr: 0x1f80,
            ..Default::default()
        };
        self.fd
            .set_fpu(&fpu)
            .map_err(KvmError::call("KVM_SET_FPU"))?;
        let mut lapic = self
            .fd
            .get_lapic()
            .map_err(KvmError::call("KVM_GET_LAPIC"))?;
        for (offset, value) in [(lapic::LINT0, lapic::EXTERNAL), (lapic::LINT1, lapic::NMI)] {
            for (at, byte) in value.to_le_bytes().into_iter().enumerate() {
                lapic.regs[offset + at] = byte as std::ffi::c_char;
            }
        }
        self.fd
            .set_lapic(&lapic)
            .map_err(KvmError::call("KVM_SET_LAPIC"))
    }

    fn enter_kernel(&self, entry: &Entry) -> Result<(), KvmError> {
        let mut sregs = self
            .fd
            .get_sregs()
            .map_err(KvmError::call("KVM_GET_SREGS"))?;
        let (base, limit) = match entry.mode {
            Mode::Long { page_tables, gdt } => {
                sregs.cr3 = page_tables;
                sregs.cr4 |= CR4_PAE;
                sregs.cr0 = CR0_PE_ET | CR0_PG;
                sregs.efer |= EFER_LME_LMA;
                gdt
            }
            Mode::Protected { gdt } => {
                sregs.cr0 = CR0_PE_ET;
                sregs.cr4 = 0;
                gdt
            }
        };
        (sregs.gdt.base, sregs.gdt.limit) = (base, limit);
        (sregs.idt.base, sregs.idt.limit) = (0, 0);
        let long = matches!(entry.mode, Mode::Long { .. });
        let data = kvm_segment {
            limit: 0xffff_ffff,
            selector: DATA,
            type_: 3, // read, write, accessed
            present: 1,
            db: 1,
            s: 1,
            g: 1,
            ..Default::default()
        };
        sregs.cs = kvm_segment {
            selector: CODE,
            type_: 11, // execute, read, accessed
            db: u8::from(!long),
            l: u8::from(long),
            ..data
        };
        (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
        sregs.tr = kvm_segment {
            limit: 0x67,
            selector: TASK,
            type_: 11, // busy 64-bit or 32-bit task state
            present: 1,
            ..Default::default()
        };
        self.fd
            .set_sregs(&sregs)
            .map_err(KvmError::call("KVM_SET_SREGS"))?;
        self.set_general_registers(&kvm_regs {
            rip: entry.rip,
            rsp: entry.rsp,
            rsi: entry.rsi,
            rbx: entry.rbx,
            rflags: 2,
            ..Default::default()
        })
    }

    /// Tells the guest's clock that the vCPU has stood still, so that no watchdog of the guest takes
    /// it for a hang. A guest that does not use the clock needs no telling.
    pub fn tell_of_pause(&self) {
        let _ = self.fd.kvmclock_ctrl();
    }
}
