//! Connections over one vsock device (virtio 1.2, 5.10.6): who is connected, how much may be sent,
//! and what is to be sent next. Pure: packets go in and out as values.
//!
//! Credit is honoured both ways: nothing is sent that the other end has no room for, and an end
//! that sends more than it was told there is room for is reset.

#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::task::{Context, Poll, Waker};

use super::wire::{HEADER, HOST_CID, Header, STREAM, op, shutdown};
use crate::net::{Error, Result};
use crate::task::crowd::add_waker;

/// Bytes that a connection keeps until they are read.
const ROOM: u32 = 256 << 10;

/// The most payload of a packet.
const PAYLOAD_MAX: usize = 64 << 10;

/// Connections that nobody has accepted yet, for each listener.
const BACKLOG: usize = 128;

/// Packets that may wait before writers do.
const OUT_MAX: usize = 64;

/// The first of the ports that connects are made from.
const FIRST_PORT: u32 = 1 << 30;

/// A connection's name: the port here and the port at the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    here: u32,
    there: u32,
}

/// All connections and listeners of a device.
#[derive(Debug)]
pub(crate) struct Mux {
    cid: u64,
    connections: BTreeMap<Key, Connection>,
    listeners: BTreeMap<u32, Listener>,
    out: VecDeque<Vec<u8>>,
    /// Who waits for packets to leave.
    crowded: Vec<Waker>,
    next_port: u32,
}

#[derive(Debug, Default)]
struct Listener {
    arrived: VecDeque<Key>,
    waiter: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Open,
    /// The handle is gone; the host has yet to agree.
    Closing,
    /// Over, for this reason if it was not in order.
    Over(Option<Error>),
}

#[derive(Debug)]
struct Connection {
    state: State,
    received: VecDeque<u8>,
    /// Bytes read so far, and how many of them the host knows of.
    taken: u32,
    taken_told: u32,
    /// Bytes sent so far, and how the host counts them.
    sent: u32,
    there_room: u32,
    there_taken: u32,
    credit_asked: bool,
    sends_no_more: bool,
    there_sends_no_more: bool,
    there_receives_no_more: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Connection {
    fn new(state: State) -> Self {
        Self {
            state,
            received: VecDeque::new(),
            taken: 0,
            taken_told: 0,
            sent: 0,
            there_room: 0,
            there_taken: 0,
            credit_asked: false,
            sends_no_more: false,
            there_sends_no_more: false,
            there_receives_no_more: false,
            reader: None,
            writer: None,
        }
    }

    /// Bytes that the host has room for.
    fn credit(&self) -> u32 {
        let on_the_way = self.sent.wrapping_sub(self.there_taken);
        self.there_room.saturating_sub(on_the_way)
    }

    fn wake(&mut self) {
        let both = [self.reader.take(), self.writer.take()];
        both.into_iter().flatten().for_each(Waker::wake);
    }

    fn end(&mut self, reason: Option<Error>) {
        self.state = State::Over(reason);
        self.wake();
    }
}

impl Mux {
    /// Without connections, for the sliver with this address.
    pub(crate) fn new(cid: u64) -> Self {
        Self {
            cid,
            connections: BTreeMap::new(),
            listeners: BTreeMap::new(),
            out: VecDeque::new(),
            crowded: Vec::new(),
            next_port: FIRST_PORT,
        }
    }

    /// Ends all connections, as the device asks for; the address may be another from now on.
    pub(crate) fn reset(&mut self, cid: u64) {
        self.cid = cid;
        self.out.clear();
        self.crowded.drain(..).for_each(Waker::wake);
        self.connections.retain(|_, connection| {
            let closing = connection.state == State::Closing;
            // One that is over already has ended as it did.
            if !matches!(connection.state, State::Over(_)) {
                connection.end(Some(Error::ConnectionReset));
            }
            !closing
        });
    }

    /// The next packet to be sent.
    pub(crate) fn next_out(&mut self) -> Option<Vec<u8>> {
        let packet = self.out.pop_front()?;
        if self.out.len() < OUT_MAX {
            self.crowded.drain(..).for_each(Waker::wake);
        }
        Some(packet)
    }

    /// Whether packets wait to be sent.
    pub(crate) fn has_out(&self) -> bool {
        !self.out.is_empty()
    }

    /// Listens on a port.
    pub(crate) fn listen(&mut self, port: u32) -> Result<()> {
        if self.listeners.contains_key(&port) {
            return Err(Error::AddressInUse);
        }
        self.listeners.insert(port, Listener::default());
        Ok(())
    }

    /// Listens no more; connections that nobody accepted are closed.
    pub(crate) fn unlisten(&mut self, port: u32) {
        let listener = self.listeners.remove(&port).unwrap_or_default();
        for key in listener.arrived {
            self.close(key);
        }
    }

    /// The next connection to a port that is listened on.
    pub(crate) fn accept(&mut self, port: u32, context: &Context<'_>) -> Poll<Key> {
        let Some(listener) = self.listeners.get_mut(&port) else {
            return Poll::Pending;
        };
        if let Some(key) = listener.arrived.pop_front() {
            return Poll::Ready(key);
        }
        listener.waiter = Some(context.waker().clone());
        Poll::Pending
    }

    /// Begins to connect to a port of the host.
    pub(crate) fn connect(&mut self, there: u32) -> Key {
        let key = loop {
            let here = self.next_port;
            self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
            let key = Key { here, there };
            let free = !self.listeners.contains_key(&here) && !self.connections.contains_key(&key);
            if free {
                break key;
            }
        };
        let connection = Connection::new(State::Connecting);
        self.connections.insert(key, connection);
        self.send(key, op::REQUEST, 0, &[]);
        key
    }

    /// Whether the connection is there.
    pub(crate) fn connected(&mut self, key: Key, context: &Context<'_>) -> Poll<Result<()>> {
        let connection = self.connection(key)?;
        match connection.state {
            State::Connecting => {
                connection.writer = Some(context.waker().clone());
                Poll::Pending
            }
            State::Over(Some(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Takes out what was received.
    pub(crate) fn read(
        &mut self,
        key: Key,
        bytes: &mut [u8],
        context: &Context<'_>,
    ) -> Poll<Result<usize>> {
        let connection = self.connection(key)?;
        let count = bytes.len().min(connection.received.len());
        if count == 0 && !bytes.is_empty() {
            return match connection.state {
                State::Over(Some(error)) => Poll::Ready(Err(error)),
                State::Over(None) => Poll::Ready(Ok(0)),
                _ if connection.there_sends_no_more => Poll::Ready(Ok(0)),
                _ => {
                    connection.reader = Some(context.waker().clone());
                    Poll::Pending
                }
            };
        }
        for (to, byte) in bytes.iter_mut().zip(connection.received.drain(..count)) {
            *to = byte;
        }
        connection.taken = connection.taken.wrapping_add(count as u32);
        let untold = connection.taken.wrapping_sub(connection.taken_told);
        if untold >= ROOM / 2 && connection.state == State::Open {
            self.send(key, op::CREDIT_UPDATE, 0, &[]);
        }
        Poll::Ready(Ok(count))
    }

    /// Sends as much as there is credit for.
    pub(crate) fn write(
        &mut self,
        key: Key,
        bytes: &[u8],
        context: &Context<'_>,
    ) -> Poll<Result<usize>> {
        let crowded = self.out.len() >= OUT_MAX;
        let connection = self.connection(key)?;
        match connection.state {
            State::Over(error) => return Poll::Ready(Err(error.unwrap_or(Error::ConnectionReset))),
            _ if connection.sends_no_more => return Poll::Ready(Err(Error::Closed)),
            _ if connection.there_receives_no_more => {
                return Poll::Ready(Err(Error::ConnectionReset));
            }
            _ => {}
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let count = bytes.len().min(connection.credit() as usize);
        let count = count.min(PAYLOAD_MAX);
        if count == 0 {
            connection.writer = Some(context.waker().clone());
            if !core::mem::replace(&mut connection.credit_asked, true) {
                self.send(key, op::CREDIT_REQUEST, 0, &[]);
            }
            return Poll::Pending;
        }
        if crowded {
            add_waker(&mut self.crowded, context);
            return Poll::Pending;
        }
        connection.sent = connection.sent.wrapping_add(count as u32);
        self.send(key, op::RW, 0, &bytes[..count]);
        Poll::Ready(Ok(count))
    }

    /// Tells the host that nothing more will be sent.
    pub(crate) fn shut_down(&mut self, key: Key) -> Result<()> {
        let connection = self.connection(key)?;
        let first = !core::mem::replace(&mut connection.sends_no_more, true);
        if first && connection.state == State::Open {
            self.send(key, op::SHUTDOWN, shutdown::NO_SEND, &[]);
        }
        Ok(())
    }

    /// Ends a connection whose handle is gone.
    pub(crate) fn close(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        match connection.state {
            State::Open => {
                connection.state = State::Closing;
                self.send(key, op::SHUTDOWN, shutdown::BOTH, &[]);
            }
            State::Connecting => {
                self.send(key, op::RST, 0, &[]);
                self.connections.remove(&key);
            }
            State::Closing | State::Over(_) => drop(self.connections.remove(&key)),
        }
    }

    /// Takes a packet from the host.
    pub(crate) fn receive(&mut self, header: &Header, payload: &[u8]) {
        if header.dst_cid != self.cid || header.src_cid != HOST_CID {
            return;
        }
        let key = Key {
            here: header.dst_port,
            there: header.src_port,
        };
        if header.op == op::REQUEST && header.kind == STREAM {
            return self.requested(key, header);
        }
        let Some(connection) = self.connections.get_mut(&key) else {
            return self.refuse(key, header);
        };
        if header.kind != STREAM {
            return self.refuse(key, header);
        }
        connection.there_room = header.buf_alloc;
        connection.there_taken = header.fwd_cnt;
        if connection.credit() > 0 && connection.state == State::Open {
            connection.credit_asked = false;
            connection.writer.take().into_iter().for_each(Waker::wake);
        }
        match (header.op, connection.state) {
            (op::RST, State::Closing) => drop(self.connections.remove(&key)),
            (op::RST, State::Connecting) => connection.end(Some(Error::ConnectionRefused)),
            (op::RST, State::Open) => connection.end(Some(Error::ConnectionReset)),
            (_, State::Over(_)) => self.refuse(key, header),
            (op::RESPONSE, State::Connecting) => {
                connection.state = State::Open;
                connection.wake();
            }
            (op::RW, State::Open) => {
                if payload.len() > ROOM as usize - connection.received.len() {
                    connection.end(Some(Error::ConnectionReset));
                    return self.send(key, op::RST, 0, &[]);
                }
                connection.received.extend(payload);
                connection.reader.take().into_iter().for_each(Waker::wake);
            }
            // Nobody is left to read it.
            (op::RW, State::Closing) => {}
            (op::CREDIT_REQUEST, State::Open) => self.send(key, op::CREDIT_UPDATE, 0, &[]),
            (op::CREDIT_UPDATE | op::CREDIT_REQUEST, _) => {}
            (op::SHUTDOWN, State::Open | State::Closing) => {
                connection.there_sends_no_more |= header.flags & shutdown::NO_SEND != 0;
                connection.there_receives_no_more |= header.flags & shutdown::NO_RECEIVE != 0;
                if connection.there_sends_no_more && connection.there_receives_no_more {
                    let closing = connection.state == State::Closing;
                    connection.end(None);
                    self.send(key, op::RST, 0, &[]);
                    if closing {
                        self.connections.remove(&key);
                    }
                } else {
                    connection.wake();
                }
            }
            _ => {
                connection.end(Some(Error::ConnectionReset));
                self.send(key, op::RST, 0, &[]);
            }
        }
    }

    fn requested(&mut self, key: Key, header: &Header) {
        let listener = self.listeners.get_mut(&key.here);
        let has_room = |listener: &&mut Listener| listener.arrived.len() < BACKLOG;
        let Some(listener) = listener.filter(has_room) else {
            return self.refuse(key, header);
        };
        if self.connections.contains_key(&key) {
            return self.refuse(key, header);
        }
        let mut connection = Connection::new(State::Open);
        connection.there_room = header.buf_alloc;
        connection.there_taken = header.fwd_cnt;
        self.connections.insert(key, connection);
        listener.arrived.push_back(key);
        listener.waiter.take().into_iter().for_each(Waker::wake);
        self.send(key, op::RESPONSE, 0, &[]);
    }

    /// Nothing here is what a packet is about. A refusal is not refused.
    fn refuse(&mut self, key: Key, header: &Header) {
        // What a host sends without end is answered only as fast as it takes the answers.
        if header.op != op::RST && self.out.len() < 2 * OUT_MAX {
            self.send(key, op::RST, 0, &[]);
        }
    }

    fn send(&mut self, key: Key, op: u16, flags: u32, payload: &[u8]) {
        let taken = match self.connections.get_mut(&key) {
            Some(connection) => {
                connection.taken_told = connection.taken;
                connection.taken
            }
            None => 0,
        };
        let header = Header {
            src_cid: self.cid,
            dst_cid: HOST_CID,
            src_port: key.here,
            dst_port: key.there,
            len: payload.len() as u32,
            kind: STREAM,
            op,
            flags,
            buf_alloc: ROOM,
            fwd_cnt: taken,
        };
        let mut packet = Vec::with_capacity(HEADER + payload.len());
        packet.extend(header.to_bytes());
        packet.extend(payload);
        self.out.push_back(packet);
    }

    fn connection(&mut self, key: Key) -> Result<&mut Connection> {
        self.connections.get_mut(&key).ok_or(Error::Closed)
    }
}
