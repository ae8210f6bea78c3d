//! What runs while its processor time is read from outside: slivers, and plain processes that do the
//! same.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use integration::artifacts;
use integration::sliver::monotonic_ns;

use crate::cgroup::Cgroup;
use crate::lab::{Lab, Sliver, Surroundings};
use crate::policy::{Policy, set_policy};
use crate::process::{self, Started};
use crate::sampler::{Reading, sample};

/// Arguments of `spin` for computing on all vCPUs until it is ended.
pub(crate) const FOREVER: [&str; 3] = ["--all", "--ms", "86400000"];

/// By then whatever was started has found its pace.
const SETTLED_AFTER: Duration = Duration::from_millis(500);

/// Of the harness while a crowd comes before all else: or else it would not get to end it.
const PRIORITY: i32 = 1;

/// One that runs.
pub(crate) enum Subject {
    /// A sliver.
    Sliver(Sliver),
    /// A process that knows nothing of slivers.
    Process(Started),
}

impl Subject {
    /// The sliver of this spec.
    pub(crate) fn sliver(lab: &Lab, spec: &Path, surroundings: Surroundings) -> Result<Self> {
        lab.start(spec, surroundings).map(Self::Sliver)
    }

    /// `spin` as a process, on so many threads.
    pub(crate) fn process(threads: usize) -> Result<Self> {
        let mut command = Command::new(artifacts::desktop("spin"));
        command
            .args(FOREVER)
            .env("SLICE_VCPUS", threads.to_string())
            .stdin(Stdio::null());
        process::start(command, monotonic_ns()).map(Self::Process)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        match self {
            Self::Sliver(sliver) => sliver.pid(),
            Self::Process(process) => process.pid(),
        }
    }

    fn end(self) -> Result<()> {
        match self {
            Self::Sliver(sliver) => sliver.stop()?,
            Self::Process(process) => process.kill()?,
        };
        Ok(())
    }
}

/// Several at once, before all else that the host does.
pub(crate) struct Crowd {
    subjects: Vec<Subject>,
    /// Goes last.
    group: Cgroup,
}

impl Crowd {
    /// Starts them, one after the other, and lets them settle.
    pub(crate) fn start(subjects: impl Iterator<Item = Result<Subject>>) -> Result<Self> {
        Self::start_in(Cgroup::first()?, subjects)
    }

    /// The same in a control group.
    pub(crate) fn start_in(
        group: Cgroup,
        subjects: impl Iterator<Item = Result<Subject>>,
    ) -> Result<Self> {
        set_policy(Policy::RealTime(PRIORITY)).context("real-time (are you root?)")?;
        let mut crowd = Self {
            subjects: Vec::new(),
            group,
        };
        for subject in subjects {
            let subject = subject?;
            crowd.join(subject.pid())?;
            crowd.subjects.push(subject);
        }
        thread::sleep(SETTLED_AFTER);
        Ok(crowd)
    }

    /// Somebody else comes before all, too.
    pub(crate) fn join(&self, pid: u32) -> Result<()> {
        self.group.add(pid)
    }

    /// Reads the clocks of all, `count` times one step apart and once before.
    pub(crate) fn watch(&self, step: Duration, count: usize) -> Result<Vec<Vec<Reading>>> {
        let pids: Vec<u32> = self.subjects.iter().map(Subject::pid).collect();
        sample(&pids, step.as_nanos() as u64, count + 1)
    }

    /// Ends them all.
    pub(crate) fn end(mut self) -> Result<()> {
        let subjects = std::mem::take(&mut self.subjects);
        subjects.into_iter().try_for_each(Subject::end)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // Otherwise the harness is a little too quick, no more.
        let _ = set_policy(Policy::Usual);
    }
}

/// What passed between the first and the last reading, and what was used meanwhile, in nanoseconds.
pub(crate) fn whole(readings: &[Reading]) -> (f64, f64) {
    match readings {
        [first, .., last] => (
            (last.at - first.at) as f64,
            last.used.saturating_sub(first.used) as f64,
        ),
        _ => (0.0, 0.0),
    }
}
