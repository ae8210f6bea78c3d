//! What somebody should know of a sliver's traffic: the last events, each with a number.
//!
//! The same thing again within a minute is counted, not told again: a guest cannot push out what
//! others have to know by repeating itself. What is counted after it was told is told when the minute
//! is over.

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
    /// The number of the last that was told.
    told: u64,
    /// What was seen again after it was told, without numbers yet.
    again: Vec<Event>,
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
        let mut event = Event {
            seq: 0,
            first: now,
            last: now,
            kind,
            detail: detail.to_owned(),
            count,
        };
        match same {
            Some(same) if same.seq > self.told => {
                same.count += count;
                same.last = now;
            }
            Some(same) => {
                event.first = same.first;
                self.see_again(event);
            }
            None => self.add(event),
        }
    }

    /// Counts what was told already. There are no more of these than events that are kept.
    fn see_again(&mut self, event: Event) {
        let same = { self.again.iter_mut() }
            .find(|same| (same.kind, &same.detail) == (event.kind, &event.detail));
        match same {
            Some(same) => {
                same.count += event.count;
                same.last = event.last;
            }
            None => self.again.push(event),
        }
    }

    fn add(&mut self, event: Event) {
        self.last += 1;
        if self.events.len() == KEPT {
            self.events.pop_front();
        }
        self.events.push_back(Event {
            seq: self.last,
            ..event
        });
    }

    /// Gives a number to what was seen again within a minute that is over at `now`.
    pub fn settle(&mut self, now: Nanos) {
        let over = |event: &mut Event| now - event.first >= SAME_FOR;
        let over: Vec<Event> = self.again.extract_if(.., over).collect();
        for event in over {
            // From here on it is the same for another minute.
            self.add(Event {
                first: now,
                ..event
            });
        }
    }

    /// The events after number `after`, and how many of those are no longer there. They have been
    /// told then.
    pub fn after(&mut self, after: u64) -> (impl Iterator<Item = &Event>, u64) {
        self.told = self.last;
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

    fn seen(log: &mut EventLog, after: u64) -> Vec<(u64, u64)> {
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
        assert_eq!(seen(&mut log, 0), [(1, 5), (2, 1), (3, 1)]);
        assert_eq!(seen(&mut log, 2), [(3, 1)]);
        assert_eq!(seen(&mut log, u64::MAX), []);
    }

    #[test]
    fn what_is_seen_again_after_it_was_told_is_told_when_the_minute_is_over() {
        let mut log = EventLog::default();
        log.note("drop", "bogon", 1, Nanos(0));
        assert_eq!(seen(&mut log, 0), [(1, 1)]);
        for second in 1..60 {
            log.note("drop", "bogon", 2, Nanos(second * SECOND));
            log.settle(Nanos(second * SECOND));
            assert_eq!(seen(&mut log, 1), []);
        }
        log.settle(Nanos(60 * SECOND));
        assert_eq!(seen(&mut log, 1), [(2, 118)]);
        // The next minute has begun.
        log.note("drop", "bogon", 1, Nanos(61 * SECOND));
        log.settle(Nanos(61 * SECOND));
        assert_eq!(seen(&mut log, 2), []);
        log.settle(Nanos::NEVER);
        assert_eq!(seen(&mut log, 2), [(3, 1)]);
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
