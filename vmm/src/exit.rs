//! Why a sliver ended, and the record of it that the monitor leaves behind.
//!
//! The record is what `slicectl`, the node and the tests read; its JSON form is part of the
//! interface (`slicectl run --json` prints it).

use std::fmt;

use serde::{Deserialize, Serialize};
use slice_abi::fault::FaultRecord;

use crate::control::proto::{CpuStatus, DeviceStatus, ExitCounts};

/// The kinds of end, and with them the exit codes of `slicectl run`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExitKind {
    /// The guest ended itself with a status.
    Exited,
    /// The guest raised an exception.
    Fault,
    /// A legacy guest reset its machine: it wants to begin anew.
    Rebooted,
    /// A legacy guest's kernel has panicked.
    Panicked,
    /// It was told to stop.
    Stopped,
    /// Its time limit was reached.
    Timeout,
    /// The monitor could not start it or go on.
    Error,
}

/// How a sliver ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// What kind of end.
    pub kind: ExitKind,
    /// The exit code that goes with it: the guest's own status for [`ExitKind::Exited`], 0 if a
    /// legacy guest has powered its machine off, else 139 (fault), 134 (panicked), 85 (rebooted),
    /// 143 (stopped), 124 (timeout) or 125 (error).
    pub status: u8,
    /// More about it.
    #[serde(default)]
    pub detail: ExitDetail,
}

/// What is known about an end beyond its kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitDetail {
    /// One line for people, empty when the kind says it all.
    pub message: String,
    /// The exception, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Box<Fault>>,
    /// Return addresses of the vCPU that ended it, innermost first: of a fault, or of an exit with
    /// a status other than 0. Unverified: they come from guest memory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backtrace: Vec<u64>,
}

/// An exception of a vCPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The vCPU's index.
    pub vcpu: usize,
    /// Name of the exception: `page fault`, `divide error`.
    pub exception: String,
    /// Its number.
    pub vector: u8,
    /// Its error code, 0 if it has none.
    pub error_code: u64,
    /// The address that a page fault tried to reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<u64>,
    /// What it tried to do there: `read`, `write` or `execute`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<String>,
    /// What lies at the address: `the null page`, `the guard page of the stack of vCPU 0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// All general registers at the exception.
    pub registers: Registers,
}

/// The general registers of a vCPU.
#[allow(missing_docs, reason = "a register's name is its documentation")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub rsp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
}

/// Copies the general registers between two of the structures that name them alike.
macro_rules! registers {
    ($to:ty, $from:expr) => {{
        let r = $from;
        type To = $to;
        To {
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
        }
    }};
}
pub(crate) use registers;

impl From<&FaultRecord> for Registers {
    fn from(record: &FaultRecord) -> Self {
        registers!(Registers, record)
    }
}

/// Durations from the moment the monitor was started by its parent (or started itself, if nobody
/// said when), in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// Until the monitor's first instruction of its own.
    pub spawn: u64,
    /// Until the VM, its memory and its first vCPU existed.
    pub vm: u64,
    /// Until the image was loaded and the vCPU ready to enter.
    pub load: u64,
    /// Until the guest's first instruction: as the guest noted it, or else when the vCPU was entered.
    pub first_instruction: u64,
    /// Until the sliver had ended.
    pub total: u64,
}

/// Processor time, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTime {
    /// Inside the guest: of all vCPU threads, between entering the guest and leaving it.
    pub guest: u64,
    /// Serving its devices.
    #[serde(default)]
    pub device: u64,
    /// What else its monitor did for it once it ran.
    pub monitor: u64,
    /// Making its machine and loading its image, before its first instruction: not charged to it.
    #[serde(default)]
    pub provisioning: u64,
}

/// Memory at the end, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// Guest memory that was backed by host memory.
    pub guest_touched: u64,
    /// Proportional set size of the monitor process, without guest memory.
    pub monitor_pss: u64,
}

/// The whole record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Version of this record: 1.
    pub version: u32,
    /// Name of the sliver.
    pub name: String,
    /// Name of its slice.
    pub slice: String,
    /// How it ended.
    pub exit: Exit,
    /// When things happened.
    pub timing_us: Timing,
    /// What it used.
    pub cpu_us: CpuTime,
    /// What it was granted of the processors, and what came of it.
    #[serde(default)]
    pub cpu: CpuStatus,
    /// What it held.
    pub memory_kib: MemoryUse,
    /// Guest accesses that were ignored because no device or register is there.
    #[serde(default)]
    pub ignored_accesses: u64,
    /// What its devices did.
    #[serde(default)]
    pub devices: Vec<DeviceStatus>,
    /// Why its vCPUs left the guest, and how often.
    #[serde(default)]
    pub exits: ExitCounts,
}

/// Version of [`ExitRecord`].
pub const EXIT_RECORD_VERSION: u32 = 1;

impl Exit {
    /// The guest wrote `status` to its exit register.
    pub fn exited(status: u8) -> Self {
        Self {
            kind: ExitKind::Exited,
            status,
            detail: ExitDetail::default(),
        }
    }

    /// A legacy guest has powered its machine off.
    pub fn powered_off() -> Self {
        Self::with_message(ExitKind::Exited, 0, "powered off".to_owned())
    }

    /// A legacy guest has reset its machine.
    pub fn rebooted() -> Self {
        Self::with_message(
            ExitKind::Rebooted,
            85,
            "the guest reset its machine".to_owned(),
        )
    }

    /// A legacy guest's kernel has panicked, and has said why if that was seen.
    pub fn panicked(reason: Option<&str>) -> Self {
        let message = reason.map_or_else(
            || "kernel panic".to_owned(),
            |reason| format!("kernel panic: {reason}"),
        );
        Self::with_message(ExitKind::Panicked, 134, message)
    }

    /// The guest raised an exception.
    pub fn fault(fault: Fault, backtrace: Vec<u64>) -> Self {
        let message = fault.to_string();
        Self {
            kind: ExitKind::Fault,
            status: 139,
            detail: ExitDetail {
                message,
                fault: Some(Box::new(fault)),
                backtrace,
            },
        }
    }

    /// It was stopped, by whom or what `reason` says.
    pub fn stopped(reason: impl Into<String>) -> Self {
        Self::with_message(ExitKind::Stopped, 143, reason.into())
    }

    /// The time limit was reached.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::with_message(ExitKind::Timeout, 124, message.into())
    }

    /// The monitor failed.
    pub fn error(message: impl Into<String>) -> Self {
        Self::with_message(ExitKind::Error, 125, message.into())
    }

    fn with_message(kind: ExitKind, status: u8, message: String) -> Self {
        Self {
            kind,
            status,
            detail: ExitDetail {
                message,
                ..ExitDetail::default()
            },
        }
    }
}

impl fmt::Display for Fault {
    /// `page fault: write to 0x1000 (the image, read-only data) at 0x201234 on vCPU 0`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.exception)?;
        if let (Some(address), Some(access)) = (self.address, &self.access) {
            write!(f, ": {access} at {address:#x}")?;
            if let Some(target) = &self.target {
                write!(f, " ({target})")?;
            }
        }
        write!(
            f,
            ", by the instruction at {:#x} on vCPU {}",
            self.registers.rip, self.vcpu
        )
    }
}

impl ExitRecord {
    /// The record of a sliver that never ran.
    pub fn not_started(name: &str, slice: &str, exit: Exit) -> Self {
        Self {
            version: EXIT_RECORD_VERSION,
            name: name.to_owned(),
            slice: slice.to_owned(),
            exit,
            timing_us: Timing::default(),
            cpu_us: CpuTime::default(),
            cpu: CpuStatus::default(),
            memory_kib: MemoryUse::default(),
            ignored_accesses: 0,
            devices: Vec::new(),
            exits: ExitCounts::default(),
        }
    }

    /// The record of a sliver that could not be started.
    pub fn of_error(name: &str, slice: &str, message: impl Into<String>) -> Self {
        Self::not_started(name, slice, Exit::error(message))
    }
}
