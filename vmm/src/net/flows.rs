//! Who spoke with whom: a record for each flow of a sliver, and for each minute of one that lasts.
//!
//! Pure and bounded. Each packet and byte that was recorded is in the table, in a record that waits
//! to be taken, in one that was acknowledged, or counted as lost. Who asks [`FlowTable::is_full`]
//! before each packet, and then lets nothing pass, loses nothing.

mod index;
mod key;
mod list;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::IpAddr;

use super::packet::Tuple;
use super::shaper::Direction;
use crate::control::proto::LostFlows;
use crate::nanos::Nanos;

use index::Index;
use key::Key;
use list::{Links, List, Members};

/// A flow that lasts is told this often.
const CUT_AFTER: Nanos = seconds(60);

/// Flows that one sweep ends or cuts at most: the sliver's packets wait for it.
const MOST_AT_ONCE: usize = 4096;

/// Records kept of a burst stay allocated up to this.
const ALWAYS_ALLOCATED: usize = 64;

const TCP: u8 = 6;
const UDP: u8 = 17;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

const fn seconds(seconds: u64) -> Nanos {
    Nanos::from_millis(1000 * seconds)
}

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

/// How long a flow may be silent depends on what it has become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Only one side has spoken, or the protocol has no connections.
    Short,
    /// Both have, over UDP.
    Talk,
    /// Both have, over TCP.
    Connection,
    /// TCP has closed it; the last packets may still come.
    Closing,
}

const STAGES: [Stage; 4] = [Stage::Short, Stage::Talk, Stage::Connection, Stage::Closing];

impl Stage {
    /// For how long nothing may come.
    const fn patience(self) -> Nanos {
        match self {
            Self::Short => seconds(60),
            // RFC 4787, REQ-5: "a value of 5 minutes or more is RECOMMENDED".
            Self::Talk => seconds(5 * 60),
            // RFC 5382, REQ-5: "MUST NOT be less than 2 hours 4 minutes".
            Self::Connection => seconds(124 * 60),
            Self::Closing => seconds(10),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: Key,
    hash: u32,
    /// In the list of its stage, by its last packet.
    by_last: Links,
    /// In the list of those with packets that are in no record yet, by the first of these.
    by_first: Links,
    first: Nanos,
    last: Nanos,
    tx_packets: u64,
    tx_bytes: u64,
    rx_packets: u64,
    rx_bytes: u64,
    outside_port: Option<u16>,
    opened: Direction,
    stage: Stage,
    /// Who has spoken and who has closed, a bit for each direction.
    spoken: u8,
    closed: u8,
}

const BOTH: u8 = 3;

const fn bit(direction: Direction) -> u8 {
    match direction {
        Direction::Out => 1,
        Direction::In => 2,
    }
}

impl Entry {
    fn new(key: Key, hash: u32, opened: Direction) -> Self {
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

    fn has_unrecorded(&self) -> bool {
        self.tx_packets != 0 || self.rx_packets != 0
    }

    /// What is not in a record yet becomes one.
    fn take(&mut self, end: End) -> Flow {
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

    fn count(&mut self, direction: Direction, packets: u32, bytes: u64) {
        let (packet_count, byte_count) = match direction {
            Direction::Out => (&mut self.tx_packets, &mut self.tx_bytes),
            Direction::In => (&mut self.rx_packets, &mut self.rx_bytes),
        };
        *packet_count += u64::from(packets);
        *byte_count += bytes;
        self.spoken |= bit(direction);
    }

    fn stage_after(&mut self, direction: Direction, tcp_flags: u8) -> Stage {
        match self.key.protocol() {
            TCP => {
                if tcp_flags & RST != 0 {
                    self.closed = BOTH;
                } else if tcp_flags & FIN != 0 {
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
struct ByLast<'a>(&'a mut [Entry]);

impl Members for ByLast<'_> {
    fn links(&mut self, member: u32) -> &mut Links {
        &mut self.0[member as usize].by_last
    }
}

/// Links by the time of the first packet that is in no record.
struct ByFirst<'a>(&'a mut [Entry]);

impl Members for ByFirst<'_> {
    fn links(&mut self, member: u32) -> &mut Links {
        &mut self.0[member as usize].by_first
    }
}

/// The flows of a sliver.
#[derive(Debug)]
pub struct FlowTable {
    capacity: usize,
    seed: u64,
    index: Index,
    entries: Vec<Entry>,
    free: Vec<u32>,
    stages: [List; STAGES.len()],
    unrecorded: List,
    records: VecDeque<Flow>,
    /// Number of the first record.
    first: u64,
    lost: LostFlows,
}

impl FlowTable {
    /// A table for that many flows, at least one, and twice as many records. The seed is what makes
    /// it impossible to say which flows fall together: it must not be known to the sliver.
    pub fn new(capacity: usize, seed: u64) -> Self {
        Self {
            capacity: capacity.clamp(1, 1 << 30),
            seed,
            index: Index::new(),
            entries: Vec::new(),
            free: Vec::new(),
            stages: [List::EMPTY; STAGES.len()],
            unrecorded: List::EMPTY,
            records: VecDeque::new(),
            first: 0,
            lost: LostFlows::default(),
        }
    }

    /// Flows in the table.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a packet belongs to a flow in the table.
    pub fn knows(&self, tuple: &Tuple, direction: Direction) -> bool {
        let key = Key::new(tuple, direction);
        self.find(&key, key.hash(self.seed)).is_some()
    }

    fn find(&self, key: &Key, hash: u32) -> Option<u32> {
        self.index
            .find(hash, |place| self.entries[place as usize].key == *key)
    }

    /// Writes down packets of a flow. `tcp_flags` are those of the TCP header, 0 for the rest.
    #[allow(
        clippy::too_many_arguments,
        reason = "each is a fact of the packet, and is in no other structure"
    )]
    pub fn record(
        &mut self,
        direction: Direction,
        tuple: &Tuple,
        outside_port: Option<u16>,
        tcp_flags: u8,
        packets: u32,
        bytes: u64,
        now: Nanos,
    ) {
        if packets == 0 {
            return;
        }
        let key = Key::new(tuple, direction);
        let hash = key.hash(self.seed);
        let mut found = self.find(&key, hash);
        let is_new_connection = key.protocol() == TCP && tcp_flags & (SYN | ACK) == SYN;
        if let Some(place) = found
            && is_new_connection
            && self.entries[place as usize].stage == Stage::Closing
        {
            self.remove(place, End::Closed);
            found = None;
        }
        let place = found.unwrap_or_else(|| {
            let is_answer = key.protocol() == TCP && tcp_flags & (SYN | ACK) == SYN | ACK;
            let opened = match (direction, is_answer) {
                (Direction::Out, false) | (Direction::In, true) => Direction::Out,
                (Direction::In, false) | (Direction::Out, true) => Direction::In,
            };
            self.add(Entry::new(key, hash, opened))
        });
        let entry = &mut self.entries[place as usize];
        let is_first = !entry.has_unrecorded();
        if is_first {
            entry.first = now;
        }
        entry.last = now;
        entry.outside_port = outside_port.or(entry.outside_port);
        entry.count(direction, packets, bytes);
        let stage = entry.stage_after(direction, tcp_flags);
        if is_first {
            self.unrecorded
                .append(&mut ByFirst(&mut self.entries), place);
        }
        self.touch(place, stage);
    }

    /// Makes a flow the last of a stage.
    fn touch(&mut self, place: u32, stage: Stage) {
        let old = std::mem::replace(&mut self.entries[place as usize].stage, stage);
        if old == stage && self.stages[stage as usize].is_last(place) {
            return;
        }
        let mut members = ByLast(&mut self.entries);
        self.stages[old as usize].remove(&mut members, place);
        self.stages[stage as usize].append(&mut members, place);
    }

    /// Puts a flow into the table, in the place of the one that was silent for longest if need be.
    fn add(&mut self, entry: Entry) -> u32 {
        if self.len() == self.capacity
            && let Some(place) = self.most_silent()
        {
            self.remove(place, End::Evicted);
        }
        let place = match self.free.pop() {
            Some(place) => {
                self.entries[place as usize] = entry;
                place
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        self.index.insert(entry.hash, place);
        self.stages[entry.stage as usize].append(&mut ByLast(&mut self.entries), place);
        place
    }

    fn most_silent(&self) -> Option<u32> {
        let firsts = self.stages.iter().filter_map(List::first);
        firsts.min_by_key(|place| self.entries[*place as usize].last)
    }

    fn remove(&mut self, place: u32, end: End) {
        self.write(place, end);
        let Entry { hash, stage, .. } = self.entries[place as usize];
        self.stages[stage as usize].remove(&mut ByLast(&mut self.entries), place);
        self.index.remove(hash, place);
        self.free.push(place);
    }

    /// Writes a record of what is in none yet, if there is anything.
    fn write(&mut self, place: u32, end: End) {
        let entry = &mut self.entries[place as usize];
        if !entry.has_unrecorded() {
            return;
        }
        let flow = entry.take(end);
        self.unrecorded
            .remove(&mut ByFirst(&mut self.entries), place);
        if self.records.len() < self.most_records() {
            self.records.push_back(flow);
        } else {
            self.lost.flows += 1;
            self.lost.packets += flow.tx_packets + flow.rx_packets;
            self.lost.bytes += flow.tx_bytes + flow.rx_bytes;
        }
    }

    fn most_records(&self) -> usize {
        2 * self.capacity
    }

    /// Ends what was silent for too long, and tells of what lasts. To be called about once a second.
    pub fn sweep(&mut self, now: Nanos) {
        let mut left = MOST_AT_ONCE;
        while let Some(place) = self.unrecorded.first()
            && left > 0
            && now - self.entries[place as usize].first >= CUT_AFTER
        {
            // What is over is told as that, not as cut.
            let Entry { stage, last, .. } = self.entries[place as usize];
            if now - last >= stage.patience() {
                self.remove(place, end_of(stage));
            } else {
                self.write(place, End::Cut);
            }
            left -= 1;
        }
        for stage in STAGES {
            while let Some(place) = self.stages[stage as usize].first()
                && left > 0
                && now - self.entries[place as usize].last >= stage.patience()
            {
                self.remove(place, end_of(stage));
                left -= 1;
            }
        }
    }

    /// Ends all flows: the sliver has ended.
    pub fn stop(&mut self) {
        for stage in STAGES {
            while let Some(place) = self.stages[stage as usize].first() {
                let closed = stage == Stage::Closing;
                self.remove(place, if closed { End::Closed } else { End::Stopped });
            }
        }
    }

    /// Records that are not acknowledged.
    pub fn ended(&self) -> usize {
        self.records.len()
    }

    /// The number of the first record that is not acknowledged, and at most `max` records from it
    /// on; each has the next number.
    pub fn batch(&self, max: usize) -> (u64, Vec<Flow>) {
        (self.first, self.records.iter().take(max).copied().collect())
    }

    /// Forgets the records before this number: they are stored.
    pub fn acknowledge(&mut self, up_to: u64) {
        let stored = up_to.saturating_sub(self.first);
        let stored = usize::try_from(stored)
            .map_or(self.records.len(), |stored| stored.min(self.records.len()));
        self.records.drain(..stored);
        self.first += stored as u64;
        if self.records.is_empty() && self.records.capacity() > ALWAYS_ALLOCATED {
            self.records.shrink_to(ALWAYS_ALLOCATED);
        }
    }

    /// Whether the next packet could be one that is never told of.
    pub fn is_full(&self) -> bool {
        self.records.len() + self.unrecorded.len() >= self.most_records()
    }

    /// What there is no record of.
    pub fn lost(&self) -> LostFlows {
        self.lost
    }
}

fn end_of(stage: Stage) -> End {
    match stage {
        Stage::Closing => End::Closed,
        Stage::Short | Stage::Talk | Stage::Connection => End::Idle,
    }
}
