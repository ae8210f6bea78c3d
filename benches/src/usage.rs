//! Who on the host used processor time between two moments: each process, the kernel's own threads,
//! and what is nobody's.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use integration::cpu_time::process_ns;
use integration::sliver::monotonic_ns;

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
    tasks: BTreeMap<u32, Task>,
}

#[derive(Debug)]
struct Task {
    name: String,
    of_kernel: bool,
    used: u64,
}

/// What happened between two moments, in thousandths of the time of one processor.
#[derive(Debug)]
pub(crate) struct Between {
    /// Used by nobody's process: kernel threads, and interrupts that found the processors idle.
    pub(crate) outside: f64,
    /// The kernel threads of that, the busiest first.
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
            tasks: tasks()?,
        })
    }

    /// What happened since `then`.
    pub(crate) fn since(&self, then: &Self) -> Between {
        let time = self.at - then.at;
        let part = |ns: u64| 1000.0 * ns as f64 / time as f64;
        let busy = (time * self.processors).saturating_sub(self.unused - then.unused);
        let mut of_processes = 0;
        let mut kernel_threads = Vec::new();
        for (pid, task) in &self.tasks {
            let before = then.tasks.get(pid).map_or(0, |task| task.used);
            let used = task.used.saturating_sub(before);
            if task.of_kernel {
                kernel_threads.push((task.name.clone(), part(used)));
            } else {
                of_processes += used;
            }
        }
        kernel_threads.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        Between {
            outside: part(busy) - part(of_processes),
            kernel_threads,
        }
    }
}

fn tasks() -> Result<BTreeMap<u32, Task>> {
    let pids = { fs::read_dir("/proc")?.flatten() }
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // Whoever ends meanwhile is left out.
    Ok(pids
        .filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (head, rest) = stat.rsplit_once(')')?;
            let (_, name) = head.split_once('(')?;
            let flags: u64 = rest.split_whitespace().nth(6)?.parse().ok()?;
            let task = Task {
                name: name.to_owned(),
                of_kernel: flags & KERNEL_THREAD != 0,
                used: process_ns(pid).ok()?,
            };
            Some((pid, task))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_no_kernel_thread_and_uses_time() {
        let usage = Usage::now().expect("proc is mounted");
        let own = &usage.tasks[&std::process::id()];
        assert!(!own.of_kernel && own.used > 0, "{own:?}");
        assert!(usage.processors > 0);
    }

    #[test]
    fn what_processes_use_is_not_outside() {
        let task = |used, of_kernel| Task {
            name: "x".to_owned(),
            of_kernel,
            used,
        };
        let then = Usage {
            at: 0,
            unused: 0,
            processors: 2,
            tasks: [(1, task(500, false)), (2, task(0, true))].into(),
        };
        let now = Usage {
            at: 1_000_000,
            unused: 1_400_000,
            processors: 2,
            tasks: [
                (1, task(400_500, false)),
                (2, task(50_000, true)),
                (3, task(100_000, false)),
            ]
            .into(),
        };
        let between = now.since(&then);
        assert!((between.outside - 100.0).abs() < 1e-6, "{between:?}");
        assert_eq!(between.kernel_threads[0], ("x".to_owned(), 50.0));
    }
}
