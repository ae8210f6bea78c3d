//! Exact processor time of other processes, at exact moments.
//!
//! The kernel brings the time of a thread up to date on the ticks of the processor it runs on and
//! when it stops running, but not for whoever reads it from another processor. So at each moment a
//! real-time thread takes over each processor, which makes the kernel account for what ran there;
//! while all of them are held nothing of the subject runs, and its clock is exact.

#[cfg(test)]
mod tests;

use std::hint::spin_loop;
use std::io;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result};
use integration::cpu_time::process_ns;
use integration::sliver::monotonic_ns;
use rustix::thread::{CpuSet, clock_nanosleep_absolute, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, Timespec};

use crate::policy::{Policy, set_policy};

/// Priority of the threads: above everything that is not the kernel's own.
const PRIORITY: i32 = 50;

/// From when all threads are ready to the first moment, in nanoseconds.
const LEAD_NS: u64 = 5_000_000;

/// What one process had used at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// CLOCK_MONOTONIC, in nanoseconds.
    pub(crate) at: u64,
    /// Processor time so far, in nanoseconds.
    pub(crate) used: u64,
}

/// Reads the clocks of `pids` at `count` moments, one every `every` nanoseconds from about now. All
/// readings of each process, in the order of `pids`.
pub(crate) fn sample(pids: &[u32], every: u64, count: usize) -> Result<Vec<Vec<Reading>>> {
    let allowed = sched_getaffinity(None)?;
    let processors: Vec<usize> = { 0..CpuSet::MAX_CPU }
        .filter(|&cpu| allowed.is_set(cpu))
        .collect();
    let meeting = Meeting {
        first: AtomicU64::new(0),
        every,
        count,
        members: processors.len(),
        seated: Barrier::new(processors.len()),
        broken: AtomicBool::new(false),
        arrived: AtomicUsize::new(0),
        done: AtomicUsize::new(0),
    };
    thread::scope(|scope| {
        let members: Vec<_> = { processors.iter().enumerate() }
            .map(|(index, &cpu)| {
                let (meeting, pids) = (&meeting, if index == 0 { pids } else { &[] });
                scope.spawn(move || meeting.attend(cpu, index == 0, pids))
            })
            .collect();
        let mut readings = Vec::new();
        for member in members {
            let read = member
                .join()
                .expect("a thread that samples does not panic")?;
            if !read.is_empty() {
                readings = read;
            }
        }
        Ok(readings)
    })
}

/// One thread of each processor, all there at each moment.
struct Meeting {
    first: AtomicU64,
    every: u64,
    count: usize,
    members: usize,
    /// Everybody is on its processor, or has failed to be.
    seated: Barrier,
    broken: AtomicBool,
    /// Arrivals so far, at all moments together.
    arrived: AtomicUsize,
    /// Moments that are over.
    done: AtomicUsize,
}

impl Meeting {
    /// Takes `cpu` over at each moment; whoever leads reads.
    fn attend(&self, cpu: usize, leads: bool, pids: &[u32]) -> Result<Vec<Vec<Reading>>> {
        let seat = take_seat(cpu).with_context(|| format!("real-time on processor {cpu}"));
        self.broken.fetch_or(seat.is_err(), Ordering::SeqCst);
        self.seated.wait();
        // Everybody sees the same here, so that nobody waits for one who is gone.
        if self.broken.load(Ordering::SeqCst) {
            return seat.map(|()| Vec::new());
        }
        if leads {
            let first = monotonic_ns() + LEAD_NS;
            self.first.store(first, Ordering::SeqCst);
        }
        self.seated.wait();
        let first = self.first.load(Ordering::SeqCst);
        let mut readings = vec![Vec::with_capacity(self.count); pids.len()];
        for index in 0..self.count {
            sleep_until(first + index as u64 * self.every);
            self.arrived.fetch_add(1, Ordering::SeqCst);
            if leads {
                let all = self.members * (index + 1);
                while self.arrived.load(Ordering::SeqCst) < all {
                    spin_loop();
                }
                let at = monotonic_ns();
                let read: Result<()> =
                    pids.iter()
                        .zip(&mut readings)
                        .try_for_each(|(&pid, of_it)| {
                            let used = process_ns(pid).with_context(|| format!("process {pid}"))?;
                            of_it.push(Reading { at, used });
                            Ok(())
                        });
                // After an error, too: the others wait for it.
                self.broken.fetch_or(read.is_err(), Ordering::SeqCst);
                self.done.store(index + 1, Ordering::SeqCst);
                read?;
            } else {
                while self.done.load(Ordering::SeqCst) <= index {
                    spin_loop();
                }
            }
            if self.broken.load(Ordering::SeqCst) {
                break;
            }
        }
        Ok(readings)
    }
}

fn take_seat(cpu: usize) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only)?;
    set_policy(Policy::RealTime(PRIORITY))
}

fn sleep_until(moment: u64) {
    let at = Timespec {
        tv_sec: (moment / 1_000_000_000) as i64,
        tv_nsec: (moment % 1_000_000_000) as i64,
    };
    // A signal ends the sleep early; the moment stays the same.
    while clock_nanosleep_absolute(ClockId::Monotonic, &at) == Err(rustix::io::Errno::INTR) {}
}
