//! All connections of one vsock, and whose turn it is to send to the guest.
//!
//! Whoever has something for the guest stands in one line, sends one packet and goes to its end, so
//! that no connection can starve another. Resets go first; they belong to no connection.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;

use super::connection::{Breach, Connection, Ports, reset};
use super::packet::{HOST_CID, Header, Op};
use super::stream::{Fate, Stream};

/// Resets that wait for the guest to make room, beside one for each connection. Beyond it nothing
/// more is taken from the guest until it has (virtio 1.2, 5.10.6.1).
const MAX_RESETS: usize = 256;

/// Names a socket for as long as the device lives.
pub(super) type Id = u64;

/// The connections.
#[derive(Debug)]
pub(super) struct Streams {
    guest_cid: u64,
    by_id: HashMap<Id, Stream>,
    by_ports: HashMap<Ports, Id>,
    line: VecDeque<Id>,
    resets: VecDeque<Header>,
}

impl Streams {
    pub(super) fn new(guest_cid: u64) -> Self {
        Self {
            guest_cid,
            by_id: HashMap::new(),
            by_ports: HashMap::new(),
            line: VecDeque::new(),
            resets: VecDeque::new(),
        }
    }

    /// Number of connections.
    pub(super) fn count(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn contains(&self, ports: Ports) -> bool {
        self.by_ports.contains_key(&ports)
    }

    /// Whether so much waits for the guest to make room that nothing more may be added.
    pub(super) fn is_choked(&self) -> bool {
        self.resets.len() >= MAX_RESETS
    }

    /// Adds a connection that is not there yet.
    pub(super) fn add(&mut self, id: Id, connection: Connection, socket: OwnedFd) {
        let stream = Stream::new(connection, socket);
        self.by_ports.insert(stream.ports(), id);
        self.by_id.insert(id, stream);
        self.settle(id, Fate::Lives);
    }

    /// Answers a packet of the guest with a reset.
    pub(super) fn refuse(&mut self, header: &Header) {
        let ports = Ports {
            host: header.dst_port,
            guest: header.src_port,
        };
        self.resets
            .push_back(reset(self.guest_cid, header.dst_cid, ports));
    }

    /// Something has happened to socket `id`. `false` if that is none of a connection.
    pub(super) fn note(&mut self, id: Id, events: EventFlags) -> bool {
        let Some(stream) = self.by_id.get_mut(&id) else {
            return false;
        };
        let fate = stream.note(events);
        self.settle(id, fate);
        true
    }

    /// A packet of the guest for a connection, and its data. `None` if there is no such connection.
    pub(super) fn receive(
        &mut self,
        ports: Ports,
        header: &Header,
        op: Op,
        data: &[u8],
    ) -> Option<Result<(), Breach>> {
        let id = *self.by_ports.get(&ports)?;
        let result = self.by_id.get_mut(&id)?.receive(header, op, data);
        self.settle(id, *result.as_ref().unwrap_or(&Fate::Reset));
        Some(result.map(|_| ()))
    }

    /// Ends the connection with a reset, if there is one.
    pub(super) fn end(&mut self, ports: Ports) {
        if let Some(&id) = self.by_ports.get(&ports) {
            self.settle(id, Fate::Reset);
        }
    }

    /// Whether there may be a packet for the guest.
    pub(super) fn has_news(&self) -> bool {
        !self.resets.is_empty() || !self.line.is_empty()
    }

    /// The next packet for the guest; its data, at most what `data` has room for, is left there.
    pub(super) fn next_packet(&mut self, data: &mut [u8]) -> Option<Header> {
        if let Some(reset) = self.resets.pop_front() {
            return Some(reset);
        }
        // Each turn either gives a packet or finds that somebody in the line has none.
        for _ in 0..self.line.len() {
            let id = self.line.pop_front()?;
            let Some(stream) = self.by_id.get_mut(&id) else {
                continue;
            };
            stream.in_line = false;
            let packet = stream.next_packet(self.guest_cid, data);
            let fate = packet.as_ref().err().copied().unwrap_or(Fate::Lives);
            self.settle(id, fate);
            if let Ok(Some(header)) = packet {
                return Some(header);
            }
            if let Some(reset) = self.resets.pop_front() {
                return Some(reset);
            }
        }
        None
    }

    /// Lets a connection join the line, or ends it.
    fn settle(&mut self, id: Id, fate: Fate) {
        let Some(stream) = self.by_id.get_mut(&id) else {
            return;
        };
        if fate == Fate::Lives {
            if !stream.in_line && stream.has_news() {
                stream.in_line = true;
                self.line.push_back(id);
            }
            return;
        }
        let (ports, in_line) = (stream.ports(), stream.in_line);
        self.by_id.remove(&id);
        self.by_ports.remove(&ports);
        if in_line {
            // Or the line would grow with connections that come and go while the guest reads
            // nothing.
            self.line.retain(|other| *other != id);
        }
        if fate == Fate::Reset {
            self.resets
                .push_back(reset(self.guest_cid, HOST_CID, ports));
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.guest_cid);
    }
}
