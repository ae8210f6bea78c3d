//! The control thread: answers requests on the control socket, watches the tie, the signals and
//! the time limit.
//!
//! It never waits for one client: everything is non-blocking, a client that does not read its
//! answers or sends nonsense is dropped, and what it asked to wait for is answered when it happens.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::{Client, parse};
use super::endpoint::Endpoint;
use super::proto::{
    Answer, Notice, Op, Outcome, PROTOCOL_VERSION, Reply, Request, State, Status, StopReason,
    write_frame,
};
use crate::exit::{CpuTime, Exit};
use crate::machine::Machine;
use crate::memory_access;
use crate::resident;
use crate::sched::account::process_ns;
use crate::signals::Signals;
use crate::spec::SliverSpec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;

/// Clients served at the same time. One more takes the place of the one that has been silent for
/// the longest time and waits for nothing: silent clients must not lock out the operator.
const MAX_CLIENTS: usize = 16;
/// A quiet moment of this length tells that the start is over.
const SETTLE_AFTER: Duration = Duration::from_millis(100);

/// Everything the control thread looks after.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) machine: Arc<Machine>,
    pub(crate) spec: SliverSpec,
    pub(crate) started: Instant,
    pub(crate) endpoint: Endpoint,
    pub(crate) tie: Option<UnixStream>,
    pub(crate) signals: Signals,
    clients: Vec<Client>,
    waits: Vec<Wait>,
    next_client: u64,
    settled: bool,
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
}

impl Server {
    pub(crate) fn new(
        machine: Arc<Machine>,
        spec: SliverSpec,
        started: Instant,
        endpoint: Endpoint,
        tie: Option<UnixStream>,
        signals: Signals,
    ) -> Self {
        Self {
            machine,
            spec,
            started,
            endpoint,
            tie,
            signals,
            clients: Vec::new(),
            waits: Vec::new(),
            next_client: 0,
            settled: false,
        }
    }

    /// Serves until the sliver has ended, then gives back what outlives it.
    pub(crate) fn serve(mut self) -> (Endpoint, Option<UnixStream>) {
        if let Some(tie) = &self.tie {
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
        self.answer_waits();
        for client in &mut self.clients {
            client.send();
        }
        (self.endpoint, self.tie)
    }

    /// Waits for something to happen and does what follows.
    fn turn(&mut self) -> io::Result<()> {
        let deadline = self.spec.time_limit().map(|limit| self.started + limit);
        let now = Instant::now();
        let settle = (!self.settled).then_some(SETTLE_AFTER);
        let left = deadline.map(|at| at.saturating_duration_since(now));
        let ready = self.wait(left.into_iter().chain(settle).min())?;
        if !self.settled && now.elapsed() >= SETTLE_AFTER {
            self.settled = true;
            resident::shed_startup_code();
        }
        if deadline.is_some_and(|at| Instant::now() >= at) {
            let limit = self.spec.time_limit().unwrap_or_default();
            self.machine.end(Exit::timeout(format!(
                "its time limit of {limit:?} was reached"
            )));
        }
        if ready.bell {
            self.machine.bell.silence();
        }
        if ready.signal
            && let Some(name) = self.signals.take()
        {
            self.machine
                .end(Exit::stopped(format!("the monitor received {name}")));
        }
        if ready.tie {
            self.machine
                .end(Exit::stopped("whoever ran it in the foreground is gone"));
        }
        for index in ready.clients {
            self.serve_client(index);
        }
        if ready.listener {
            self.accept();
        }
        self.answer_waits();
        for client in &mut self.clients {
            client.send();
        }
        self.drop_gone();
        Ok(())
    }

    fn wait(&self, timeout: Option<Duration>) -> io::Result<Ready> {
        let mut fds = vec![
            PollFd::new(&self.machine.bell, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(self.endpoint.listener(), PollFlags::IN),
        ];
        let first_client = fds.len();
        for client in &self.clients {
            let out = if client.has_sent_all() {
                PollFlags::empty()
            } else {
                PollFlags::OUT
            };
            fds.push(PollFd::new(&client.stream, PollFlags::IN | out));
        }
        if let Some(tie) = &self.tie {
            fds.push(PollFd::from_borrowed_fd(tie.as_fd(), PollFlags::IN));
        }
        let timeout = timeout.map(|t| Timespec {
            tv_sec: t.as_secs().min(i32::MAX as u64) as i64,
            tv_nsec: i64::from(t.subsec_nanos()),
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let clients = first_client..first_client + self.clients.len();
        Ok(Ready {
            bell: is_ready(&fds[0]),
            signal: is_ready(&fds[1]),
            listener: is_ready(&fds[2]),
            tie: self.tie.is_some() && fds.last().is_some_and(is_ready),
            clients: clients
                .filter(|&i| is_ready(&fds[i]))
                .map(|i| i - first_client)
                .collect(),
        })
    }

    /// Takes in a client, if it is this user or root (SO_PEERCRED, unix(7)).
    fn accept(&mut self) {
        let Ok((stream, _)) = self.endpoint.listener().accept() else {
            return;
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
        self.clients[index].receive();
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
                machine.pause();
                return self.wait_for(index, id, WaitKind::Paused);
            }
            Op::Resume => {
                machine.resume();
                Ok(Answer::Done)
            }
            Op::Stop { reason } => {
                let reason = if reason.is_empty() {
                    "over the control socket"
                } else {
                    &reason
                };
                machine.end(Exit::stopped(reason));
                Ok(Answer::Done)
            }
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
            Op::Debug => {
                self.clients[index].debugs = true;
                machine.lifecycle.set_debug(true);
                Ok(Answer::Done)
            }
            Op::Step { vcpu } => match machine.lifecycle.step(vcpu) {
                Ok(()) => return self.wait_for(index, id, WaitKind::Stopped),
                Err(problem) => Err(problem.to_owned()),
            },
            Op::WaitStop => return self.wait_for(index, id, WaitKind::Stopped),
        };
        Some(result.map_or_else(Outcome::Error, Outcome::Ok))
    }

    fn wait_for(&mut self, index: usize, id: u64, kind: WaitKind) -> Option<Outcome> {
        self.waits.push(Wait {
            client: self.clients[index].number,
            id,
            kind,
        });
        None
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
                (WaitKind::Stopped, _, Some(reason)) => {
                    Outcome::Ok(Answer::Stopped(reason.clone()))
                }
                (WaitKind::Paused, State::Paused, _) => Outcome::Ok(Answer::Done),
                (WaitKind::Paused, State::Ended, _) => {
                    Outcome::Error("the sliver has ended".to_owned())
                }
                _ => return true,
            };
            if let Some(client) = clients.iter_mut().find(|c| c.number == wait.client) {
                client.queue(&Reply {
                    v: PROTOCOL_VERSION,
                    id: wait.id,
                    result,
                });
            }
            false
        });
    }

    fn drop_gone(&mut self) {
        let debugger_gone = self
            .clients
            .iter()
            .any(|client| client.gone && client.debugs);
        self.clients.retain(|client| !client.gone);
        let clients = &self.clients;
        self.waits
            .retain(|wait| clients.iter().any(|client| client.number == wait.client));
        if debugger_gone && !self.clients.iter().any(|client| client.debugs) {
            self.machine.lifecycle.set_debug(false);
            // Nobody is left who would let a sliver go on that stopped for the debugger.
            let stopped_for_it = !matches!(
                self.machine.lifecycle.stop_reason(),
                None | Some(StopReason::Paused | StopReason::Ended { .. })
            );
            if stopped_for_it {
                self.machine.resume();
            }
        }
    }

    fn status(&self) -> Status {
        let guest = self.machine.guest_ns();
        Status {
            name: self.spec.name().to_owned(),
            slice: self.spec.slice().to_owned(),
            owner: self.spec.owner().to_owned(),
            contact: self.spec.contact().to_owned(),
            image: self.spec.image().display().to_string(),
            pid: std::process::id(),
            state: self.machine.lifecycle.state(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            memory_kib: self.spec.memory_bytes() >> 10,
            vcpus: self.spec.vcpus(),
            cpu_us: CpuTime {
                guest: guest / 1000,
                monitor: process_ns().saturating_sub(guest) / 1000,
            },
        }
    }
}

/// What has something to do.
struct Ready {
    bell: bool,
    signal: bool,
    listener: bool,
    tie: bool,
    clients: Vec<usize>,
}
