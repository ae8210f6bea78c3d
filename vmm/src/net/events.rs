//! What somebody should know of a sliver's traffic: the last events, each with a number.
//!
//! The same thing again within a minute is counted, not told again: a guest cannot push out what
//! others have to know by repeating itself.

use std::collections::VecDeque;

use crate::nanos::Nanos;

/// Events that are kept.
const KEPT: usize = 256;

/// For how long the same thing is the same event.
const SAME_FOR: Nanos = Nanos::from_millis(60_000);

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number, from 1.
    pub seq: u64,
    /// When it was first seen, and last.
    pub first: Nanos,
    /// When it was last seen.
    pub last: Nanos,
    /// What it is.
    pub kind: &'static str,
    /// About what.
    pub detail: String,
    /// How often it was seen.
    pub count: u64,
}

/// The last events.
#[derive(Debug, Default)]
pub struct EventLog {
    events: VecDeque<Event>,
    last: u64,
}

impl EventLog {
    /// Notes that something was seen `count` times.
    pub fn note(&mut self, kind: &'static str, detail: &str, count: u64, now: Nanos) {
        let same = self
            .events
            .iter_mut()
            .rev()
            .take_while(|event| now - event.first < SAME_FOR)
            .find(|event| event.kind == kind && event.detail == detail);
        if let Some(event) = same {
            event.count += count;
            event.last = now;
            return;
        }
        self.last += 1;
        if self.events.len() == KEPT {
            self.events.pop_front();
        }
        self.events.push_back(Event {
            seq: self.last,
            first: now,
            last: now,
            kind,
            detail: detail.to_owned(),
            count,
        });
    }

    /// The events after number `after`, and how many of those are no longer there.
    pub fn after(&self, after: u64) -> (impl Iterator<Item = &Event>, u64) {
        let oldest = self.last - self.events.len() as u64 + 1;
        let lost = oldest.saturating_sub(after.saturating_add(1));
        let known = after.saturating_add(1).saturating_sub(oldest) as usize;
        (self.events.iter().skip(known), lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn seen(log: &EventLog, after: u64) -> Vec<(u64, u64)> {
        let (events, _) = log.after(after);
        events.map(|event| (event.seq, event.count)).collect()
    }

    #[test]
    fn the_same_within_a_minute_is_counted() {
        let mut log = EventLog::default();
        log.note("drop", "port_zero", 1, Nanos(0));
        log.note("drop", "bogon", 1, Nanos(SECOND));
        log.note("drop", "port_zero", 4, Nanos(59 * SECOND));
        log.note("drop", "port_zero", 1, Nanos(61 * SECOND));
        assert_eq!(seen(&log, 0), [(1, 5), (2, 1), (3, 1)]);
        assert_eq!(seen(&log, 2), [(3, 1)]);
        assert_eq!(seen(&log, u64::MAX), []);
    }

    #[test]
    fn what_is_no_longer_there_is_counted() {
        let mut log = EventLog::default();
        for index in 0..KEPT as u64 + 10 {
            log.note("long_probe", &index.to_string(), 1, Nanos(0));
        }
        let (events, lost) = log.after(3);
        assert_eq!((events.count(), lost), (KEPT, 7));
        assert_eq!(log.after(KEPT as u64 + 9).0.count(), 1);
    }
}
