//! What clients of the control socket ask of a sliver, done.

use std::sync::Arc;
use std::time::Instant;

use super::post::Post;
use super::proto::{Answer, Op, State, Status, StopReason};
use super::sessions::{Event, Response, Standing, Steered};
use super::traffic;
use crate::devices::virtio::backend::Order;
use crate::exit::Exit;
use crate::jail::Layers;
use crate::lifecycle::PausedFor;
use crate::machine::Machine;
use crate::memory_access;
use crate::say::shown;
use crate::sched::governor::processors;
use crate::spec::{Bounds, Limits, LimitsChange, SliverSpec, mistakes_told};

/// Bytes of a stop's reason that go into the exit record, about.
const LONGEST_REASON: usize = 200;

/// A running sliver.
#[derive(Debug)]
pub(super) struct Desk {
    machine: Arc<Machine>,
    spec: SliverSpec,
    started: Instant,
    pid: u32,
    without: Layers,
}

impl Steered for Desk {
    fn answer(&mut self, op: Op, standing: &mut Standing) -> Response {
        let machine = &self.machine;
        let result = match op {
            Op::Status => Ok(Answer::Status(Box::new(self.status()))),
            Op::Pause => {
                machine.pause(if standing.debugs {
                    PausedFor::Debugger
                } else {
                    PausedFor::Operator
                });
                return Response::When(Event::Paused);
            }
            Op::Resume => {
                machine.resume();
                Ok(Answer::Done)
            }
            Op::Stop { reason } => {
                let reason = match reason.trim() {
                    "" => "over the control socket".to_owned(),
                    reason => shown(reason, LONGEST_REASON),
                };
                machine.end(Exit::stopped(reason));
                Ok(Answer::Done)
            }
            Op::PowerButton => machine
                .legacy()
                .map(|legacy| legacy.press_power_button())
                .map(|()| Answer::Done)
                .ok_or_else(|| "a native sliver has no power button".to_owned()),
            Op::ReadRegisters { vcpu } => machine
                .lifecycle
                .read_registers(vcpu)
                .map(Answer::Registers),
            Op::WriteRegisters { vcpu, registers } => machine
                .lifecycle
                .write_registers(vcpu, registers)
                .map(|()| Answer::Done),
            Op::ReadMemory { address, len } => {
                memory_access::read(machine, address, len).map(Answer::Memory)
            }
            Op::WriteMemory { address, hex } => {
                memory_access::write(machine, address, &hex).map(|()| Answer::Done)
            }
            Op::Debug if machine.legacy().is_some() => {
                Err("a legacy guest is debugged from inside".to_owned())
            }
            Op::Debug => {
                standing.debugs = true;
                machine.lifecycle.set_debug(true);
                Ok(Answer::Done)
            }
            Op::Step { .. } if !machine.lifecycle.is_debugged() => {
                Err("nobody debugs the sliver: say `debug` first".to_owned())
            }
            Op::Step { vcpu } => match machine.step(vcpu) {
                Ok(()) => return Response::When(Event::Stepped),
                Err(problem) => Err(problem),
            },
            Op::WaitStop => return Response::When(Event::Stopped),
            Op::SetBalloon { mib } => self.set_balloon(mib),
            Op::SetLimits(change) => {
                let limits = self.set_limits(&change);
                limits.map(|limits| Answer::Limits(Box::new(limits)))
            }
            Op::TakeFlows { .. }
            | Op::TakeEvents { .. }
            | Op::SetBlocks { .. }
            | Op::Capture { .. }
            | Op::TakeCapture => {
                standing.captures |= matches!(op, Op::Capture { .. });
                traffic::answer(machine.gate(), op)
            }
            Op::ResizeConsole { columns, rows } => {
                self.order(Order::ConsoleSize { columns, rows }, "console")
            }
        };
        Response::Now(result)
    }

    fn state(&self) -> State {
        self.machine.lifecycle.state()
    }

    fn stop_reason(&self) -> Option<StopReason> {
        self.machine.lifecycle.stop_reason()
    }

    fn is_left(&mut self, gone: Standing) {
        if gone.captures
            && let Some(gate) = self.machine.gate()
        {
            traffic::lock(gate).end_capture();
        }
        if gone.debugs {
            let lifecycle = &self.machine.lifecycle;
            lifecycle.set_debug(false);
            // Nobody is left who would let a sliver go on that stopped for the debugger.
            if lifecycle.paused_for() == Some(PausedFor::Debugger) {
                self.machine.resume();
            }
        }
    }
}

impl Desk {
    /// That of a sliver `started` then, whose monitor holds this post.
    pub(super) fn new(
        machine: Arc<Machine>,
        spec: SliverSpec,
        started: Instant,
        post: &Post,
    ) -> Self {
        Self {
            machine,
            spec,
            started,
            pid: post.pid(),
            without: post.without(),
        }
    }

    /// Changes limits; those that are then in force.
    fn set_limits(&self, change: &LimitsChange) -> Result<Limits, String> {
        let bounds = Bounds {
            vcpus: self.spec.vcpus(),
            processors: Some(processors()),
            uplink: self.spec.uplink(),
        };
        let limits = change.apply(&self.machine.limits(), &bounds);
        let limits = limits.map_err(|mistakes| mistakes_told(&mistakes))?;
        self.machine.set_limits(&limits)?;
        Ok(limits)
    }

    fn set_balloon(&self, mib: u64) -> Result<Answer, String> {
        let memory_mib = self.spec.memory_bytes() >> 20;
        if mib >= memory_mib {
            return Err(format!(
                "a balloon of {mib} MiB leaves nothing of {memory_mib} MiB of memory"
            ));
        }
        self.order(Order::Balloon(mib), "balloon")
    }

    /// Has the device that it concerns do what an operator asks.
    fn order(&self, order: Order, device: &str) -> Result<Answer, String> {
        let machine = &self.machine;
        let done = machine
            .bus()
            .order(order)
            .ok_or_else(|| format!("the sliver has no {device}"))?;
        machine.follow_up(done);
        Ok(Answer::Done)
    }

    fn status(&self) -> Status {
        Status {
            name: self.spec.name().to_owned(),
            slice: self.spec.slice().to_owned(),
            owner: self.spec.owner().to_owned(),
            contact: self.spec.contact().to_owned(),
            image: self.spec.image().display().to_string(),
            legacy: self.machine.legacy().is_some(),
            pid: self.pid,
            weak_jail: self.without,
            state: self.machine.lifecycle.state(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            memory_kib: self.spec.memory_bytes() >> 10,
            vcpus: self.spec.vcpus(),
            cpu_us: self.machine.cpu_time(),
            cpu: self.machine.cpu_status(),
            net: self.machine.gate().map(|gate| traffic::lock(gate).status()),
            disk: self.machine.disk_limits(),
            devices: self.machine.device_status(),
            exits: self.machine.exit_counts(),
        }
    }
}
