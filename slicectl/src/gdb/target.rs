//! The sliver as gdb's target: each of its vCPUs a thread, reached through the control socket.
//!
//! Two connections: one for what is answered at once, one for stops, which are answered when they
//! happen. While a step or a run is under way the first stays free for a pause.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use gdbstub::common::{Signal, Tid};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints as BreakpointsSupport, BreakpointsOps, SwBreakpoint, SwBreakpointOps,
};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};
use vmm::control::proto::{Answer, MAX_MEMORY_ACCESS, Op, StopReason};

use super::arch::{GdbRegisters, SliceArch};
use super::breakpoints::{Breakpoints, INT3};
use crate::client::{Client, ClientError, nonsense, outcome};
use crate::text::{from_hex, to_hex};

/// A sliver under a debugger.
#[derive(Debug)]
pub(super) struct SliverTarget {
    orders: Client,
    stops: Client,
    vcpus: usize,
    breakpoints: Breakpoints,
    /// The vCPU that the next resume steps, instead of letting all run.
    step: Option<usize>,
}

impl SliverTarget {
    /// Connects, takes the sliver over and makes it stand still.
    pub(super) fn attach(control: &Path, vcpus: usize) -> Result<Self, ClientError> {
        let mut orders = Client::connect(control)?;
        let stops = Client::connect(control)?;
        orders.order(Op::Debug)?;
        orders.order(Op::Pause)?;
        Ok(Self {
            orders,
            stops,
            vcpus,
            breakpoints: Breakpoints::default(),
            step: None,
        })
    }

    /// Takes all breakpoints out and lets the sliver run on, without a debugger.
    pub(super) fn release(mut self) -> Result<(), ClientError> {
        // A running sliver cannot be written to.
        self.orders.order(Op::Pause)?;
        self.forget_breakpoints();
        self.orders.order(Op::Resume)
    }

    /// Takes all breakpoints out: a debugger that comes later does not know of them.
    pub(super) fn forget_breakpoints(&mut self) {
        for (address, byte) in self.breakpoints.take() {
            let _ = self.write(address, &[byte]);
        }
    }

    /// Readable when a stop has happened.
    pub(super) fn stops(&self) -> BorrowedFd<'_> {
        self.stops.as_fd()
    }

    /// The stop that has happened.
    pub(super) fn stopped(&mut self) -> Result<StopReason, ClientError> {
        match outcome(self.stops.receive()?)? {
            Answer::Stopped(reason) => Ok(reason),
            other => Err(nonsense(&other)),
        }
    }

    /// Makes a running sliver stop. If that cannot be done, it is about to stop or end anyway.
    pub(super) fn interrupt(&mut self) {
        let _ = self.orders.order(Op::Pause);
    }

    fn read(&mut self, address: u64, len: usize) -> Result<Vec<u8>, ClientError> {
        match self.orders.call(Op::ReadMemory { address, len })? {
            Answer::Memory(hex) => from_hex(&hex)
                .filter(|bytes| bytes.len() <= len)
                .ok_or_else(|| ClientError::Nonsense("memory".to_owned())),
            other => Err(nonsense(&other)),
        }
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), ClientError> {
        let hex = to_hex(bytes);
        self.orders.order(Op::WriteMemory { address, hex })
    }
}

/// The thread of a vCPU. gdb counts from 1.
pub(super) fn thread(vcpu: usize) -> Tid {
    Tid::MIN.saturating_add(vcpu)
}

fn vcpu(thread: Tid) -> usize {
    thread.get() - 1
}

/// A refusal is told to gdb; anything else ends the session.
fn target_error(error: ClientError) -> TargetError<ClientError> {
    match error {
        ClientError::Refused(_) => TargetError::NonFatal,
        other => TargetError::Fatal(other),
    }
}

impl Target for SliverTarget {
    type Arch = SliceArch;
    type Error = ClientError;

    fn base_ops(&mut self) -> BaseOps<'_, Self::Arch, Self::Error> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for SliverTarget {
    fn read_registers(&mut self, registers: &mut GdbRegisters, tid: Tid) -> TargetResult<(), Self> {
        match self.orders.call(Op::ReadRegisters { vcpu: vcpu(tid) }) {
            Ok(Answer::Registers(read)) => {
                registers.0 = read;
                Ok(())
            }
            Ok(other) => Err(TargetError::Fatal(nonsense(&other))),
            Err(error) => Err(target_error(error)),
        }
    }

    fn write_registers(&mut self, registers: &GdbRegisters, tid: Tid) -> TargetResult<(), Self> {
        let op = Op::WriteRegisters {
            vcpu: vcpu(tid),
            registers: registers.0,
        };
        self.orders.order(op).map_err(target_error)
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], _: Tid) -> TargetResult<usize, Self> {
        let len = data.len().min(MAX_MEMORY_ACCESS);
        let read = self.read(start, len).map_err(target_error)?;
        data[..read.len()].copy_from_slice(&read);
        self.breakpoints.hide(start, &mut data[..read.len()]);
        Ok(read.len())
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], _: Tid) -> TargetResult<(), Self> {
        let written = self.breakpoints.keep(start, data);
        let mut address = start;
        for chunk in written.chunks(MAX_MEMORY_ACCESS) {
            self.write(address, chunk).map_err(target_error)?;
            address = address.saturating_add(chunk.len() as u64);
        }
        Ok(())
    }

    fn list_active_threads(
        &mut self,
        thread_is_active: &mut dyn FnMut(Tid),
    ) -> Result<(), Self::Error> {
        for vcpu in 0..self.vcpus {
            // One that was not started yet has no registers to show.
            match self.orders.call(Op::ReadRegisters { vcpu }) {
                Err(ClientError::Refused(_)) if vcpu > 0 => {}
                Ok(_) | Err(ClientError::Refused(_)) => thread_is_active(thread(vcpu)),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadResume for SliverTarget {
    fn resume(&mut self) -> Result<(), Self::Error> {
        let sent = match self.step {
            Some(vcpu) => self.stops.send(Op::Step { vcpu }),
            None => self
                .orders
                .order(Op::Resume)
                .and_then(|()| self.stops.send(Op::WaitStop)),
        };
        match sent {
            // A sliver that ends at once takes the connection with it: it did run, and gdb hears
            // of its end as of any other.
            Ok(_) | Err(ClientError::Closed) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn clear_resume_actions(&mut self) -> Result<(), Self::Error> {
        self.step = None;
        Ok(())
    }

    fn set_resume_action_continue(&mut self, _: Tid, _: Option<Signal>) -> Result<(), Self::Error> {
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for SliverTarget {
    fn set_resume_action_step(&mut self, tid: Tid, _: Option<Signal>) -> Result<(), Self::Error> {
        self.step = Some(vcpu(tid));
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for SliverTarget {
    /// A step moves one vCPU only, and all run together otherwise.
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

impl ThreadExtraInfo for SliverTarget {
    fn thread_extra_info(&self, tid: Tid, buf: &mut [u8]) -> Result<usize, Self::Error> {
        let name = format!("vCPU {}", vcpu(tid));
        let len = name.len().min(buf.len());
        buf[..len].copy_from_slice(&name.as_bytes()[..len]);
        Ok(len)
    }
}

impl BreakpointsSupport for SliverTarget {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for SliverTarget {
    fn add_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        if self.breakpoints.contains(address) {
            return Ok(true);
        }
        let there = match self.read(address, 1) {
            Ok(bytes) => bytes.first().copied(),
            Err(ClientError::Refused(_)) => None,
            Err(error) => return Err(TargetError::Fatal(error)),
        };
        let Some(byte) = there else {
            return Ok(false);
        };
        match self.write(address, &[INT3]) {
            Ok(()) => {
                self.breakpoints.insert(address, byte);
                Ok(true)
            }
            Err(ClientError::Refused(_)) => Ok(false),
            Err(error) => Err(TargetError::Fatal(error)),
        }
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        match self.breakpoints.remove(address) {
            None => Ok(false),
            Some(byte) => match self.write(address, &[byte]) {
                Ok(()) => Ok(true),
                Err(error) => Err(target_error(error)),
            },
        }
    }
}
