//! The control thread: answers requests on the control socket, watches the tie, the signals and
//! the time limit.
//!
//! It never waits for one client: everything is non-blocking, a client that does not read its
//! answers is asked nothing more until it does, one whose frames make no sense is dropped, and what
//! a client asked to wait for is answered when it happens.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::socket_peercred;

use super::connection::{Client, parse};
use super::endings::{Endings, timespec};
use super::endpoint::Endpoint;
use super::proto::{
    Answer, Notice, Op, Outcome, PROTOCOL_VERSION, Reply, Request, State, Status, write_frame,
};
use super::traffic;
use crate::devices::virtio::backend::Order;
use crate::exit::Exit;
use crate::lifecycle::PausedFor;
use crate::machine::Machine;
use crate::machine::native::FOLLOW_EVERY;
use crate::memory_access;
use crate::resident;
use crate::say::shown;
use crate::sched::governor::processors;
use crate::sched::seat::Seat;
use crate::spec::{Bounds, Limits, LimitsChange, SliverSpec, mistakes_told};

/// Clients served at the same time. One more takes the place of the one that has been silent for
/// the longest time and waits for nothing: silent clients must not lock out the operator.
const MAX_CLIENTS: usize = 16;
/// Requests of one client that wait for something to happen.
const MAX_WAITS: usize = 64;

/// Bytes of a stop's reason that go into the exit record, about.
const LONGEST_REASON: usize = 200;

/// For how long nobody is let in when the system would not let anybody in.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A quiet moment of this length tells that the start is over.
const SETTLE_AFTER: Duration = Duration::from_millis(100);

/// Everything the control thread looks after.
#[derive(Debug)]
pub(crate) struct Server {
    machine: Arc<Machine>,
    spec: SliverSpec,
    started: Instant,
    endpoint: Endpoint,
    endings: Endings,
    clients: Vec<Client>,
    waits: Vec<Wait>,
    next_client: u64,
    settled: bool,
    accept_from: Instant,
    seat: Option<Seat>,
}

/// A request that is answered later.
#[derive(Debug)]
struct Wait {
    client: u64,
    id: u64,
    kind: WaitKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitKind {
    Paused,
    Stopped,
    Stepped,
}

impl Server {
    pub(crate) fn new(
        machine: Arc<Machine>,
        spec: SliverSpec,
        started: Instant,
        (endpoint, endings): (Endpoint, Endings),
        seat: Option<Seat>,
    ) -> Self {
        Self {
            seat,
            machine,
            spec,
            started,
            endpoint,
            endings,
            clients: Vec::new(),
            waits: Vec::new(),
            next_client: 0,
            settled: false,
            accept_from: started,
        }
    }

    /// Serves until the sliver has ended, then gives back what outlives it.
    pub(crate) fn serve(mut self) -> (Endpoint, Endings) {
        if let Some(tie) = self.endings.tie() {
            let control = self.endpoint.socket().display().to_string();
            // If nobody is there, the next turn finds out.
            let _ = write_frame(tie, &Notice::Started { control });
        }
        while self.machine.lifecycle.state() != State::Ended {
            if let Err(error) = self.turn() {
                self.machine
                    .end(Exit::error(format!("the control thread failed: {error}")));
            }
        }
        self.send_answers();
        (self.endpoint, self.endings)
    }

    /// Waits for something to happen and does what follows.
    fn turn(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let timeouts = [
            self.endings.time_left(),
            (!self.settled).then_some(SETTLE_AFTER),
            (self.accept_from > now).then(|| self.accept_from - now),
            self.machine.is_busy().then_some(FOLLOW_EVERY),
        ];
        let ready = self.wait(timeouts.into_iter().flatten().min())?;
        self.machine.follow_host_time();
        if let Some(seat) = &mut self.seat {
            seat.keep(self.machine.governor(), self.machine.uplink());
        }
        if !self.settled && now.elapsed() >= SETTLE_AFTER {
            self.settled = true;
            resident::shed_startup_code();
        }
        if ready.bell {
            self.machine.bell.silence();
        }
        if let Some(exit) = self.endings.due() {
            self.machine.end(exit);
        }
        for index in ready.clients {
            self.clients[index].receive();
        }
        if ready.listener {
            self.accept();
        }
        // Sending answers makes room for more questions, which may have come already: nothing would
        // tell of them again.
        self.send_answers();
        while self.clients.iter().any(Client::has_frame) {
            for index in 0..self.clients.len() {
                self.serve_client(index);
            }
            self.send_answers();
        }
        self.drop_gone();
        Ok(())
    }

    fn wait(&self, timeout: Option<Duration>) -> io::Result<Ready> {
        let listen = if Instant::now() < self.accept_from {
            PollFlags::empty()
        } else {
            PollFlags::IN
        };
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.machine.bell.as_fd(), PollFlags::IN),
            PollFd::new(self.endpoint.listener(), listen),
        ];
        let first_client = fds.len();
        for client in &self.clients {
            fds.push(PollFd::new(&client.stream, client.interest()));
        }
        fds.extend(self.endings.poll_fds());
        match poll(&mut fds, timeout.map(timespec).as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let clients = first_client..first_client + self.clients.len();
        Ok(Ready {
            bell: is_ready(&fds[0]),
            listener: is_ready(&fds[1]),
            clients: clients
                .filter(|&i| is_ready(&fds[i]))
                .map(|i| i - first_client)
                .collect(),
        })
    }

    /// Takes in a client, if it is this user or root (SO_PEERCRED, unix(7)).
    fn accept(&mut self) {
        let stream = match self.endpoint.listener().accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => {
                // Most likely no descriptors are left. The listener stays ready: look away.
                self.accept_from = Instant::now() + ACCEPT_AGAIN_AFTER;
                return;
            }
        };
        let own = rustix::process::geteuid();
        let allowed =
            socket_peercred(&stream).is_ok_and(|peer| peer.uid == own || peer.uid.is_root());
        if !allowed || stream.set_nonblocking(true).is_err() {
            return;
        }
        if self.clients.len() >= MAX_CLIENTS {
            self.make_room();
        }
        self.clients.push(Client::new(self.next_client, stream));
        self.next_client += 1;
    }

    /// Drops the client that would miss it the least.
    fn make_room(&mut self) {
        let waits = &self.waits;
        let cost = |client: &Client| {
            let waiting = waits.iter().any(|wait| wait.client == client.number);
            (client.debugs, waiting, client.last_heard)
        };
        if let Some(client) = self.clients.iter_mut().min_by_key(|client| cost(client)) {
            client.gone = true;
        }
        self.drop_gone();
    }

    fn serve_client(&mut self, index: usize) {
        while let Some(frame) = self.clients[index].next_frame() {
            let (id, outcome) = match parse(&frame) {
                Ok(Request { id, op, .. }) => (id, self.answer(index, id, op)),
                Err((id, problem)) => (id, Some(Outcome::Error(problem))),
            };
            if let Some(result) = outcome {
                self.clients[index].queue(&Reply {
                    v: PROTOCOL_VERSION,
                    id,
                    result,
                });
            }
        }
    }

    /// The answer to a request, or `None` if it comes later.
    fn answer(&mut self, index: usize, id: u64, op: Op) -> Option<Outcome> {
        let machine = &self.machine;
        let result = match op {
            Op::Status => Ok(Answer::Status(Box::new(self.status()))),
            Op::Pause => {
                let debugs = self.clients[index].debugs;
                machine.pause(if debugs {
                    PausedFor::Debugger
                } else {
                    PausedFor::Operator
                });
                return self.wait_for(index, id, WaitKind::Paused);
            }
            Op::Resume => {
                machine.resume();
                self.overtake_pauses();
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
                self.clients[index].debugs = true;
                machine.lifecycle.set_debug(true);
                Ok(Answer::Done)
            }
            Op::Step { .. } if !machine.lifecycle.is_debugged() => {
                Err("nobody debugs the sliver: say `debug` first".to_owned())
            }
            Op::Step { vcpu } => match machine.step(vcpu) {
                Ok(()) => return self.wait_for(index, id, WaitKind::Stepped),
                Err(problem) => Err(problem),
            },
            Op::WaitStop => return self.wait_for(index, id, WaitKind::Stopped),
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
                self.clients[index].captures |= matches!(op, Op::Capture { .. });
                traffic::answer(machine.gate(), op)
            }
            Op::ResizeConsole { columns, rows } => {
                self.order(Order::ConsoleSize { columns, rows }, "console")
            }
        };
        Some(result.map_or_else(Outcome::Error, Outcome::Ok))
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

    fn send_answers(&mut self) {
        self.answer_waits();
        for client in &mut self.clients {
            client.send();
        }
    }

    fn wait_for(&mut self, index: usize, id: u64, kind: WaitKind) -> Option<Outcome> {
        let client = self.clients[index].number;
        if self
            .waits
            .iter()
            .filter(|wait| wait.client == client)
            .count()
            >= MAX_WAITS
        {
            let problem = format!("more than {MAX_WAITS} requests wait already");
            return Some(Outcome::Error(problem));
        }
        self.waits.push(Wait { client, id, kind });
        None
    }

    /// A pause or step that was not complete when somebody resumed will never be.
    fn overtake_pauses(&mut self) {
        let clients = &mut self.clients;
        self.waits.retain(|wait| {
            if wait.kind == WaitKind::Stopped {
                return true;
            }
            let result = Outcome::Error("it was resumed before it stood still".to_owned());
            reply(clients, wait, result);
            false
        });
    }

    /// Answers every wait whose event has come.
    fn answer_waits(&mut self) {
        if self.waits.is_empty() {
            return;
        }
        let state = self.machine.lifecycle.state();
        let stop = self.machine.lifecycle.stop_reason();
        let clients = &mut self.clients;
        self.waits.retain(|wait| {
            let result = match (wait.kind, state, &stop) {
                (WaitKind::Stopped | WaitKind::Stepped, _, Some(reason)) => {
                    Outcome::Ok(Answer::Stopped(reason.clone()))
                }
                (WaitKind::Paused, State::Paused, _) => Outcome::Ok(Answer::Done),
                (WaitKind::Paused, State::Ended, _) => {
                    Outcome::Error("the sliver has ended".to_owned())
                }
                _ => return true,
            };
            reply(clients, wait, result);
            false
        });
    }

    fn drop_gone(&mut self) {
        let debugger_gone = self
            .clients
            .iter()
            .any(|client| client.gone && client.debugs);
        let captured = self.clients.iter().any(|client| client.captures);
        self.clients.retain(|client| !client.gone);
        if captured
            && !self.clients.iter().any(|client| client.captures)
            && let Some(gate) = self.machine.gate()
        {
            traffic::lock(gate).end_capture();
        }
        let clients = &self.clients;
        self.waits
            .retain(|wait| clients.iter().any(|client| client.number == wait.client));
        if debugger_gone && !self.clients.iter().any(|client| client.debugs) {
            let lifecycle = &self.machine.lifecycle;
            lifecycle.set_debug(false);
            // Nobody is left who would let a sliver go on that stopped for the debugger.
            if lifecycle.paused_for() == Some(PausedFor::Debugger) {
                self.machine.resume();
            }
        }
    }

    fn status(&self) -> Status {
        Status {
            name: self.spec.name().to_owned(),
            slice: self.spec.slice().to_owned(),
            owner: self.spec.owner().to_owned(),
            contact: self.spec.contact().to_owned(),
            image: self.spec.image().display().to_string(),
            legacy: self.machine.legacy().is_some(),
            pid: std::process::id(),
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

/// Queues a late answer, if its client is still there.
fn reply(clients: &mut [Client], wait: &Wait, result: Outcome) {
    if let Some(client) = clients
        .iter_mut()
        .find(|client| client.number == wait.client)
    {
        client.queue(&Reply {
            v: PROTOCOL_VERSION,
            id: wait.id,
            result,
        });
    }
}

/// What has something to do.
struct Ready {
    bell: bool,
    listener: bool,
    clients: Vec<usize>,
}
