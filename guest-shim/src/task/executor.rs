//! The executor of a slice: tasks, timers and drivers, on the vCPUs that are inside
//! [`block_on`](Executor::block_on).
//!
//! # A turn
//!
//! A vCPU inside does turn after turn: it polls every driver ([`Poller`]), fires the timers that are
//! due, polls its own future if that was woken, and runs the tasks that were ready when it began,
//! at most [`BATCH`]. When a whole turn found nothing to run, the vCPU rests until the earliest
//! deadline of timers and drivers. So drivers have always been polled after the last task ran and
//! before a rest, and what tasks gave them is published by then.
//!
//! # Doorbells
//!
//! Resting is a doorbell for every queue of every device, so a driver that publishes in its `poll`
//! need not ring. Only a vCPU that goes on computing has the owed doorbells rung
//! ([`Poller::ring`]): after [`BUSY_TURNS`] turns or [`BUSY_TIME`] without a rest, and when it leaves.
//!
//! # Wakes
//!
//! A rest ends early for a device, or when another vCPU wakes the one that rests; either counts
//! also if it came since the last rest. A vCPU notes that it is about to rest and then looks at
//! the ready tasks once more; who makes a task ready does so first and then looks for who rests.
//! Whatever the order, one sees the other. A task made ready from inside is left to the vCPU that
//! did it: it looks again before it rests, and no wake, which leaves the guest, is spent on it.
//! Others that rest are called in only when a batch leaves a whole batch behind.

#[cfg(test)]
mod tests;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use async_task::Runnable;
use slice_abi::layout::MAX_VCPUS;

use super::timers::{TimerId, Timers};
use crate::sync::Mutex;
use crate::time::Instant;

/// The most tasks that run in one turn.
const BATCH: usize = 32;

/// Turns without a rest after which owed doorbells are rung.
const BUSY_TURNS: u32 = 8;

/// Time without a rest after which owed doorbells are rung, if turns are long.
const BUSY_TIME: Duration = Duration::from_micros(200);

const _: () = assert!(MAX_VCPUS <= u32::BITS as usize);

/// Something that must be looked at on every turn of the executor: a driver.
///
/// Several vCPUs may call the same poller at once. None of the three may rest or print: a rest
/// consumes wake-ups that other drivers have yet to see.
pub(crate) trait Poller: Sync {
    /// Looks at its rings, moves what can be moved and wakes tasks; publishes new chains to the
    /// device without ringing. If the device may move a ring later, it is left with notifications
    /// unsuppressed, or else a rest would not end for it.
    fn poll(&self);

    /// When it wants to be polled at the latest, if nothing else happens.
    fn deadline(&self) -> Option<Instant>;

    /// Rings the doorbells that are owed, because the vCPU goes on computing. Before a rest this is
    /// not called: the rest is a doorbell for every queue, so whatever was published earlier is not
    /// owed any more when `poll` is next called after one. A driver that cannot tell rings once too
    /// often, which costs time and nothing else.
    fn ring(&self);
}

/// How vCPUs rest, and what time it is.
pub(crate) trait Rest: Sync + 'static {
    /// The vCPU that asks, below [`MAX_VCPUS`].
    fn me(&self) -> usize;

    /// Now.
    fn now(&self) -> Instant;

    /// Rests until `deadline`, a wake or a device; or returns early. Wakes and devices since the
    /// last return count.
    fn rest(&self, deadline: Option<Instant>);

    /// Ends the present or next rest of a vCPU.
    fn wake(&self, vcpu: usize);
}

/// Tasks, timers and drivers, and who serves them.
pub(crate) struct Executor<R> {
    rest: R,
    ready: Mutex<VecDeque<Runnable>>,
    timers: Mutex<Timers>,
    pollers: Mutex<Vec<&'static dyn Poller>>,
    /// vCPUs inside `block_on`, a bit each.
    inside: AtomicU32,
    /// Those of them that rest or are about to.
    resting: AtomicU32,
}

impl<R: Rest> Executor<R> {
    /// Without tasks.
    pub(crate) const fn new(rest: R) -> Self {
        Self {
            rest,
            ready: Mutex::new(VecDeque::new()),
            timers: Mutex::new(Timers::new()),
            pollers: Mutex::new(Vec::new()),
            inside: AtomicU32::new(0),
            resting: AtomicU32::new(0),
        }
    }

    /// Has `poller` polled from now on.
    pub(crate) fn register(&self, poller: &'static dyn Poller) {
        self.pollers.lock().push(poller);
        // One that rests knows nothing of its rings.
        self.attend();
    }

    /// Has what was given to a driver or made ready attended to: by this vCPU if it is inside, as
    /// it looks again before it rests, else by one that rests.
    pub(crate) fn attend(&self) {
        if !self.is_inside() {
            self.call_in();
        }
    }

    /// Makes `future` a task.
    pub(crate) fn spawn<F>(&'static self, future: F) -> async_task::Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (runnable, task) = async_task::spawn(future, |runnable| self.schedule(runnable));
        runnable.schedule();
        task
    }

    /// A future that waits for `deadline`.
    pub(crate) fn timer(&'static self, deadline: Instant) -> Timer<R> {
        Timer {
            executor: self,
            deadline,
            id: None,
        }
    }

    /// Runs `future` to its end, and whatever else is ready.
    pub(crate) fn block_on<F: Future>(&'static self, future: F) -> F::Output {
        // Left after the future is dropped, which may give drivers something to do.
        let _stay = self.enter();
        let mut future = pin!(future);
        let main = Arc::new(Main {
            executor: self,
            vcpu: self.rest.me(),
            ready: AtomicBool::new(true),
        });
        let waker = Waker::from(Arc::clone(&main));
        let mut context = Context::from_waker(&waker);
        let mut busy = Busy::since(self.rest.now());
        loop {
            self.poll_all();
            if busy.has_lasted(self.rest.now()) {
                self.ring_all();
                busy = Busy::since(self.rest.now());
            }
            self.fire_due();
            let mut idle = true;
            if main.ready.swap(false, Ordering::SeqCst) {
                if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                    return value;
                }
                idle = false;
            }
            if self.run_batch() > 0 {
                idle = false;
            }
            if idle {
                self.rest(&main);
                busy = Busy::since(self.rest.now());
            }
        }
    }

    fn schedule(&self, runnable: Runnable) {
        self.ready.lock().push_back(runnable);
        self.attend();
    }

    /// Runs what is ready now, but nothing twice and not what becomes ready meanwhile. How many ran.
    fn run_batch(&self) -> usize {
        let batch = self.ready.lock().len().min(BATCH);
        for ran in 0..batch {
            // Another vCPU may have taken the rest of them.
            let Some(runnable) = self.pop() else {
                return ran;
            };
            runnable.run();
        }
        if batch == BATCH && self.ready.lock().len() >= BATCH {
            self.call_in();
        }
        batch
    }

    fn pop(&self) -> Option<Runnable> {
        self.ready.lock().pop_front()
    }

    fn fire_due(&self) {
        if self.timers.lock().next().is_none() {
            return;
        }
        let now = self.rest.now();
        while let Some(waker) = self.pop_due(now) {
            waker.wake();
        }
    }

    fn pop_due(&self, now: Instant) -> Option<Waker> {
        self.timers.lock().pop_due(now)
    }

    fn rest(&self, main: &Main<R>) {
        let me = 1 << main.vcpu;
        self.resting.fetch_or(me, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if !main.ready.load(Ordering::SeqCst) && self.ready.lock().is_empty() {
            let deadline = self.deadline();
            if deadline.is_none_or(|deadline| deadline > self.rest.now()) {
                self.rest.rest(deadline);
            }
        }
        self.resting.fetch_and(!me, Ordering::SeqCst);
    }

    fn deadline(&self) -> Option<Instant> {
        let pollers = self.pollers().filter_map(Poller::deadline);
        pollers.chain(self.timers.lock().next()).min()
    }

    fn poll_all(&self) {
        self.pollers().for_each(Poller::poll);
    }

    fn ring_all(&self) {
        self.pollers().for_each(Poller::ring);
    }

    /// All pollers, the lock free while one is in use.
    fn pollers(&self) -> impl Iterator<Item = &'static dyn Poller> {
        (0..).map_while(|index| self.pollers.lock().get(index).copied())
    }

    /// Ends the rest of one vCPU, if one rests.
    fn call_in(&self) {
        fence(Ordering::SeqCst);
        loop {
            let resting = self.resting.load(Ordering::SeqCst);
            if resting == 0 {
                return;
            }
            if self.wake_if_resting(resting.trailing_zeros() as usize) {
                return;
            }
        }
    }

    /// Ends the rest of this vCPU, unless it does not rest or somebody has just ended it.
    fn wake_if_resting(&self, vcpu: usize) -> bool {
        let bit = 1 << vcpu;
        let rests = self.resting.fetch_and(!bit, Ordering::SeqCst) & bit != 0;
        if rests {
            self.rest.wake(vcpu);
        }
        rests
    }

    fn is_inside(&self) -> bool {
        self.inside.load(Ordering::Relaxed) & 1 << self.rest.me() != 0
    }

    fn enter(&'static self) -> Stay<R> {
        let me = 1 << self.rest.me();
        let was_inside = self.inside.fetch_or(me, Ordering::Relaxed) & me != 0;
        Stay {
            executor: self,
            outermost: !was_inside,
        }
    }
}

/// A vCPU's time inside, until it is dropped.
struct Stay<R: Rest> {
    executor: &'static Executor<R>,
    outermost: bool,
}

impl<R: Rest> Drop for Stay<R> {
    fn drop(&mut self) {
        let executor = self.executor;
        // What tasks have given to drivers is to leave, also if nobody is inside for long.
        executor.poll_all();
        executor.ring_all();
        if self.outermost {
            let me = 1 << executor.rest.me();
            executor.inside.fetch_and(!me, Ordering::SeqCst);
            // Tasks and timers that were left to this vCPU are now another's.
            executor.call_in();
        }
    }
}

/// How long a vCPU has not rested.
struct Busy {
    since: Instant,
    turns: u32,
}

impl Busy {
    fn since(since: Instant) -> Self {
        Self { since, turns: 0 }
    }

    /// Counts a turn; whether it was the last one that doorbells could wait for.
    fn has_lasted(&mut self, now: Instant) -> bool {
        self.turns += 1;
        self.turns > BUSY_TURNS || now - self.since >= BUSY_TIME
    }
}

/// The future that a `block_on` was called with; only its own vCPU can poll it.
struct Main<R: 'static> {
    executor: &'static Executor<R>,
    vcpu: usize,
    ready: AtomicBool,
}

impl<R: Rest> Wake for Main<R> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.ready.swap(true, Ordering::SeqCst) && self.executor.rest.me() != self.vcpu {
            self.executor.wake_if_resting(self.vcpu);
        }
    }
}

/// Waits for a moment.
pub(crate) struct Timer<R: Rest> {
    executor: &'static Executor<R>,
    deadline: Instant,
    id: Option<TimerId>,
}

impl<R: Rest> Future for Timer<R> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let executor = self.executor;
        if self.deadline <= executor.rest.now() {
            return Poll::Ready(());
        }
        let waker = context.waker();
        if let Some(id) = self.id {
            // One that fired is over, even if this vCPU's clock is a little behind.
            return match executor.timers.lock().renew(id, waker) {
                true => Poll::Pending,
                false => Poll::Ready(()),
            };
        }
        let mut timers = executor.timers.lock();
        let id = timers.add(self.deadline, waker.clone());
        let is_first = timers.next() == Some(self.deadline);
        drop(timers);
        self.id = Some(id);
        if is_first && !executor.is_inside() {
            executor.call_in();
        }
        Poll::Pending
    }
}

impl<R: Rest> Drop for Timer<R> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let waker = self.executor.timers.lock().remove(id);
            drop(waker);
        }
    }
}
