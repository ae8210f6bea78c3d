//! The four registers of the control window, played by threads: a vCPU rests in `park`, whose
//! token makes a wake before a rest count, as `IDLE` does.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use super::clock;
use crate::vcpu;

/// The threads that ever rested or were started, with the vCPU that each plays. Several threads
/// may play vCPU 0, in tests: whoever was not started here. A wake of 0 wakes them all, and those
/// it was not for rest again.
static THREADS: Mutex<Vec<(usize, Thread)>> = Mutex::new(Vec::new());

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
    static LISTED: Cell<bool> = const { Cell::new(false) };
}

/// Status of a process that panicked, as Rust programs have it.
const PANICKED: i32 = 101;

pub(crate) fn idle(deadline_ns: Option<u64>) {
    if !LISTED.replace(true) {
        threads(|list| list.push((current(), thread::current())));
        // A wake from before the listing went to nobody: let the caller look again.
        return;
    }
    match deadline_ns {
        None => thread::park(),
        Some(deadline) => {
            let left = deadline.saturating_sub(clock::monotonic_ns());
            thread::park_timeout(Duration::from_nanos(left));
        }
    }
}

pub(crate) fn wake(index: usize) {
    threads(|list| {
        let mut known = false;
        for (_, thread) in list.iter().filter(|(played, _)| *played == index) {
            thread.unpark();
            known = true;
        }
        if !known && index != 0 {
            list.push((index, start(index)));
        }
    });
}

pub(crate) fn yield_now() {
    thread::yield_now();
}

pub(crate) fn exit(status: u8) -> ! {
    std::process::exit(status.into())
}

/// Ends the sliver after a panic whose message is out.
pub(super) fn panicked() -> ! {
    std::process::exit(PANICKED)
}

/// Index of the vCPU that the calling thread plays.
pub(super) fn current() -> usize {
    CURRENT.get()
}

fn start(index: usize) -> Thread {
    let play = move || {
        CURRENT.set(index);
        LISTED.set(true);
        // A panic of one vCPU ends the sliver; the message is out already.
        if catch_unwind(AssertUnwindSafe(|| vcpu::work())).is_err() {
            panicked();
        }
    };
    let handle = thread::Builder::new()
        .name(format!("vcpu{index}"))
        .spawn(play)
        .unwrap_or_else(|error| panic!("cannot start a thread for vCPU {index}: {error}"));
    handle.thread().clone()
}

fn threads(change: impl FnOnce(&mut Vec<(usize, Thread)>)) {
    change(&mut THREADS.lock().unwrap_or_else(PoisonError::into_inner));
}
