//! The control protocol: length-framed JSON over the control socket and the tie.
//!
//! A frame is a little-endian `u32` length, at most [`MAX_FRAME`], and that many bytes of JSON.
//! A client sends [`Request`]s and gets one [`Reply`] for each, with the request's `id`; replies
//! may come in another order, because a wait is answered when what it waits for happens. The
//! monitor sends a [`Notice`] on the tie, the socket inherited from whoever runs it in the
//! foreground: one when it has started, one when the sliver has ended.

mod net;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::exit::{CpuTime, ExitRecord, Registers};
use crate::jail::Layers;
use crate::spec::{CpuLimits, DiskLimits, Limits, LimitsChange};

pub use net::{
    Captured, EventBatch, EventRecord, FlowBatch, FlowEnd, FlowRecord, LastTraffic, LostFlows,
    NetStatus, Opened,
};

/// Version of the protocol. A monitor refuses requests of another.
pub const PROTOCOL_VERSION: u32 = 1;

/// The largest frame, in bytes.
pub const MAX_FRAME: usize = 1 << 20;

/// The most guest memory one request may read or write, in bytes.
pub const MAX_MEMORY_ACCESS: usize = 64 << 10;

/// Records of flows that fit into a frame, with as many events as a monitor keeps.
pub const MAX_LAST_FLOWS: usize = 1024;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`PROTOCOL_VERSION`].
    pub v: u32,
    /// Chosen by the client, given back in the reply.
    pub id: u64,
    /// What to do.
    #[serde(flatten)]
    pub op: Op,
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Who it is and how it does. Answered with [`Answer::Status`].
    Status,
    /// Stops all vCPUs; answered once they stand still.
    Pause,
    /// Lets them go on.
    Resume,
    /// Ends the sliver; answered when the stop is under way.
    Stop {
        /// Who or what stops it, for the exit record.
        #[serde(default)]
        reason: String,
    },
    /// Presses the power button: a legacy guest ends by itself if it minds. Refused if there is none.
    PowerButton,
    /// Registers of a paused vCPU. Answered with [`Answer::Registers`].
    ReadRegisters {
        /// Its index.
        vcpu: usize,
    },
    /// Sets the registers of a paused vCPU.
    WriteRegisters {
        /// Its index.
        vcpu: usize,
        /// Their new values. Privileged bits of `rflags` are left as they are.
        registers: Registers,
    },
    /// Reads image, stack or heap memory. Answered with [`Answer::Memory`].
    ReadMemory {
        /// Virtual address.
        address: u64,
        /// Bytes, at most [`MAX_MEMORY_ACCESS`]. Less may be answered, at the end of a mapping.
        len: usize,
    },
    /// Writes image, stack or heap memory, whatever its permission for the guest.
    WriteMemory {
        /// Virtual address.
        address: u64,
        /// Bytes to write, as hexadecimal digits.
        hex: String,
    },
    /// Makes breakpoint instructions and single steps stop the sliver instead of ending it with a
    /// fault, until the client that asked for it disconnects.
    Debug,
    /// Runs a paused vCPU for one instruction, the others standing still; only while somebody
    /// debugs. Answered with [`Answer::Stopped`].
    Step {
        /// Its index.
        vcpu: usize,
    },
    /// Waits until the sliver stops for the debugger. Answered with [`Answer::Stopped`].
    WaitStop,
    /// Asks the guest to give this much of its memory back, in all; 0 to have it back.
    SetBalloon {
        /// MiB, less than its memory.
        mib: u64,
    },
    /// Changes limits, all that are named or none; what is not named stays. Answered with
    /// [`Answer::Limits`].
    SetLimits(LimitsChange),
    /// Takes records of flows. Answered with [`Answer::Flows`].
    TakeFlows {
        /// Records before this number are stored and need not be kept any more.
        acknowledge: u64,
        /// Records to give at most.
        max: usize,
    },
    /// Reads what has happened. Answered with [`Answer::Events`].
    TakeEvents {
        /// The number of the last event that is known, or 0.
        after: u64,
    },
    /// Nothing goes to these prefixes from now on, and what was blocked before is free again unless
    /// it is among them.
    SetBlocks {
        /// IPv4 and IPv6 prefixes.
        prefixes: Vec<String>,
    },
    /// Begins to copy the sliver's packets, until the client that asked for it disconnects.
    Capture {
        /// Bytes of each to copy at most.
        snaplen: u32,
    },
    /// Takes packets that were copied. Answered with [`Answer::Captured`].
    TakeCapture,
    /// Tells the guest the size of its console's window.
    ResizeConsole {
        /// Columns.
        columns: u16,
        /// Rows.
        rows: u16,
    },
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// [`PROTOCOL_VERSION`].
    pub v: u32,
    /// Of the request.
    pub id: u64,
    /// The outcome.
    #[serde(flatten)]
    pub result: Outcome,
}

/// An answer or a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Ok(Answer),
    /// It was not done: why, in one line.
    Error(String),
}

/// What a request was answered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Nothing to tell.
    Done,
    /// The answer to [`Op::Status`].
    Status(Box<Status>),
    /// The answer to [`Op::SetLimits`]: all limits, as they are now.
    Limits(Box<Limits>),
    /// The answer to [`Op::TakeFlows`].
    Flows(FlowBatch),
    /// The answer to [`Op::TakeEvents`].
    Events(EventBatch),
    /// The answer to [`Op::TakeCapture`].
    Captured(Captured),
    /// The answer to [`Op::ReadRegisters`].
    Registers(Registers),
    /// The answer to [`Op::ReadMemory`], as hexadecimal digits.
    Memory(String),
    /// Why the sliver stopped for the debugger.
    Stopped(StopReason),
}

/// Why a sliver under a debugger stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum StopReason {
    /// A breakpoint instruction was reached; `rip` is its address.
    Breakpoint {
        /// Which vCPU.
        vcpu: usize,
    },
    /// A single step is done.
    Step {
        /// Which vCPU.
        vcpu: usize,
    },
    /// A `pause` came.
    Paused,
    /// A vCPU raised an exception; it stands at the faulting instruction and the sliver ends when
    /// resumed.
    Fault {
        /// Which vCPU.
        vcpu: usize,
        /// Number of the exception.
        vector: u8,
    },
    /// The sliver has ended.
    Ended {
        /// With this exit code.
        status: u8,
    },
}

/// State of a sliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its vCPUs run or idle.
    Running,
    /// Its vCPUs stand still.
    Paused,
    /// It has ended and is being put away.
    Ended,
}

/// How a sliver does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Name of its slice.
    pub slice: String,
    /// Who answers for it.
    pub owner: String,
    /// How to reach them.
    pub contact: String,
    /// Its image.
    pub image: String,
    /// Whether that is a legacy image.
    #[serde(default)]
    pub legacy: bool,
    /// Process id of its monitor.
    pub pid: u32,
    /// Layers of the jail that its monitor does without, because somebody has allowed it.
    #[serde(default)]
    pub weak_jail: Layers,
    /// What it is doing.
    pub state: State,
    /// Milliseconds since its start.
    pub uptime_ms: u64,
    /// Memory it was given, in KiB.
    pub memory_kib: u64,
    /// vCPUs it was given.
    pub vcpus: usize,
    /// Processor time so far.
    pub cpu_us: CpuTime,
    /// What it is granted of the processors, and what has come of it.
    #[serde(default)]
    pub cpu: CpuStatus,
    /// Its traffic, if it has a network card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net: Option<NetStatus>,
    /// What its disks may carry, all together, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskLimits>,
    /// Its devices.
    #[serde(default)]
    pub devices: Vec<DeviceStatus>,
    /// Why its vCPUs left the guest, and how often.
    #[serde(default)]
    pub exits: ExitCounts,
}

/// What a sliver is granted of the processors, and what has come of it so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuStatus {
    /// The grants.
    #[serde(flatten)]
    pub limits: CpuLimits,
    /// Processor time charged to the sliver, in microseconds: all of its process's since the guest's
    /// first instruction.
    pub consumed_us: u64,
    /// Time for which its cap held it back, in microseconds.
    pub throttled_us: u64,
    /// Periods in which it ran or wanted to.
    pub periods: u64,
    /// Periods in which its cap held it back.
    pub throttled_periods: u64,
    /// Processor time used beyond a budget, in all, in microseconds; each was taken from the next.
    pub overrun_us: u64,
    /// The largest of these.
    pub worst_overrun_us: u64,
    /// What is still to be taken from the next budget, in microseconds.
    pub debt_us: u64,
    /// How often it made room for other slivers of the node.
    pub step_backs: u64,
    /// For how long in all, in microseconds.
    pub stepped_back_us: u64,
    /// Other slivers in the ledger that wanted to run when it last looked; `None` without a ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rivals: Option<usize>,
}

/// How a device does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// What it is for: `console`, `net0`, `disk0`.
    pub tag: String,
    /// Whether its driver is up and the device sound.
    pub up: bool,
    /// The last thing that was wrong with a queue, if anything ever was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// What it has done: how often its doorbell rang, batches served, faults, and what else it
    /// counts.
    pub counters: BTreeMap<String, u64>,
}

/// How often vCPUs left the guest, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitCounts {
    /// Writes to a device's register, doorbells among them.
    pub device_writes: u64,
    /// Reads of a device's register.
    pub device_reads: u64,
    /// Writes to `IDLE`.
    pub idle: u64,
    /// Everything else: other control registers, kicks.
    pub other: u64,
    /// Microseconds that idle vCPUs looked for events before they slept.
    pub looking_us: u64,
}

/// What the monitor says on the tie without being asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// The control socket is there, at this path; the guest is about to run.
    Started {
        /// Path of the control socket.
        control: String,
    },
    /// A piece of what is left to tell of its traffic, after its end.
    Traffic(Box<LastTraffic>),
    /// The sliver has ended. The last frame.
    Ended(Box<ExitRecord>),
}

/// Tells whoever holds the other end of the tie, if there is one, a piece of what is left to tell of
/// the sliver's traffic: at most [`MAX_LAST_FLOWS`] records, so that it fits into a frame.
pub fn tell_traffic(tie: Option<&UnixStream>, piece: LastTraffic) {
    if let Some(tie) = tie {
        let _ = write_frame(tie, &Notice::Traffic(Box::new(piece)));
    }
}

/// Tells whoever holds the other end of the tie, if there is one, that the sliver has ended. Who is
/// gone does not want to know.
pub fn tell_ended(tie: Option<&UnixStream>, record: &ExitRecord) {
    if let Some(tie) = tie {
        let _ = write_frame(tie, &Notice::Ended(Box::new(record.clone())));
    }
}

/// Writes one frame.
pub fn write_frame<T: Serialize>(mut to: impl Write, message: &T) -> io::Result<()> {
    to.write_all(&encode_frame(message)?)
}

/// One frame as bytes.
pub fn encode_frame<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let len = frame.len() - 4;
    if len > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of {len} bytes is longer than {MAX_FRAME}"),
        ));
    }
    frame[..4].copy_from_slice(&(len as u32).to_le_bytes());
    Ok(frame)
}

/// Reads one frame; `None` if the other side closed before its first byte.
pub fn read_frame<T: DeserializeOwned>(mut from: impl Read) -> io::Result<Option<T>> {
    let mut head = [0; 4];
    match from.read_exact(&mut head[..1]) {
        Ok(()) => from.read_exact(&mut head[1..])?,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut body = vec![0; frame_length(head)?];
    from.read_exact(&mut body)?;
    Ok(Some(serde_json::from_slice(&body)?))
}

/// The length that a frame's head announces, if it is allowed.
pub fn frame_length(head: [u8; 4]) -> io::Result<usize> {
    let len = u32::from_le_bytes(head) as usize;
    if len > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of {len} bytes is announced, {MAX_FRAME} are allowed"),
        ));
    }
    Ok(len)
}
