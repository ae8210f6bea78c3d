//! One sliver's control group: made, filled, changed and removed, in either version.
//!
//! It is `slicevisor/NAME` at one of the hierarchy's places. The weight of `slicevisor` is the sum
//! of what is in it: slivers compete with the rest of the host as if each stood alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Fenced;
use super::figures::Figures;
use super::hierarchy::{Hierarchy, Version, has_word};
use crate::problem::Problem;

/// The group of all slivers' groups.
pub(super) const PARENT: &str = "slicevisor";

/// Where this process goes if it is in the way: of the second version, a group with groups that
/// have controllers holds no process itself.
const ASIDE: &str = "slicectl";

/// How often and how soon a group is tried to be removed whose last process is on its way out.
const REMOVALS: usize = 20;
const AGAIN: Duration = Duration::from_millis(5);

/// Why there is no group.
#[derive(Debug)]
pub(super) enum Absent {
    /// The host has no such groups.
    NotHere,
    /// The host does not allow this user, or this place, to have one.
    NotAllowed,
    /// It should have been possible.
    Failed(Problem),
}

/// A sliver's group.
#[derive(Debug)]
pub(super) struct Group {
    version: Version,
    dir: PathBuf,
    /// The group from which this process went aside.
    left: Option<PathBuf>,
}

impl Group {
    /// Makes the group and moves the monitor there.
    pub(super) fn put_up(
        hierarchy: &Hierarchy,
        fenced: &Fenced,
        figures: &Figures,
    ) -> Result<Self, Absent> {
        let mut absent = Absent::NotAllowed;
        for place in hierarchy.places() {
            // The sliver's name may be that of another run directory's, too.
            let other = format!("{}.{}", fenced.name, fenced.pid);
            for name in [&fenced.name, &other, &other] {
                let parent = place.join(PARENT);
                match Self::put_up_in(hierarchy, &parent.join(name), fenced, figures) {
                    Ok(group) => return Ok(group),
                    Err((_, error)) if is_taken(&error) => {}
                    Err((_, error)) if is_forbidden(&error) => break,
                    Err((path, error)) => {
                        absent = failed(&path, &error);
                        break;
                    }
                }
            }
        }
        Err(absent)
    }

    fn put_up_in(
        hierarchy: &Hierarchy,
        dir: &Path,
        fenced: &Fenced,
        figures: &Figures,
    ) -> Result<Self, (PathBuf, io::Error)> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| (path, error)
        };
        let parent = dir.parent().unwrap_or(dir);
        let place = parent.parent().unwrap_or(parent);
        let mut left = None;
        if hierarchy.version == Version::V2 {
            left = delegate(place, &hierarchy.own, fenced.pid).map_err(at(place))?;
        }
        let group = Self {
            version: hierarchy.version,
            dir: dir.to_owned(),
            left,
        };
        let made = make(parent)
            .and_then(|()| match hierarchy.version {
                Version::V1 => Ok(()),
                Version::V2 => enable(parent),
            })
            .map_err(at(parent))
            .and_then(|()| make_new(dir).map_err(at(dir)));
        if let Err(error) = made {
            group.come_back();
            return Err(error);
        }
        match group.write(figures).and_then(|()| group.enter(fenced.pid)) {
            Ok(()) => {
                group.weigh_parent();
                Ok(group)
            }
            Err(error) => {
                group.remove();
                Err((group.dir, error))
            }
        }
    }

    /// Moves the monitor `pid`. Two that take over what another has left may find each other there:
    /// then neither may stay.
    fn enter(&self, pid: u32) -> io::Result<()> {
        if !is_child(pid) {
            // It has ended, and its number may be another's.
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let procs = self.dir.join("cgroup.procs");
        fs::write(&procs, pid.to_string())?;
        let inside = fs::read_to_string(&procs)?;
        match inside.split_whitespace().all(|one| one == pid.to_string()) {
            true => Ok(()),
            false => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    /// The group that the monitor `pid` is in, if it is a sliver's.
    pub(super) fn of_monitor(hierarchy: &Hierarchy, pid: u32) -> Option<Self> {
        let dir = hierarchy.group_of(pid)?;
        let parent = dir.parent()?.file_name()?;
        (parent == PARENT).then_some(Self {
            version: hierarchy.version,
            dir,
            left: None,
        })
    }

    /// Sets quota and weight.
    pub(super) fn set(&self, figures: &Figures) -> Result<(), Absent> {
        match self.write(figures) {
            Ok(()) => {
                self.weigh_parent();
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Absent::NotHere),
            Err(error) if is_forbidden(&error) => Err(Absent::NotAllowed),
            Err(error) => Err(failed(&self.dir, &error)),
        }
    }

    fn write(&self, figures: &Figures) -> io::Result<()> {
        let write = |file: &str, text: String| fs::write(self.dir.join(file), text);
        match self.version {
            Version::V1 => {
                write("cpu.shares", figures.shares().to_string())?;
                // A period is refused in which the quota before would be too much for the parent's.
                write("cpu.cfs_quota_us", "-1".to_owned())?;
                if let Some((quota, period)) = figures.quota {
                    write("cpu.cfs_period_us", period.to_string())?;
                    write("cpu.cfs_quota_us", quota.to_string())?;
                }
                Ok(())
            }
            Version::V2 => {
                write("cpu.weight", figures.weight().to_string())?;
                write(
                    "cpu.max",
                    match figures.quota {
                        Some((quota, period)) => format!("{quota} {period}"),
                        None => "max".to_owned(),
                    },
                )
            }
        }
    }

    /// Removes the group. One that still holds a process is left to whoever sweeps.
    pub(super) fn remove(&self) {
        for _ in 0..REMOVALS {
            match fs::remove_dir(&self.dir) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(AGAIN);
                }
                _ => break,
            }
        }
        self.weigh_parent();
        if let Some(parent) = self.dir.parent() {
            // The last one does.
            let _ = fs::remove_dir(parent);
        }
        self.come_back();
    }

    /// Undoes that this process went aside.
    fn come_back(&self) {
        if let Some(left) = &self.left {
            let _ = fs::write(left.join("cgroup.subtree_control"), "-cpu");
            let _ = fs::write(left.join("cgroup.procs"), std::process::id().to_string());
            let _ = fs::remove_dir(left.join(ASIDE));
        }
    }

    /// Gives the parent the sum of its groups' weights. What cannot be done is only less exact.
    fn weigh_parent(&self) {
        let Some(parent) = self.dir.parent() else {
            return;
        };
        let (file, is_weight) = match self.version {
            Version::V1 => ("cpu.shares", false),
            Version::V2 => ("cpu.weight", true),
        };
        let weights = groups_in(parent).filter_map(|dir| {
            let text = fs::read_to_string(dir.join(file)).ok()?;
            text.trim().parse::<u64>().ok()
        });
        let sum = weights.fold(0, u64::saturating_add);
        if sum > 0 {
            let sum = sum.min(Figures::most(is_weight));
            let _ = fs::write(parent.join(file), sum.to_string());
        }
    }
}

/// Removes the groups that hold no process: the kernel refuses the others.
pub(super) fn sweep(hierarchy: &Hierarchy) {
    for place in [&hierarchy.top, &hierarchy.own] {
        let parent = place.join(PARENT);
        for dir in groups_in(&parent) {
            let _ = fs::remove_dir(dir);
        }
        let _ = fs::remove_dir(parent);
    }
}

fn groups_in(parent: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}

/// Has the groups in `place` get the cpu controller. If this process is what stands in the way, and
/// nobody else does, it goes aside; the group that it has left.
fn delegate(place: &Path, own: &Path, monitor: u32) -> io::Result<Option<PathBuf>> {
    let Err(busy) = enable(place) else {
        return Ok(None);
    };
    let here = std::process::id();
    let inside = fs::read_to_string(place.join("cgroup.procs")).unwrap_or_default();
    let mut inside = inside.lines().filter_map(|line| line.trim().parse().ok());
    let alone = inside.all(|pid: u32| pid == here || pid == monitor);
    if busy.kind() != io::ErrorKind::ResourceBusy || place != own || !alone {
        return Err(busy);
    }
    let aside = place.join(ASIDE);
    make(&aside)?;
    let moved = [monitor, here]
        .iter()
        .try_for_each(|pid| fs::write(aside.join("cgroup.procs"), pid.to_string()))
        .and_then(|()| enable(place));
    match moved {
        Ok(()) => Ok(Some(place.to_owned())),
        Err(error) => {
            for pid in [monitor, here] {
                let _ = fs::write(place.join("cgroup.procs"), pid.to_string());
            }
            let _ = fs::remove_dir(aside);
            Err(error)
        }
    }
}

fn enable(dir: &Path) -> io::Result<()> {
    let control = dir.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&control)?;
    match has_word(&enabled, ' ', "cpu") {
        true => Ok(()),
        false => fs::write(control, "+cpu"),
    }
}

fn make(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Makes a group that is not there. One that a killed slicectl has left holds nobody.
fn make_new(dir: &Path) -> io::Result<()> {
    let _ = fs::remove_dir(dir);
    fs::create_dir(dir)
}

/// Whether process `pid` is a child of this one.
fn is_child(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    parent.and_then(|pid| pid.trim().parse().ok()) == Some(std::process::id())
}

/// Whether somebody else has the name, or has swept the group away before anybody was in it.
fn is_taken(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, NotFound};
    matches!(error.kind(), AlreadyExists | NotFound)
}

/// Whether the host is set up so that this cannot be done, and nothing is wrong.
fn is_forbidden(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, ResourceBusy};
    matches!(
        error.kind(),
        PermissionDenied | ReadOnlyFilesystem | ResourceBusy
    )
}

fn failed(path: &Path, error: &io::Error) -> Absent {
    let why = format!(
        "{} cannot be set up ({error}): the monitor's own limit on processor time has no second \
         fence",
        path.display()
    );
    Absent::Failed(Problem::new("cgroup", why).mend("--no-backstop does without one"))
}
