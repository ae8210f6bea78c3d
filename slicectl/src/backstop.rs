//! The second fence around a sliver's processor time: a control group for its monitor.
//!
//! The monitor keeps its own budget; this is for one that does not. The group's quota is 1.25 times
//! the cap, so that it never holds back who keeps to it, and its weight follows share and reserve.
//! Whoever runs a sliver puts the group up once that has been running for a moment (moving a process
//! may take tens of milliseconds of the kernel's) and takes it away at the end. A host without such
//! groups, or one that does not allow them, is no reason not to run: `doctor` tells of it.

mod figures;
mod group;
pub mod hierarchy;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use vmm::spec::CpuLimits;

use crate::client::Client;
use crate::report::say;

use figures::Figures;
use group::{Absent, Group};
use hierarchy::Hierarchy;

/// A sliver that has ended within this time needs no fence.
const SETTLE: Duration = Duration::from_millis(200);

/// What a fence is put around.
#[derive(Debug, Clone)]
pub struct Fenced {
    /// Name of the sliver.
    pub name: String,
    /// Its monitor, a child of this process.
    pub pid: u32,
    /// Its control socket.
    pub control: PathBuf,
    /// What it began with.
    pub limits: CpuLimits,
    /// Its vCPUs.
    pub vcpus: usize,
}

/// A fence that is being put up or stands. It goes when this is dropped.
#[derive(Debug)]
pub struct Backstop {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Backstop {
    /// Puts one up in a moment. What prevents it is told, unless it is that the host has or allows
    /// none.
    pub fn begin(fenced: Fenced) -> Self {
        let (end, ended) = channel::<()>();
        let work = move || {
            if ended.recv_timeout(SETTLE) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let put_up = put_up(&fenced);
            sweep();
            match put_up {
                Ok(group) => {
                    let _ = ended.recv();
                    group.remove();
                }
                Err(Absent::Failed(problem)) => say(problem),
                Err(Absent::NotHere | Absent::NotAllowed) => {}
            }
        };
        let thread = std::thread::Builder::new().name("backstop".to_owned());
        Self {
            end: Some(end),
            thread: thread.spawn(work).ok(),
        }
    }
}

impl Drop for Backstop {
    /// After the monitor has ended: a group with a process in it stays.
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn put_up(fenced: &Fenced) -> Result<Group, Absent> {
    let hierarchy = Hierarchy::of_host().ok_or(Absent::NotHere)?;
    let figures = Figures::of(&fenced.limits, fenced.vcpus);
    let group = Group::put_up(&hierarchy, fenced, &figures)?;
    // Somebody may have changed them who did not find the group.
    let status = Client::connect(&fenced.control).and_then(|mut client| client.status());
    if let Ok(status) = status
        && status.cpu.limits != fenced.limits
    {
        group.set(&Figures::of(&status.cpu.limits, fenced.vcpus))?;
    }
    Ok(group)
}

/// Has the group of the monitor `pid` follow other quotas; whether there is one.
pub fn adjust(pid: u32, limits: &CpuLimits, vcpus: usize) -> Result<bool, crate::problem::Problem> {
    let found = Hierarchy::of_host().and_then(|hierarchy| Group::of_monitor(&hierarchy, pid));
    let Some(group) = found else {
        return Ok(false);
    };
    match group.set(&Figures::of(limits, vcpus)) {
        Ok(()) => Ok(true),
        Err(Absent::Failed(problem)) => Err(problem),
        // Its group is somebody else's to change, or has gone.
        Err(Absent::NotHere | Absent::NotAllowed) => Ok(false),
    }
}

/// Removes the groups of slivers whose `slicectl` was killed.
pub fn sweep() {
    if let Some(hierarchy) = Hierarchy::of_host() {
        group::sweep(&hierarchy);
    }
}
