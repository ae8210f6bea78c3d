//! What on the host used processor time between two moments and is no process: the kernel's own
//! threads, and interrupts that found the processors idle.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use integration::cpu_time::process_ns;
use integration::sliver::monotonic_ns;

use crate::cgroup::used_by_all;

/// Flag of a thread that is the kernel's own (`PF_KTHREAD`).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// `/proc/stat` counts in hundredths of a second (`USER_HZ`).
const TICK_NS: u64 = 10_000_000;

/// The state of a moment.
#[derive(Debug)]
pub(crate) struct Usage {
    at: u64,
    /// Time in which the processors had nothing to do or were taken away, all together.
    unused: u64,
    processors: u64,
    /// Of all tasks, also of those that are gone.
    used_by_all: u64,
    kernel_threads: BTreeMap<u32, Thread>,
}

#[derive(Debug)]
struct Thread {
    name: String,
    used: u64,
}

/// What happened between two moments, in thousandths of the time of one processor.
#[derive(Debug)]
pub(crate) struct Between {
    /// Used by no process.
    pub(crate) outside: f64,
    /// Of that, by interrupts that found the processors idle.
    pub(crate) interrupts: f64,
    /// Of that, by kernel threads, the busiest first.
    pub(crate) kernel_threads: Vec<(String, f64)>,
}

impl Usage {
    /// As of now.
    pub(crate) fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().context("/proc/stat is empty")?;
        let ticks = |index: usize| -> Result<u64> {
            let word = line.split_whitespace().nth(index);
            Ok(word.context("/proc/stat lacks a number")?.parse()?)
        };
        // user nice system idle iowait irq softirq steal, after the line's name (proc(5)).
        let unused = (ticks(4)? + ticks(5)? + ticks(8)?) * TICK_NS;
        let processors = stat.lines().skip(1).filter(|line| line.starts_with("cpu"));
        Ok(Self {
            at: monotonic_ns(),
            unused,
            processors: processors.count() as u64,
            used_by_all: used_by_all()?,
            kernel_threads: kernel_threads()?,
        })
    }

    /// What happened since `then`.
    pub(crate) fn since(&self, then: &Self) -> Between {
        let time = self.at - then.at;
        let part = |ns: u64| 1000.0 * ns as f64 / time as f64;
        let busy = (time * self.processors).saturating_sub(self.unused - then.unused);
        let interrupts = part(busy) - part(self.used_by_all - then.used_by_all);
        let mut kernel_threads: Vec<(String, f64)> = { self.kernel_threads.iter() }
            .map(|(pid, thread)| {
                let before = then.kernel_threads.get(pid).map_or(0, |thread| thread.used);
                (
                    thread.name.clone(),
                    part(thread.used.saturating_sub(before)),
                )
            })
            .collect();
        kernel_threads.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let in_threads: f64 = kernel_threads.iter().map(|(_, used)| used).sum();
        Between {
            outside: interrupts + in_threads,
            interrupts,
            kernel_threads,
        }
    }
}

fn kernel_threads() -> Result<BTreeMap<u32, Thread>> {
    let pids = { fs::read_dir("/proc")?.flatten() }
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // Whoever ends meanwhile is left out.
    let thread = |pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, rest) = stat.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let flags: u64 = rest.split_whitespace().nth(6)?.parse().ok()?;
        let thread = Thread {
            name: name.to_owned(),
            used: process_ns(pid).ok()?,
        };
        (flags & KERNEL_THREAD != 0).then_some((pid, thread))
    };
    Ok(pids.filter_map(thread).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_no_kernel_thread() {
        let usage = Usage::now().expect("proc and control groups are mounted");
        assert!(!usage.kernel_threads.contains_key(&std::process::id()));
        assert!(usage.processors > 0);
    }

    #[test]
    fn what_processes_use_is_not_outside() {
        let thread = |used| Thread {
            name: "x".to_owned(),
            used,
        };
        let then = Usage {
            at: 0,
            unused: 0,
            processors: 2,
            used_by_all: 7,
            kernel_threads: [(2, thread(0))].into(),
        };
        let now = Usage {
            at: 1_000_000,
            unused: 1_400_000,
            processors: 2,
            used_by_all: 550_007,
            kernel_threads: [(2, thread(50_000)), (3, thread(20_000))].into(),
        };
        let between = now.since(&then);
        assert!((between.interrupts - 50.0).abs() < 1e-6, "{between:?}");
        assert!((between.outside - 120.0).abs() < 1e-6, "{between:?}");
        assert_eq!(between.kernel_threads[0], ("x".to_owned(), 50.0));
    }
}
