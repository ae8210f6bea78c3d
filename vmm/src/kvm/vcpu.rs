//! One vCPU: its state at entry, entering the guest, and being kicked out of it from elsewhere.
#![allow(
    unsafe_code,
    reason = "the kick writes immediate_exit in a page shared with the kernel"
)]

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::{VcpuExit, VcpuFd};

use super::cpuid::Processor;
use super::tsc;
use super::vm::{KvmError, Vm};
use crate::boot::slice::platform::{
    GDT_REGISTER, IDT_REGISTER, TASK_STATE_SIZE, selector, vcpu_page,
};
use crate::exit::Registers;

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
    index: usize,
}

impl Vcpu {
    /// Creates vCPU 0 at the entry of an image, and finds out on it what of `processor` KVM allows.
    pub fn first(vm: &Vm, processor: &mut Processor, entry: &Entry) -> Result<Self, KvmError> {
        let vcpu = Self::create(vm, processor, 0)?;
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
        let vcpu = Self::create(vm, processor, index)?;
        processor.apply(&vcpu.fd, &mut vcpu.system_registers(entry)?)?;
        vcpu.enter_at(entry)?;
        Ok(vcpu)
    }

    fn create(vm: &Vm, processor: &Processor, index: usize) -> Result<Self, KvmError> {
        let fd = vm.create_vcpu(index)?;
        fd.set_cpuid2(&processor.cpuid(index)?)
            .map_err(KvmError::call("KVM_SET_CPUID2"))?;
        tsc::share_host_tsc(&fd).map_err(|source| KvmError::Call {
            call: "KVM_SET_DEVICE_ATTR (TSC offset)",
            source,
        })?;
        Ok(Self { fd, index })
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
        self.fd
            .set_regs(&regs)
            .map_err(KvmError::call("KVM_SET_REGS"))
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
    /// registers are what the guest would see. Needs a kick to be off.
    pub fn settle(&mut self) {
        self.fd.set_kvm_immediate_exit(1);
        let _ = self.fd.run();
        self.fd.set_kvm_immediate_exit(0);
    }

    /// Counter ticks per millisecond.
    pub fn tsc_khz(&self) -> Result<u32, KvmError> {
        self.fd
            .get_tsc_khz()
            .map_err(KvmError::call("KVM_GET_TSC_KHZ"))
    }

    /// The general registers.
    pub fn registers(&self) -> Result<Registers, KvmError> {
        let r = self.fd.get_regs().map_err(KvmError::call("KVM_GET_REGS"))?;
        Ok(Registers {
            rax: r.rax,
            rbx: r.rbx,
            rcx: r.rcx,
            rdx: r.rdx,
            rsi: r.rsi,
            rdi: r.rdi,
            rbp: r.rbp,
            rsp: r.rsp,
            r8: r.r8,
            r9: r.r9,
            r10: r.r10,
            r11: r.r11,
            r12: r.r12,
            r13: r.r13,
            r14: r.r14,
            r15: r.r15,
            rip: r.rip,
            rflags: r.rflags,
        })
    }

    /// Sets the general registers; of the flags only those a program may change by itself.
    pub fn set_registers(&self, r: &Registers) -> Result<(), KvmError> {
        const USER_FLAGS: u64 = 0xcd5; // carry, parity, adjust, zero, sign, direction, overflow
        let old = self.fd.get_regs().map_err(KvmError::call("KVM_GET_REGS"))?;
        let regs = kvm_regs {
            rax: r.rax,
            rbx: r.rbx,
            rcx: r.rcx,
            rdx: r.rdx,
            rsi: r.rsi,
            rdi: r.rdi,
            rbp: r.rbp,
            rsp: r.rsp,
            r8: r.r8,
            r9: r.r9,
            r10: r.r10,
            r11: r.r11,
            r12: r.r12,
            r13: r.r13,
            r14: r.r14,
            r15: r.r15,
            rip: r.rip,
            rflags: old.rflags & !USER_FLAGS | r.rflags & USER_FLAGS,
        };
        self.fd
            .set_regs(&regs)
            .map_err(KvmError::call("KVM_SET_REGS"))
    }

    /// Makes the guest's next instruction end in a debug exception, or no longer.
    pub fn set_trap_flag(&self, on: bool) -> Result<(), KvmError> {
        const TRAP_FLAG: u64 = 1 << 8;
        let mut regs = self.fd.get_regs().map_err(KvmError::call("KVM_GET_REGS"))?;
        regs.rflags = regs.rflags & !TRAP_FLAG | if on { TRAP_FLAG } else { 0 };
        self.fd
            .set_regs(&regs)
            .map_err(KvmError::call("KVM_SET_REGS"))
    }

    /// A way to get this vCPU, which must be run by the calling thread, out of the guest.
    pub fn kick_handle(&mut self) -> Kick {
        let flag: *mut u8 = &raw mut self.fd.get_kvm_run().immediate_exit;
        let thread = rustix::thread::gettid().as_raw_pid();
        Kick {
            target: Mutex::new(Some(Target { flag, thread })),
        }
    }

    /// Takes back a kick's effect on the next entry.
    pub fn clear_kick(&mut self) {
        self.fd.set_kvm_immediate_exit(0);
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

/// Gets a vCPU out of the guest, or keeps it from entering: sets `immediate_exit`, which the
/// kernel checks on the way in, then sends a signal, which ends the stay of one already inside.
/// The one without the other could be lost.
#[derive(Debug)]
pub struct Kick {
    target: Mutex<Option<Target>>,
}

#[derive(Debug)]
struct Target {
    flag: *mut u8,
    thread: libc::pid_t,
}

// SAFETY: `flag` points into the page that the vCPU shares with the kernel, not to a thread's own
// data; it is only ever written as a byte, atomically, and only until `retire` takes it away.
unsafe impl Send for Target {}

impl Kick {
    /// Kicks the vCPU. Its thread finds out why by itself.
    pub fn kick(&self) {
        let target = self
            .target
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(Target { flag, thread }) = &*target {
            // SAFETY: the page is mapped until the vCPU is dropped, and its thread calls `retire`,
            // which waits for this lock, before that. The kernel reads the byte as a flag.
            unsafe { AtomicU8::from_ptr(*flag) }.store(1, Ordering::SeqCst);
            // SAFETY: sends a signal, whose handler does nothing, to a thread of this process.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), *thread, kick_signal()) };
        }
    }

    /// Ends the handle's power. The vCPU's thread calls this before it drops the vCPU.
    pub fn retire(&self) {
        *self
            .target
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
    }
}

/// The signal of a kick.
fn kick_signal() -> libc::c_int {
    libc::SIGRTMIN()
}

/// Installs the handler of the kick's signal, which does nothing: that a signal came is enough.
/// System calls it interrupts are not restarted.
pub fn install_kick_handler() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: an all-zero sigaction is a valid one: default flags (no restart), empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
    // SAFETY: the action is initialised, and its handler is safe at any moment.
    let result = unsafe { libc::sigaction(kick_signal(), &action, std::ptr::null_mut()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
