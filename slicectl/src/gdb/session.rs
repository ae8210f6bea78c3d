//! One gdb from its connection to its end: carries bytes and stops between gdb and the sliver.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;

use gdbstub::common::Signal;
use gdbstub::conn::Connection;
use gdbstub::stub::state_machine::GdbStubStateMachine as Machine;
use gdbstub::stub::{DisconnectReason, GdbStub, GdbStubError, MultiThreadStopReason};
use rustix::event::{PollFd, PollFlags, poll};
use vmm::control::proto::StopReason;

use super::Ended;
use super::connection::GdbConnection;
use super::target::{SliverTarget, thread};
use crate::client::ClientError;
use crate::problem::Problem;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// gdb has detached: the sliver runs on.
    Detached,
    /// gdb wants the sliver to end.
    Killed,
    /// The connection is gone.
    Lost,
    /// The sliver has ended.
    Ended,
}

/// A session.
#[derive(Debug)]
pub(super) struct Session<'a> {
    connection: GdbConnection,
    ended: &'a Ended,
}

/// What comes next.
enum Event {
    Byte(u8),
    Closed,
    Stopped,
    Ended,
}

impl<'a> Session<'a> {
    pub(super) fn new(stream: TcpStream, ended: &'a Ended) -> Self {
        Self {
            connection: GdbConnection::new(stream),
            ended,
        }
    }

    /// Serves until the end of the session.
    pub(super) fn run(self, target: &mut SliverTarget) -> Result<Outcome, Problem> {
        let ended = self.ended;
        match serve(self.connection, target, ended) {
            Ok(outcome) => Ok(outcome),
            Err(error) if error.is_connection_error() => Ok(Outcome::Lost),
            // The monitor goes away when the sliver ends, whatever gdb was about to ask.
            Err(error) => match error.into_target_error() {
                Some(ClientError::Closed) => Ok(Outcome::Ended),
                Some(error) => Err(Problem::new("gdb", error.to_string())),
                None => Err(Problem::new("gdb", "the protocol was broken")),
            },
        }
    }
}

fn serve(
    connection: GdbConnection,
    target: &mut SliverTarget,
    ended: &Ended,
) -> Result<Outcome, GdbStubError<ClientError, io::Error>> {
    let mut machine = GdbStub::new(connection).run_state_machine(target)?;
    loop {
        machine = match machine {
            Machine::Idle(mut idle) => match next(idle.borrow_conn(), None, ended) {
                Event::Byte(byte) => idle.incoming_data(target, byte)?,
                Event::Closed => return Ok(Outcome::Lost),
                Event::Ended | Event::Stopped => return Ok(Outcome::Ended),
            },
            Machine::Running(mut running) => {
                match next(running.borrow_conn(), Some(target), ended) {
                    Event::Byte(byte) => running.incoming_data(target, byte)?,
                    Event::Closed => return Ok(Outcome::Lost),
                    Event::Ended => running.report_stop(target, exited(ended.status()))?,
                    Event::Stopped => match target.stopped() {
                        Ok(reason) => running.report_stop(target, reported(&reason))?,
                        // It ended; its exit code comes by the other way.
                        Err(ClientError::Closed) => {
                            wait_for(ended);
                            running.report_stop(target, exited(ended.status()))?
                        }
                        Err(error) => {
                            crate::report::say(format!("gdb: {error}"));
                            return Ok(Outcome::Lost);
                        }
                    },
                }
            }
            Machine::CtrlCInterrupt(interrupted) => {
                target.interrupt();
                // The stop is reported when it comes.
                interrupted.interrupt_handled(target, None::<MultiThreadStopReason<u64>>)?
            }
            Machine::Disconnected(mut done) => {
                let reason = done.get_reason();
                let connection = done.borrow_conn();
                if reason == DisconnectReason::Kill {
                    // gdb waits for an answer to vKill, which the stub does not give.
                    let _ = connection.write_all(b"$OK#9a");
                }
                let _ = connection.flush();
                return Ok(match reason {
                    DisconnectReason::Disconnect => Outcome::Detached,
                    DisconnectReason::Kill => Outcome::Killed,
                    DisconnectReason::TargetExited(_) | DisconnectReason::TargetTerminated(_) => {
                        Outcome::Ended
                    }
                });
            }
        };
    }
}

/// Waits for gdb, for the sliver's end and, if `running` is given, for its stop.
fn next(connection: &mut GdbConnection, running: Option<&SliverTarget>, ended: &Ended) -> Event {
    // What was answered so far goes out before waiting for what comes of it.
    if connection.flush().is_err() {
        return Event::Closed;
    }
    loop {
        if let Some(byte) = connection.pending() {
            return Event::Byte(byte);
        }
        let mut fds = vec![
            PollFd::from_borrowed_fd(connection.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(ended.event.as_fd(), PollFlags::IN),
        ];
        fds.extend(running.map(|target| PollFd::from_borrowed_fd(target.stops(), PollFlags::IN)));
        if poll(&mut fds, None).is_err() {
            continue;
        }
        let ready = |i: usize| {
            fds.get(i)
                .is_some_and(|fd: &PollFd| !fd.revents().is_empty())
        };
        match (ready(0), ready(1), ready(2)) {
            (_, _, true) => return Event::Stopped,
            (_, true, _) => return Event::Ended,
            (true, ..) => {}
            _ => continue,
        }
        match connection.receive() {
            Ok(true) => {}
            Ok(false) | Err(_) => return Event::Closed,
        }
    }
}

fn wait_for(ended: &Ended) {
    let mut fds = [PollFd::from_borrowed_fd(ended.event.as_fd(), PollFlags::IN)];
    while let Err(rustix::io::Errno::INTR) = poll(&mut fds, None) {}
}

fn exited(status: u8) -> MultiThreadStopReason<u64> {
    MultiThreadStopReason::Exited(status)
}

/// A stop as gdb knows it.
fn reported(reason: &StopReason) -> MultiThreadStopReason<u64> {
    match *reason {
        StopReason::Breakpoint { vcpu } => MultiThreadStopReason::SwBreak(thread(vcpu)),
        StopReason::Step { vcpu } => MultiThreadStopReason::SignalWithThread {
            tid: thread(vcpu),
            signal: Signal::SIGTRAP,
        },
        StopReason::Paused => MultiThreadStopReason::Signal(Signal::SIGINT),
        StopReason::Fault { vcpu, vector } => MultiThreadStopReason::SignalWithThread {
            tid: thread(vcpu),
            signal: signal_of(vector),
        },
        StopReason::Ended { status } => exited(status),
    }
}

/// The signal that Linux makes of an exception (arch/x86/kernel/traps.c).
fn signal_of(vector: u8) -> Signal {
    match vector {
        0 | 16 | 19 => Signal::SIGFPE,
        1 | 3 => Signal::SIGTRAP,
        6 => Signal::SIGILL,
        11 | 12 | 17 => Signal::SIGBUS,
        _ => Signal::SIGSEGV,
    }
}
