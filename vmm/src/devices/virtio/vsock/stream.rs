//! A connection together with its unix socket on the host: moves bytes between the two as far as
//! both let it, and never waits.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown as shut_socket};

use super::connection::{Arrival, Breach, Connection, Ports};
use super::handshake;
use super::packet::{Header, Op, shutdown};

/// A write never waits, and whoever has gone is no reason for a signal.
const SEND: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

/// What has become of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes on.
    Lives,
    /// It is over, and the guest has to be told.
    Reset,
    /// It is over, and the guest knows.
    Gone,
}

/// A connection with its socket.
#[derive(Debug)]
pub(super) struct Stream {
    connection: Connection,
    socket: OwnedFd,
    /// Bytes of the guest that the socket has not taken, no more than there was credit for.
    backlog: VecDeque<u8>,
    /// Whether the socket may have something to read, or room, since it last had not.
    readable: bool,
    writable: bool,
    /// Whether the other end of the socket is closed.
    hung_up: bool,
    /// What the socket was told of what the guest will not do.
    socket_shut: u32,
    /// Whether it stands in the line of those that have something for the guest.
    pub(super) in_line: bool,
}

impl Stream {
    pub(super) fn new(connection: Connection, socket: OwnedFd) -> Self {
        Self {
            connection,
            socket,
            backlog: VecDeque::new(),
            readable: true,
            writable: true,
            hung_up: false,
            socket_shut: 0,
            in_line: false,
        }
    }

    pub(super) fn ports(&self) -> Ports {
        self.connection.ports()
    }

    /// Something has happened to the socket.
    pub(super) fn note(&mut self, events: EventFlags) -> Fate {
        let ends = EventFlags::HUP | EventFlags::ERR;
        self.hung_up |= events.intersects(ends);
        self.readable |= events.intersects(EventFlags::IN | EventFlags::RDHUP | ends);
        self.writable |= events.intersects(EventFlags::OUT | ends);
        if self.hung_up && !self.connection.is_open() {
            // Whoever asked has gone before the guest answered.
            return Fate::Reset;
        }
        if self.hung_up && self.connection.host_shut() & shutdown::SEND != 0 {
            self.connection.shut_host(shutdown::BOTH);
        }
        self.flush();
        self.fate()
    }

    /// A packet of the guest, with its data.
    pub(super) fn receive(&mut self, header: &Header, op: Op, data: &[u8]) -> Result<Fate, Breach> {
        match self.connection.receive(header, op)? {
            Arrival::Nothing => {}
            Arrival::Gone => return Ok(Fate::Gone),
            Arrival::Accepted => {
                let answer = handshake::answer(self.ports().host);
                let sent = send(&self.socket, answer.as_bytes(), SEND);
                if sent != Ok(answer.len()) {
                    return Ok(Fate::Reset);
                }
            }
            Arrival::Data => {
                let taken = if self.backlog.is_empty() {
                    self.write(data)
                } else {
                    0
                };
                self.backlog.extend(&data[taken..]);
            }
            Arrival::Shut => self.flush(),
        }
        Ok(self.fate())
    }

    fn fate(&self) -> Fate {
        if self.connection.is_finished() {
            Fate::Reset
        } else {
            Fate::Lives
        }
    }

    /// Writes what the socket takes of the backlog, and then tells it what the guest will not do.
    fn flush(&mut self) {
        let mut backlog = std::mem::take(&mut self.backlog);
        while !backlog.is_empty() {
            match self.write(backlog.as_slices().0) {
                0 => break,
                taken => drop(backlog.drain(..taken)),
            }
        }
        if backlog.is_empty() {
            // It is not kept: a thousand idle connections should not hold a thousand buffers.
            self.shut_socket(shutdown::SEND, Shutdown::Write);
        } else {
            self.backlog = backlog;
        }
        if self.connection.guest_shut() & shutdown::RECEIVE != 0 {
            self.connection.shut_host(shutdown::SEND);
            self.shut_socket(shutdown::RECEIVE, Shutdown::Read);
        }
    }

    /// Gives bytes of the guest to the socket. How many it took; all, if nobody reads it any more.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        let gone = |connection: &Connection| connection.host_shut() & shutdown::RECEIVE != 0;
        while self.writable && taken < bytes.len() && !gone(&self.connection) {
            match send(&self.socket, &bytes[taken..], SEND) {
                Ok(len) => taken += len,
                Err(Errno::AGAIN) => self.writable = false,
                Err(Errno::INTR) => {}
                Err(_) => self.connection.shut_host(shutdown::RECEIVE),
            }
        }
        if gone(&self.connection) {
            taken = bytes.len();
        }
        self.connection.forward(taken as u32);
        taken
    }

    fn shut_socket(&mut self, flag: u32, how: Shutdown) {
        if self.connection.guest_shut() & !self.socket_shut & flag != 0 {
            self.socket_shut |= flag;
            // A socket that has gone needs not be told.
            let _ = shut_socket(&self.socket, how);
        }
    }

    /// Whether there may be something for the guest.
    pub(super) fn has_news(&self) -> bool {
        self.connection.owes() || self.readable && self.connection.room() > 0
    }

    /// The next packet for the guest; its data, at most what `data` has room for, is left there.
    pub(super) fn next_packet(
        &mut self,
        guest_cid: u64,
        data: &mut [u8],
    ) -> Result<Option<Header>, Fate> {
        if let Some(header) = self.connection.pay(guest_cid) {
            return Ok(Some(header));
        }
        let room = data.len().min(self.connection.room() as usize);
        if !self.readable || room == 0 {
            return Ok(None);
        }
        match recv(&self.socket, &mut data[..room], RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                self.readable = false;
                let done = if self.hung_up {
                    shutdown::BOTH
                } else {
                    shutdown::SEND
                };
                self.connection.shut_host(done);
                Ok(self.connection.pay(guest_cid))
            }
            Ok((len, _)) => {
                let header = self.connection.send(guest_cid, len as u32);
                if self.connection.room() == 0 {
                    self.connection.miss_room();
                }
                Ok(Some(header))
            }
            Err(Errno::AGAIN) => {
                self.readable = false;
                Ok(None)
            }
            Err(Errno::INTR) => Ok(None),
            Err(_) => Err(Fate::Reset),
        }
    }
}
