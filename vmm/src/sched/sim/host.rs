//! The host's own scheduler, as far as it matters: threads that may run share the processors
//! fairly in slices of 3 ms, and one that has slept gets a processor soon.

use std::collections::BTreeSet;

use crate::nanos::Nanos;

/// Time for which a thread runs if another waits.
const SLICE: Nanos = Nanos::from_millis(3);
/// Who is ahead of a thread that comes by more than this gives its processor to it.
const WAKEUP_GRANULARITY: Nanos = Nanos::from_millis(1);

/// A thread's number.
pub(super) type Thread = usize;

/// Threads on processors, and those that wait for one.
#[derive(Debug)]
pub(super) struct Host {
    processors: Vec<Processor>,
    threads: Vec<Account>,
    /// Those that wait, by what they have used.
    queue: BTreeSet<(Nanos, Thread)>,
    /// What the last to be chosen had used.
    floor: Nanos,
}

#[derive(Debug, Clone, Copy, Default)]
struct Processor {
    running: Option<Thread>,
    since: Nanos,
    /// Tells a thread's turn from others.
    turn: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Account {
    used: Nanos,
    processor: Option<usize>,
    waits: bool,
}

/// A thread begins to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) thread: Thread,
    pub(super) processor: usize,
    /// The turn, for [`Host::is_turn`].
    pub(super) turn: u64,
}

/// A thread has run for so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ran {
    pub(super) thread: Thread,
    pub(super) span: Nanos,
}

impl Host {
    pub(super) fn new(processors: u32, threads: usize) -> Self {
        Self {
            processors: vec![Processor::default(); processors as usize],
            threads: vec![Account::default(); threads],
            queue: BTreeSet::new(),
            floor: Nanos::ZERO,
        }
    }

    /// The most that a thread runs before others are considered.
    pub(super) fn slice(&self) -> Nanos {
        SLICE
    }

    pub(super) fn idle(&self) -> u32 {
        let idle = |processor: &&Processor| processor.running.is_none();
        self.processors.iter().filter(idle).count() as u32
    }

    pub(super) fn is_running(&self, thread: Thread) -> bool {
        self.threads[thread].processor.is_some()
    }

    /// Whether it is still that thread's turn.
    pub(super) fn is_turn(&self, begun: Begun) -> bool {
        let processor = self.processors[begun.processor];
        processor.running == Some(begun.thread) && processor.turn == begun.turn
    }

    /// What a thread has run that has not been reported by [`charge`](Self::charge).
    pub(super) fn uncharged(&self, thread: Thread, now: Nanos) -> Nanos {
        match self.threads[thread].processor {
            Some(processor) => now - self.processors[processor].since,
            None => Nanos::ZERO,
        }
    }

    /// Charges a thread that runs.
    pub(super) fn charge(&mut self, thread: Thread, now: Nanos) -> Nanos {
        let span = self.uncharged(thread, now);
        if let Some(processor) = self.threads[thread].processor {
            self.processors[processor].since = now;
            self.threads[thread].used = self.threads[thread].used + span;
        }
        span
    }

    /// A thread wants a processor. Who lost its own for it, if somebody did, has been charged and
    /// waits.
    pub(super) fn add(&mut self, thread: Thread, now: Nanos) -> Option<Ran> {
        let account = &mut self.threads[thread];
        if account.waits || account.processor.is_some() {
            return None;
        }
        account.waits = true;
        account.used = account.used.max(self.floor - SLICE);
        let used = account.used;
        self.queue.insert((used, thread));
        if self.idle() > 0 {
            return None;
        }
        let running = self
            .processors
            .iter()
            .filter_map(|processor| processor.running);
        let victim = running
            .max_by_key(|running| self.threads[*running].used + self.uncharged(*running, now))?;
        let ahead = self.threads[victim].used + self.uncharged(victim, now);
        (used + WAKEUP_GRANULARITY < ahead).then(|| self.put_back(victim, now))
    }

    /// A thread's slice is over: it waits if another is to run before it.
    pub(super) fn yield_to_others(&mut self, thread: Thread, now: Nanos) -> Option<Ran> {
        let used = self.threads[thread].used + self.uncharged(thread, now);
        let (first, _) = self.queue.first()?;
        (*first < used).then(|| self.put_back(thread, now))
    }

    fn put_back(&mut self, thread: Thread, now: Nanos) -> Ran {
        let ran = self.remove(thread, now);
        let account = &mut self.threads[thread];
        account.waits = true;
        self.queue.insert((account.used, thread));
        ran
    }

    /// A thread no longer wants a processor.
    pub(super) fn remove(&mut self, thread: Thread, now: Nanos) -> Ran {
        let span = self.charge(thread, now);
        let account = &mut self.threads[thread];
        if std::mem::take(&mut account.waits) {
            self.queue.remove(&(account.used, thread));
        }
        if let Some(processor) = account.processor.take() {
            self.processors[processor].running = None;
        }
        Ran { thread, span }
    }

    /// Gives a free processor to whoever has used least of those who wait.
    pub(super) fn begin(&mut self, now: Nanos) -> Option<Begun> {
        let free = self
            .processors
            .iter()
            .position(|processor| processor.running.is_none())?;
        let (used, thread) = self.queue.pop_first()?;
        self.floor = self.floor.max(used);
        let account = &mut self.threads[thread];
        account.waits = false;
        account.processor = Some(free);
        let processor = &mut self.processors[free];
        processor.running = Some(thread);
        processor.since = now;
        processor.turn += 1;
        Some(Begun {
            thread,
            processor: free,
            turn: processor.turn,
        })
    }
}
