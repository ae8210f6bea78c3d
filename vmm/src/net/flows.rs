//! Who spoke with whom: a record for each flow of a sliver, and for each minute of one that lasts.
//!
//! Pure and bounded. Each packet and byte that was recorded is in the table, in a record that waits
//! to be taken, in one that was acknowledged, or counted as lost. Who asks [`FlowTable::is_full`]
//! before each packet, and then lets nothing pass, loses nothing.

mod entry;
mod index;
mod key;
mod list;
mod records;
#[cfg(test)]
mod tests;

use super::hash::Secrets;
use super::packet::Tuple;
use super::shaper::Direction;
use crate::control::proto::LostFlows;
use crate::nanos::Nanos;

use entry::{ByFirst, ByLast, Entry, STAGES, Sign, Stage};
use index::Index;
use key::Key;
use list::{List, NONE};
use records::Records;
pub use records::{End, Flow};

/// A flow that lasts is told this often.
const CUT_AFTER: Nanos = seconds(60);

/// Flows that one sweep ends or cuts at most: the sliver's packets wait for it.
const MOST_AT_ONCE: usize = 4096;

const fn seconds(seconds: u64) -> Nanos {
    Nanos::from_millis(1000 * seconds)
}

/// What is known of the flow that a packet belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acquaintance {
    /// It begins one.
    New,
    /// The other side has not said anything.
    Unanswered,
    /// The other side has.
    Answered,
}

/// The flow that a packet belongs to, looked up once for all that is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sought {
    key: Key,
    hash: u32,
    /// Where it was found, or [`NONE`]. It may have gone since.
    place: u32,
    direction: Direction,
    acquaintance: Acquaintance,
}

impl Sought {
    /// What was known of it.
    pub fn acquaintance(&self) -> Acquaintance {
        self.acquaintance
    }
}

/// What is written down of packets of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// The port that the outside sees, if it was translated.
    pub outside_port: Option<u16>,
    /// The flags of TCP, 0 for the rest.
    pub tcp_flags: u8,
    /// Frames on the wire.
    pub packets: u32,
    /// Bytes on the wire.
    pub bytes: u64,
}

/// The flows of a sliver.
#[derive(Debug)]
pub struct FlowTable {
    capacity: usize,
    secrets: Secrets,
    index: Index,
    entries: Vec<Entry>,
    free: Vec<u32>,
    stages: [List; STAGES.len()],
    unrecorded: List,
    records: Records,
}

impl FlowTable {
    /// A table for that many flows, at least one, and twice as many records. The seed is what makes
    /// it impossible to say which flows fall together: it must not be known to the sliver.
    pub fn new(capacity: usize, seed: u64) -> Self {
        let capacity = capacity.clamp(1, 1 << 30);
        Self {
            capacity,
            secrets: Secrets::new(seed),
            index: Index::new(),
            entries: Vec::new(),
            free: Vec::new(),
            stages: [List::EMPTY; STAGES.len()],
            unrecorded: List::EMPTY,
            records: Records::new(2 * capacity),
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

    /// Looks up the flow that a packet belongs to.
    #[inline(always)]
    pub fn seek(&self, tuple: &Tuple, direction: Direction) -> Sought {
        let key = Key::new(tuple, direction);
        let hash = key.hash(&self.secrets);
        let place = self.find(&key, hash);
        Sought {
            key,
            hash,
            place: place.unwrap_or(NONE),
            direction,
            acquaintance: place.map_or(Acquaintance::New, |place| {
                self.entries[place as usize].acquaintance(direction)
            }),
        }
    }

    fn find(&self, key: &Key, hash: u32) -> Option<u32> {
        self.index
            .find(hash, |place| self.entries[place as usize].key == *key)
    }

    /// Where a flow is now: where it was found, unless that has changed since.
    fn place_of(&self, sought: &Sought) -> Option<u32> {
        match self.entries.get(sought.place as usize) {
            Some(entry) if entry.key == sought.key => Some(sought.place),
            _ => self.find(&sought.key, sought.hash),
        }
    }

    /// Writes down packets of a flow.
    pub fn record(&mut self, sought: &Sought, passed: &Passed, now: Nanos) {
        if passed.packets == 0 {
            return;
        }
        let sign = Sign::of(&sought.key, passed.tcp_flags);
        let mut found = self.place_of(sought);
        if let Some(place) = found
            && sign == Sign::Opens
            && self.entries[place as usize].stage == Stage::Closing
        {
            self.remove(place, End::Closed);
            found = None;
        }
        let place = found.unwrap_or_else(|| {
            let opened = match (sought.direction, sign) {
                (Direction::Out, Sign::Agrees) => Direction::In,
                (Direction::In, Sign::Agrees) => Direction::Out,
                (direction, _) => direction,
            };
            self.add(Entry::new(sought.key, sought.hash, opened))
        });
        let entry = &mut self.entries[place as usize];
        let is_first = !entry.has_unrecorded();
        let stage = entry.count(sought.direction, passed, now);
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
        firsts.min_by_key(|place| {
            let entry = &self.entries[*place as usize];
            entry.last + entry.stage.grace()
        })
    }

    fn remove(&mut self, place: u32, end: End) {
        self.write(place, end);
        let Entry { hash, stage, .. } = self.entries[place as usize];
        self.stages[stage as usize].remove(&mut ByLast(&mut self.entries), place);
        self.index.remove(hash, place);
        self.entries[place as usize].key = Key::NOBODYS;
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
        self.records.add(flow);
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
                self.remove(place, stage.end());
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
                self.remove(place, stage.end());
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
        self.records.batch(max)
    }

    /// Forgets the records before this number: they are stored.
    pub fn acknowledge(&mut self, up_to: u64) {
        self.records.acknowledge(up_to);
    }

    /// Whether the next packet could be one that is never told of.
    pub fn is_full(&self) -> bool {
        self.records.is_full_with(self.unrecorded.len())
    }

    /// What there is no record of.
    pub fn lost(&self) -> LostFlows {
        self.records.lost()
    }
}
