//! The socket device (virtio 1.2, 5.10): streams between the guest and unix sockets of the host.
//!
//! A connection of the guest to port 80 of the host (context 2) goes to the unix socket `80.sock`
//! in the directory of the spec. A program on the host that wants port 22 of the guest connects to
//! `guest.sock` there, writes `CONNECT 22\n`, reads `OK ...\n`, and has its stream. The contents of
//! this device are three layers: [`packet`], [`credit`], [`connection`] and [`handshake`] are pure;
//! streams join them with sockets; here they meet the queues.

pub mod connection;
pub mod credit;
pub mod handshake;
mod host;
pub mod packet;
mod stream;
mod streams;
#[cfg(test)]
mod tests;

use rustix::process::{Resource, getrlimit};
use slice_abi::device::device_id;
use std::os::fd::OwnedFd;
use std::path::Path;

pub use host::{GUEST_SOCKET, GuestSocket, VsockError};

use super::backend::{
    BATCH, Backend, Counter, Fault, Identity, Interest, Port, Progress, Queues, Source,
};
use super::chain::Chain;
use super::queue::QueueError;
use super::transfer::{read_at, total, write_at};
use crate::nanos::Nanos;
use crate::spec::VsockSpec;
use connection::{Breach, Connection, Ports};
use credit::BUFFER_BYTES;
use host::{Call, Host};
use packet::{HEADER_BYTES, HOST_CID, Header, Op, TYPE_STREAM};
use streams::Streams;

/// Index of the queue of packets to the guest.
const RECEIVE: usize = 0;
/// Index of the queue of packets of the guest. The third queue, of events, is never used: they tell
/// of a guest that was moved.
const TRANSMIT: usize = 1;
/// Descriptors of each queue.
const QUEUE_SIZE: u16 = 128;
/// Connections at most, or half of the descriptors that this process may have, if that is less.
const MAX_CONNECTIONS: u64 = 1024;
/// Ports of the host from here on are given to its programs that connect to the guest.
const FIRST_HOST_PORT: u32 = 1 << 30;

/// A vsock.
#[derive(Debug)]
pub struct Vsock {
    guest_cid: u64,
    config: [u8; 8],
    host: Host,
    streams: Streams,
    max_connections: usize,
    next_host_port: u32,
    /// Something may have happened to a socket.
    events: bool,
    chain: Chain,
    /// Where data is on its way between a socket and the guest.
    data: Vec<u8>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    accepted: u64,
    refused: u64,
    from_guest_bytes: u64,
    to_guest_bytes: u64,
    bad_packets: u64,
    forged_packets: u64,
    protocol_violations: u64,
    credit_violations: u64,
    short_buffers: u64,
}

/// Why no more is taken from the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    All,
    Batch,
    /// The guest has to take answers first.
    Choked,
}

impl Vsock {
    /// The vsock of a spec, with the socket for those who want a port of the guest and the directory
    /// of the host's ports.
    pub fn new(spec: &VsockSpec, listener: OwnedFd, dir: &Path) -> Result<Self, VsockError> {
        let guest_cid = u64::from(spec.cid());
        let descriptors = getrlimit(Resource::Nofile).current;
        let half = descriptors.map_or(MAX_CONNECTIONS, |limit| limit / 2);
        Ok(Self {
            guest_cid,
            config: guest_cid.to_le_bytes(),
            host: Host::new(dir, listener)?,
            streams: Streams::new(guest_cid),
            max_connections: half.min(MAX_CONNECTIONS) as usize,
            next_host_port: FIRST_HOST_PORT,
            events: true,
            chain: Chain::default(),
            data: Vec::new(),
            counters: Counters::default(),
        })
    }

    /// Takes what has happened to sockets; whether there may be more.
    fn take_events(&mut self) -> bool {
        if std::mem::take(&mut self.events) {
            let streams = &mut self.streams;
            let mut calls = Vec::new();
            self.events = self.host.take_events(|host, id, events| {
                if !streams.note(id, events) {
                    calls.extend(host.note_caller(id, events));
                }
            });
            for call in calls {
                self.call(call);
            }
        }
        for _ in 0..BATCH {
            if !self.host.accepting || self.is_full() || self.streams.is_choked() {
                return self.events;
            }
            if let Some(call) = self.host.accept() {
                self.call(call);
            }
        }
        true
    }

    fn is_full(&self) -> bool {
        self.streams.count() + self.host.callers() >= self.max_connections
    }

    /// Asks the guest for a connection.
    fn call(&mut self, call: Call) {
        let ports = loop {
            let host = self.next_host_port;
            self.next_host_port = host.wrapping_add(1).max(FIRST_HOST_PORT);
            let ports = Ports {
                host,
                guest: call.port,
            };
            // There are more ports than connections.
            if !self.streams.contains(ports) {
                break ports;
            }
        };
        self.streams
            .add(call.id, Connection::asking(ports), call.socket);
    }

    /// Takes a batch of packets from the guest.
    fn take_packets(&mut self, port: &mut Port<'_>) -> Result<Taken, Fault> {
        for _ in 0..BATCH {
            if self.streams.is_choked() {
                return Ok(Taken::Choked);
            }
            if !port.pop(&mut self.chain)? {
                if port.listen()? {
                    continue;
                }
                return Ok(Taken::All);
            }
            if !self.chain.writable.is_empty() {
                return Err(port.fault(QueueError::Direction));
            }
            self.take_packet(port)?;
            port.push(self.chain.head, 0)?;
        }
        Ok(Taken::Batch)
    }

    /// Takes the packet that the present chain holds.
    fn take_packet(&mut self, port: &Port<'_>) -> Result<(), Fault> {
        let mut raw = [0; HEADER_BYTES];
        let len = read_at(&self.chain, 0, port.ram(), &mut raw).map_err(|e| port.fault(e))?;
        if len < HEADER_BYTES {
            self.counters.bad_packets += 1;
            return Ok(());
        }
        let header = Header::parse(&raw);
        if header.src_cid != self.guest_cid {
            self.counters.forged_packets += 1;
            return Ok(());
        }
        let ports = Ports {
            host: header.dst_port,
            guest: header.src_port,
        };
        let here = header.dst_cid == HOST_CID;
        let there = total(&self.chain.readable) - HEADER_BYTES as u64;
        let sound = header.kind == TYPE_STREAM && u64::from(header.len) <= there;
        let Some(op) = header.op().filter(|_| here && sound) else {
            self.counters.bad_packets += 1;
            if here && self.streams.contains(ports) {
                self.streams.end(ports);
            } else if header.op() != Some(Op::Reset) {
                self.streams.refuse(&header);
            }
            return Ok(());
        };
        // More than this is more than the credit, whatever the rest of it holds.
        let len = header.len.min(BUFFER_BYTES) as usize;
        let data = &mut self.data[..len];
        read_at(&self.chain, HEADER_BYTES as u64, port.ram(), data).map_err(|e| port.fault(e))?;
        match self.streams.receive(ports, &header, op, data) {
            Some(Ok(())) if op == Op::Data => self.counters.from_guest_bytes += len as u64,
            Some(Ok(())) => {}
            Some(Err(Breach::Credit)) => self.counters.credit_violations += 1,
            Some(Err(Breach::Protocol)) => self.counters.protocol_violations += 1,
            None => self.take_stray(ports, &header, op),
        }
        Ok(())
    }

    /// A packet for a connection that is not there.
    fn take_stray(&mut self, ports: Ports, header: &Header, op: Op) {
        let may = op == Op::Request && header.len == 0 && !self.is_full();
        if may && let Ok((id, socket)) = self.host.connect(ports.host) {
            self.counters.accepted += 1;
            let connection = Connection::accepted(ports, header);
            return self.streams.add(id, connection, socket);
        }
        if op == Op::Request {
            self.counters.refused += 1;
        }
        if op != Op::Reset {
            self.streams.refuse(header);
        }
    }

    /// Gives a batch of packets to the guest; whether there may be more that it has room for.
    fn give_packets(&mut self, port: &mut Port<'_>) -> Result<bool, Fault> {
        for _ in 0..BATCH {
            if !self.streams.has_news() {
                return Ok(false);
            }
            if !port.pop(&mut self.chain)? {
                if port.listen()? {
                    continue;
                }
                return Ok(false);
            }
            if !self.chain.readable.is_empty() {
                return Err(port.fault(QueueError::Direction));
            }
            let Some(room) = total(&self.chain.writable).checked_sub(HEADER_BYTES as u64 + 1)
            else {
                // Without room for a byte of data it is good for nothing.
                self.counters.short_buffers += 1;
                port.push(self.chain.head, 0)?;
                continue;
            };
            let room = (room + 1).min(self.data.len() as u64) as usize;
            let Some(header) = self.streams.next_packet(&mut self.data[..room]) else {
                port.unpop(1);
                continue;
            };
            let data = &self.data[..header.len as usize];
            write_at(&self.chain, 0, port.ram(), &header.encode())
                .and_then(|_| write_at(&self.chain, HEADER_BYTES as u64, port.ram(), data))
                .map_err(|error| port.fault(error))?;
            port.push(self.chain.head, HEADER_BYTES as u32 + header.len)?;
            self.counters.to_guest_bytes += u64::from(header.len);
        }
        Ok(true)
    }
}

impl Backend for Vsock {
    fn identity(&self) -> Identity {
        Identity {
            id: device_id::VSOCK,
            tag: "vsock".to_owned(),
            // Streams need no feature (virtio 1.2, 5.10.3).
            features: 0,
            queue_sizes: vec![QUEUE_SIZE; 3],
        }
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn start(&mut self, _features: u64) {
        self.data.resize(BUFFER_BYTES as usize, 0);
        self.events = true;
    }

    fn serve(&mut self, queues: &mut Queues<'_>, _now: Nanos) -> Result<Progress, Fault> {
        let mut more = self.take_events();
        let connections = self.streams.count();
        let taken = match queues.get(TRANSMIT) {
            Some(mut port) => self.take_packets(&mut port)?,
            None => Taken::All,
        };
        if let Some(mut port) = queues.get(RECEIVE) {
            more |= self.give_packets(&mut port)?;
        }
        more |= match taken {
            Taken::All => false,
            Taken::Batch => true,
            Taken::Choked => !self.streams.is_choked(),
        };
        if self.streams.count() < connections {
            // Whoever found no room, or no descriptor, may find one now.
            self.host.accepting = true;
        }
        more |= self.host.accepting && !self.is_full() && !self.streams.is_choked();
        Ok(if more {
            Progress::More
        } else {
            Progress::Waiting
        })
    }

    fn stop(&mut self) -> bool {
        self.streams.clear();
        self.host.drop_callers();
        self.data = Vec::new();
        true
    }

    fn sources(&self) -> Vec<Source<'_>> {
        vec![Source {
            fd: self.host.fd(),
            interest: Interest::Read,
        }]
    }

    fn ready(&mut self, _source: usize) {
        self.events = true;
    }

    fn counters(&self) -> Vec<Counter> {
        let counters = &self.counters;
        vec![
            ("connections", self.streams.count() as u64),
            ("accepted", counters.accepted),
            ("refused", counters.refused),
            ("from_guest_bytes", counters.from_guest_bytes),
            ("to_guest_bytes", counters.to_guest_bytes),
            ("bad_packets", counters.bad_packets),
            ("forged_packets", counters.forged_packets),
            ("protocol_violations", counters.protocol_violations),
            ("credit_violations", counters.credit_violations),
            ("short_buffers", counters.short_buffers),
        ]
    }
}
