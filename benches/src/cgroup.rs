//! Control groups of a benchmark's own: one that comes before whatever else the host does, and one
//! with a quota of processor time besides, the peer of our caps.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The smallest quota that the kernel takes, in microseconds (`min_cfs_quota_period`).
pub(crate) const LEAST_QUOTA_US: u64 = 1000;

/// Where the controller is: version 1 has a hierarchy for it, version 2 one for all.
enum Hierarchy {
    V1(PathBuf),
    V2(PathBuf),
}

/// A group. Dropped, it is removed; its processes must be gone by then.
#[derive(Debug)]
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    /// A group that comes before all others, so that what else the host does does not count.
    pub(crate) fn first() -> Result<Self> {
        let name = format!("slicevisor-bench-{}", std::process::id());
        match Hierarchy::find()? {
            Hierarchy::V1(root) => Self::make(root.join(name), "cpu.shares", "262144"),
            Hierarchy::V2(root) => Self::make(root.join(name), "cpu.weight", "10000"),
        }
    }

    /// The same, which gets `quota_us` in each period of `period_us`.
    pub(crate) fn with_quota(quota_us: u64, period_us: u64) -> Result<Self> {
        let group = Self::first()?;
        match Hierarchy::find()? {
            Hierarchy::V1(_) => {
                group.write("cpu.cfs_period_us", &period_us.to_string())?;
                group.write("cpu.cfs_quota_us", &quota_us.to_string())?;
            }
            Hierarchy::V2(_) => group.write("cpu.max", &format!("{quota_us} {period_us}"))?,
        }
        Ok(group)
    }

    /// Moves a process with all its threads into it.
    pub(crate) fn add(&self, pid: u32) -> Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    fn make(path: PathBuf, weight_file: &str, weight: &str) -> Result<Self> {
        fs::create_dir(&path).with_context(|| format!("{} (are you root?)", path.display()))?;
        let group = Self(path);
        group.write(weight_file, weight)?;
        Ok(group)
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.0.join(file);
        fs::write(&path, value).with_context(|| format!("{value} to {}", path.display()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that was just reaped may still be leaving.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} could not be removed", self.0.display());
    }
}

impl Hierarchy {
    fn find() -> Result<Self> {
        if let Some(path) = mount_of("cgroup", "cpu")? {
            return Ok(Self::V1(path));
        }
        if let Some(path) = mount_of("cgroup2", "")? {
            let controllers = fs::read_to_string(path.join("cgroup.controllers"))?;
            if controllers.split_whitespace().any(|name| name == "cpu") {
                fs::write(path.join("cgroup.subtree_control"), "+cpu")?;
                return Ok(Self::V2(path));
            }
        }
        bail!("no control group has the cpu controller: there is no peer for caps")
    }
}

/// Processor time of all that ever ran, of processes and of the kernel's threads, in nanoseconds.
pub(crate) fn used_by_all() -> Result<u64> {
    if let Some(path) = mount_of("cgroup", "cpuacct")? {
        let usage = fs::read_to_string(path.join("cpuacct.usage"))?;
        return Ok(usage.trim().parse()?);
    }
    let path = mount_of("cgroup2", "")?.context("there are no control groups")?;
    let stat = fs::read_to_string(path.join("cpu.stat"))?;
    let mut lines = stat.lines();
    let usage = lines.find_map(|line| line.strip_prefix("usage_usec "));
    let usage: u64 = usage.context("cpu.stat tells no usage")?.parse()?;
    Ok(usage * 1000)
}

/// Where a file system of this kind is mounted that has this option; an empty one means any.
fn mount_of(kind: &str, option: &str) -> Result<Option<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut mounts = mounts.lines().filter_map(|line| {
        // Device, path, kind, options (fstab(5)).
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?, words.next()?))
    });
    let found = mounts.find(|&(_, is, options)| {
        is == kind && (option.is_empty() || options.split(',').any(|has| has == option))
    });
    Ok(found.map(|(path, ..)| path.into()))
}
