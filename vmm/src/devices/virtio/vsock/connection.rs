//! One connection as a state machine (virtio 1.2, 5.10.6): packets of the guest and what happens to
//! the stream on the host go in, what is owed to the guest comes out. Pure.
//!
//! ```text
//!   guest asks: Request in,  Response out ----> open --- both sides shut, or Reset ---> gone
//!   host asks:  Request out, Response in  --/
//! ```
//!
//! While open, each side may say that it will not send, or not receive, any more. A side that has
//! said both is answered with a reset once what it sent has been delivered.

#[cfg(test)]
mod tests;

use super::credit::Credit;
use super::packet::{HOST_CID, Header, Op, TYPE_STREAM, shutdown};

/// The two ports of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ports {
    /// On the host.
    pub host: u32,
    /// In the guest.
    pub guest: u32,
}

/// What a packet of the guest means for the stream on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Nothing.
    Nothing,
    /// The guest has accepted.
    Accepted,
    /// The packet's data is for the stream.
    Data,
    /// The guest will not send or receive any more: see [`Connection::guest_shut`].
    Shut,
    /// The guest has ended the connection.
    Gone,
}

/// A packet that ends its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breach {
    /// More data than there was credit for.
    Credit,
    /// Not what may come now.
    Protocol,
}

/// A connection.
#[derive(Debug, Clone)]
pub struct Connection {
    ports: Ports,
    credit: Credit,
    is_open: bool,
    owes_request: bool,
    owes_response: bool,
    owes_credit: bool,
    wants_credit: bool,
    asked_for_credit: bool,
    guest_shut: u32,
    host_shut: u32,
    host_shut_told: u32,
}

impl Connection {
    fn new(ports: Ports) -> Self {
        Self {
            ports,
            credit: Credit::default(),
            is_open: false,
            owes_request: false,
            owes_response: false,
            owes_credit: false,
            wants_credit: false,
            asked_for_credit: false,
            guest_shut: 0,
            host_shut: 0,
            host_shut_told: 0,
        }
    }

    /// A connection that the guest has asked for, with this packet, and the host accepts.
    pub fn accepted(ports: Ports, request: &Header) -> Self {
        let mut connection = Self::new(ports);
        connection.is_open = true;
        connection.owes_response = true;
        connection.credit.hear(request.buf_alloc, request.fwd_cnt);
        connection
    }

    /// A connection that the host asks for.
    pub fn asking(ports: Ports) -> Self {
        let mut connection = Self::new(ports);
        connection.owes_request = true;
        connection
    }

    /// Its ports.
    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// Whether both sides have agreed to it.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// A packet of the guest, whose data, if any, is complete.
    pub fn receive(&mut self, header: &Header, op: Op) -> Result<Arrival, Breach> {
        self.hear(header);
        if header.len != 0 && op != Op::Data {
            return Err(Breach::Protocol);
        }
        match op {
            Op::Reset => Ok(Arrival::Gone),
            Op::Response if !self.is_open && !self.owes_request => {
                self.is_open = true;
                Ok(Arrival::Accepted)
            }
            Op::Request | Op::Response => Err(Breach::Protocol),
            _ if !self.is_open => Err(Breach::Protocol),
            Op::Shutdown => {
                self.guest_shut |= header.flags & shutdown::BOTH;
                Ok(Arrival::Shut)
            }
            Op::Data if self.guest_shut & shutdown::SEND != 0 => Err(Breach::Protocol),
            Op::Data => match self.credit.receive(header.len) {
                Ok(()) => Ok(Arrival::Data),
                Err(_) => Err(Breach::Credit),
            },
            Op::CreditUpdate => Ok(Arrival::Nothing),
            Op::CreditRequest => {
                self.owes_credit = true;
                Ok(Arrival::Nothing)
            }
        }
    }

    fn hear(&mut self, header: &Header) {
        self.credit.hear(header.buf_alloc, header.fwd_cnt);
        if self.credit.room() > 0 {
            self.wants_credit = false;
            self.asked_for_credit = false;
        }
    }

    /// What the guest has said that it will not do any more, as flags of [`shutdown`].
    pub fn guest_shut(&self) -> u32 {
        self.guest_shut
    }

    /// What the stream on the host will not do any more.
    pub fn host_shut(&self) -> u32 {
        self.host_shut
    }

    /// The stream on the host will not do this any more. Everything it has sent was handed over
    /// before it is said to send no more.
    pub fn shut_host(&mut self, flags: u32) {
        self.host_shut |= flags;
    }

    /// The stream on the host has taken so many bytes of the guest.
    pub fn forward(&mut self, bytes: u32) {
        self.credit.forward(bytes);
    }

    /// Bytes of the guest that the stream has not taken.
    pub fn held(&self) -> u32 {
        self.credit.held()
    }

    /// Whether the guest is done, and has been given what it sent: a reset is what it waits for.
    pub fn is_finished(&self) -> bool {
        self.guest_shut == shutdown::BOTH && self.held() == 0
    }

    /// Whether data of the stream could ever be sent now.
    fn may_send(&self) -> bool {
        self.is_open
            && self.guest_shut & shutdown::RECEIVE == 0
            && self.host_shut & shutdown::SEND == 0
    }

    /// Bytes of the stream that may be sent to the guest now.
    pub fn room(&self) -> u32 {
        if self.may_send() {
            self.credit.room()
        } else {
            0
        }
    }

    /// The stream has data, and there is no room for it: the guest is asked once to tell when there
    /// is.
    pub fn miss_room(&mut self) {
        self.wants_credit = self.may_send() && self.credit.room() == 0;
    }

    /// The packet without data that is owed to the guest, and its flags.
    fn owed(&self) -> Option<(Op, u32)> {
        let may_receive =
            self.guest_shut & shutdown::SEND == 0 && self.host_shut & shutdown::RECEIVE == 0;
        if self.owes_request {
            Some((Op::Request, 0))
        } else if self.owes_response {
            Some((Op::Response, 0))
        } else if !self.is_open {
            None
        } else if self.host_shut != self.host_shut_told {
            Some((Op::Shutdown, self.host_shut))
        } else if self.owes_credit || may_receive && self.credit.is_worth_telling() {
            Some((Op::CreditUpdate, 0))
        } else if self.wants_credit && !self.asked_for_credit {
            Some((Op::CreditRequest, 0))
        } else {
            None
        }
    }

    /// Whether a packet without data is owed to the guest.
    pub fn owes(&self) -> bool {
        self.owed().is_some()
    }

    /// The packet without data that is owed next, as sent.
    pub fn pay(&mut self, guest_cid: u64) -> Option<Header> {
        let (op, flags) = self.owed()?;
        match op {
            Op::Request => self.owes_request = false,
            Op::Response => self.owes_response = false,
            Op::Shutdown => self.host_shut_told = flags,
            Op::CreditRequest => self.asked_for_credit = true,
            _ => {}
        }
        Some(self.header(guest_cid, op, flags, 0))
    }

    /// Sends `len` bytes of the stream, no more than there is [room](Self::room) for.
    pub fn send(&mut self, guest_cid: u64, len: u32) -> Header {
        self.credit.send(len);
        self.header(guest_cid, Op::Data, 0, len)
    }

    fn header(&mut self, guest_cid: u64, op: Op, flags: u32, len: u32) -> Header {
        // Every packet tells the credit.
        self.owes_credit = false;
        let (buf_alloc, fwd_cnt) = self.credit.tell();
        Header {
            src_cid: HOST_CID,
            dst_cid: guest_cid,
            src_port: self.ports.host,
            dst_port: self.ports.guest,
            len,
            kind: TYPE_STREAM,
            raw_op: op as u16,
            flags,
            buf_alloc,
            fwd_cnt,
        }
    }
}

/// The reset that answers a packet which has no connection, or ends one.
pub fn reset(guest_cid: u64, host_cid: u64, ports: Ports) -> Header {
    Header {
        src_cid: host_cid,
        dst_cid: guest_cid,
        src_port: ports.host,
        dst_port: ports.guest,
        len: 0,
        kind: TYPE_STREAM,
        raw_op: Op::Reset as u16,
        flags: 0,
        buf_alloc: 0,
        fwd_cnt: 0,
    }
}
