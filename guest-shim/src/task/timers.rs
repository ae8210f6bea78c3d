//! Deadlines and who waits for them, ordered. Pure: the time is an argument.

use alloc::collections::BTreeMap;
use core::task::Waker;

use crate::time::Instant;

/// Names one timer. Of two with the same deadline the older comes first.
pub(super) type TimerId = (Instant, u64);

/// All timers that nobody has given up and that have not fired.
#[derive(Debug)]
pub(super) struct Timers {
    waiting: BTreeMap<TimerId, Waker>,
    next: u64,
}

impl Timers {
    /// None.
    pub(super) const fn new() -> Self {
        Self {
            waiting: BTreeMap::new(),
            next: 0,
        }
    }

    /// Adds one.
    pub(super) fn add(&mut self, deadline: Instant, waker: Waker) -> TimerId {
        let id = (deadline, self.next);
        self.next += 1;
        self.waiting.insert(id, waker);
        id
    }

    /// Changes who is woken by one. Whether it is still to fire.
    pub(super) fn renew(&mut self, id: TimerId, waker: &Waker) -> bool {
        match self.waiting.get_mut(&id) {
            Some(known) => {
                known.clone_from(waker);
                true
            }
            None => false,
        }
    }

    /// Gives one up. Whom it would have woken is for the caller to drop, who holds no lock then.
    pub(super) fn remove(&mut self, id: TimerId) -> Option<Waker> {
        self.waiting.remove(&id)
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(id, _)| id.0)
    }

    /// Takes out the earliest timer if it is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Waker> {
        let first = self.waiting.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}
