//! What is told of flows: records that wait until whoever takes them has stored them.

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::control::proto::LostFlows;
use crate::nanos::Nanos;
use crate::net::shaper::Direction;

/// Records kept of a burst stay allocated up to this.
const ALWAYS_ALLOCATED: usize = 64;

/// Why a record was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Nothing came for as long as its protocol allows.
    Idle,
    /// TCP closed it.
    Closed,
    /// It lasts: this is its last minute.
    Cut,
    /// Its place in the table was needed.
    Evicted,
    /// The sliver has ended.
    Stopped,
}

/// A flow, or a minute of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// When its first packet passed.
    pub first: Nanos,
    /// When its last packet passed.
    pub last: Nanos,
    /// Number of its protocol.
    pub protocol: u8,
    /// The sliver's address.
    pub inside: IpAddr,
    /// The sliver's port; for ICMP the identifier.
    pub inside_port: u16,
    /// The port that the outside saw, if it was translated.
    pub outside_port: Option<u16>,
    /// The other's address.
    pub remote: IpAddr,
    /// The other's port.
    pub remote_port: u16,
    /// Who began it.
    pub opened: Direction,
    /// Packets that the sliver sent.
    pub tx_packets: u64,
    /// Bytes that the sliver sent.
    pub tx_bytes: u64,
    /// Packets that it was sent.
    pub rx_packets: u64,
    /// Bytes that it was sent.
    pub rx_bytes: u64,
    /// Why this was written.
    pub end: End,
}

/// Records, each with a number one higher than the one before, and at most so many.
#[derive(Debug)]
pub(super) struct Records {
    most: usize,
    waiting: VecDeque<Flow>,
    /// Number of the first that waits.
    first: u64,
    lost: LostFlows,
}

impl Records {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            waiting: VecDeque::new(),
            first: 0,
            lost: LostFlows::default(),
        }
    }

    /// Adds a record, or counts it as lost if there are too many.
    pub(super) fn add(&mut self, flow: Flow) {
        if self.waiting.len() < self.most {
            self.waiting.push_back(flow);
        } else {
            self.lost.flows += 1;
            self.lost.packets += flow.tx_packets + flow.rx_packets;
            self.lost.bytes += flow.tx_bytes + flow.rx_bytes;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether there is room for no more than `more`.
    pub(super) fn is_full_with(&self, more: usize) -> bool {
        self.waiting.len() + more >= self.most
    }

    pub(super) fn batch(&self, max: usize) -> (u64, Vec<Flow>) {
        (self.first, self.waiting.iter().take(max).copied().collect())
    }

    pub(super) fn acknowledge(&mut self, up_to: u64) {
        let stored = up_to.saturating_sub(self.first);
        let stored = usize::try_from(stored)
            .map_or(self.waiting.len(), |stored| stored.min(self.waiting.len()));
        self.waiting.drain(..stored);
        self.first += stored as u64;
        if self.waiting.is_empty() && self.waiting.capacity() > ALWAYS_ALLOCATED {
            self.waiting.shrink_to(ALWAYS_ALLOCATED);
        }
    }

    pub(super) fn lost(&self) -> LostFlows {
        self.lost
    }
}
