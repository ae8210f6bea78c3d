//! A flow in the table: what is in no record of it yet, and how long it may be silent.

use super::key::Key;
use super::list::{Links, Members};
use super::records::{End, Flow};
use super::{Acquaintance, Passed, seconds};
use crate::nanos::Nanos;
use crate::net::packet::protocol::{TCP, UDP};
use crate::net::shaper::Direction;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// How long a flow may be silent depends on what it has become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Only one side has spoken, or the protocol has no connections.
    Short,
    /// Both have, over UDP.
    Talk,
    /// Both have, over TCP.
    Connection,
    /// TCP has closed it; the last packets may still come.
    Closing,
}

pub(super) const STAGES: [Stage; 4] =
    [Stage::Short, Stage::Talk, Stage::Connection, Stage::Closing];

impl Stage {
    /// For how long nothing may come.
    pub(super) const fn patience(self) -> Nanos {
        match self {
            Self::Short => seconds(60),
            // RFC 4787, REQ-5: "a value of 5 minutes or more is RECOMMENDED".
            Self::Talk => seconds(5 * 60),
            // RFC 5382, REQ-5: "MUST NOT be less than 2 hours 4 minutes".
            Self::Connection => seconds(124 * 60),
            Self::Closing => seconds(10),
        }
    }

    /// How much longer than others it may be silent until it is put out for another flow: whoever
    /// sends to the sliver from many addresses does not push out what it has to do with others.
    pub(super) const fn grace(self) -> Nanos {
        match self {
            Self::Short | Self::Closing => seconds(0),
            Self::Talk => seconds(30),
            Self::Connection => seconds(60),
        }
    }

    /// How a flow is over that was silent for so long.
    pub(super) const fn end(self) -> End {
        match self {
            Self::Closing => End::Closed,
            Self::Short | Self::Talk | Self::Connection => End::Idle,
        }
    }
}

/// What the flags of a packet of TCP say of its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// A new connection is asked for.
    Opens,
    /// It is agreed to.
    Agrees,
    /// Nothing of that kind, or it is not TCP.
    Other,
}

impl Sign {
    pub(super) fn of(key: &Key, tcp_flags: u8) -> Self {
        match tcp_flags & (SYN | ACK) {
            SYN if key.protocol() == TCP => Self::Opens,
            flags if flags == SYN | ACK && key.protocol() == TCP => Self::Agrees,
            _ => Self::Other,
        }
    }
}

const BOTH: u8 = 3;

const fn bit(direction: Direction) -> u8 {
    match direction {
        Direction::Out => 1,
        Direction::In => 2,
    }
}

/// A flow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) hash: u32,
    /// In the list of its stage, by its last packet.
    by_last: Links,
    /// In the list of those with packets that are in no record yet, by the first of these.
    by_first: Links,
    pub(super) first: Nanos,
    pub(super) last: Nanos,
    tx_packets: u64,
    tx_bytes: u64,
    rx_packets: u64,
    rx_bytes: u64,
    outside_port: Option<u16>,
    opened: Direction,
    pub(super) stage: Stage,
    /// Who has spoken and who has closed, a bit for each direction.
    spoken: u8,
    closed: u8,
}

impl Entry {
    pub(super) fn new(key: Key, hash: u32, opened: Direction) -> Self {
        Self {
            key,
            hash,
            by_last: Links::UNLINKED,
            by_first: Links::UNLINKED,
            first: Nanos::ZERO,
            last: Nanos::ZERO,
            tx_packets: 0,
            tx_bytes: 0,
            rx_packets: 0,
            rx_bytes: 0,
            outside_port: None,
            opened,
            stage: Stage::Short,
            spoken: 0,
            closed: 0,
        }
    }

    pub(super) fn has_unrecorded(&self) -> bool {
        self.tx_packets != 0 || self.rx_packets != 0
    }

    /// What who sends in this direction knows of the other side.
    pub(super) fn acquaintance(&self, direction: Direction) -> Acquaintance {
        let others = BOTH & !bit(direction);
        match self.spoken & others {
            0 => Acquaintance::Unanswered,
            _ => Acquaintance::Answered,
        }
    }

    /// What is not in a record yet becomes one.
    pub(super) fn take(&mut self, end: End) -> Flow {
        Flow {
            first: self.first,
            last: self.last,
            protocol: self.key.protocol(),
            inside: self.key.inside(),
            inside_port: self.key.inside_port(),
            outside_port: self.outside_port,
            remote: self.key.remote(),
            remote_port: self.key.remote_port(),
            opened: self.opened,
            tx_packets: std::mem::take(&mut self.tx_packets),
            tx_bytes: std::mem::take(&mut self.tx_bytes),
            rx_packets: std::mem::take(&mut self.rx_packets),
            rx_bytes: std::mem::take(&mut self.rx_bytes),
            end,
        }
    }

    /// Counts packets. Gives the stage in which the flow is from then on.
    pub(super) fn count(&mut self, direction: Direction, passed: &Passed, now: Nanos) -> Stage {
        if !self.has_unrecorded() {
            self.first = now;
        }
        self.last = now;
        self.outside_port = passed.outside_port.or(self.outside_port);
        let (packets, bytes) = match direction {
            Direction::Out => (&mut self.tx_packets, &mut self.tx_bytes),
            Direction::In => (&mut self.rx_packets, &mut self.rx_bytes),
        };
        *packets += u64::from(passed.packets);
        *bytes += passed.bytes;
        self.spoken |= bit(direction);
        match self.key.protocol() {
            TCP => {
                if passed.tcp_flags & RST != 0 {
                    self.closed = BOTH;
                } else if passed.tcp_flags & FIN != 0 {
                    self.closed |= bit(direction);
                }
                match (self.closed, self.spoken) {
                    (BOTH, _) => Stage::Closing,
                    (_, BOTH) => Stage::Connection,
                    _ => Stage::Short,
                }
            }
            UDP if self.spoken == BOTH => Stage::Talk,
            _ => Stage::Short,
        }
    }
}

/// Links by the time of the last packet.
pub(super) struct ByLast<'a>(pub(super) &'a mut [Entry]);

impl Members for ByLast<'_> {
    fn links(&mut self, member: u32) -> &mut Links {
        &mut self.0[member as usize].by_last
    }
}

/// Links by the time of the first packet that is in no record.
pub(super) struct ByFirst<'a>(pub(super) &'a mut [Entry]);

impl Members for ByFirst<'_> {
    fn links(&mut self, member: u32) -> &mut Links {
        &mut self.0[member as usize].by_first
    }
}
