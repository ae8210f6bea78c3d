//! Which control groups govern processor time on this host, and where this process is among them.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// The version of the control groups that have the cpu controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy of its own, with `cpu.shares` and `cpu.cfs_quota_us`.
    V1,
    /// The unified hierarchy, with `cpu.weight` and `cpu.max`.
    V2,
}

/// The directories that matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Which version it is.
    pub version: Version,
    /// Where it is mounted: its root, or that of the container.
    pub top: PathBuf,
    /// The group of this process.
    pub own: PathBuf,
}

/// What a host offers, for `doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// No control groups are mounted.
    Nothing,
    /// There are some, without the cpu controller.
    NoController,
    /// There are, and groups can be made.
    Usable(Version),
    /// There are, and none can be made by this user, or not without leaving limits that this process
    /// is under.
    Closed(Version, PathBuf),
}

/// One line of mountinfo (proc_pid_mountinfo(5)).
struct Mount {
    root: String,
    point: PathBuf,
    kind: String,
    options: String,
}

impl Hierarchy {
    /// That of this host, if it has one.
    pub fn of_host() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        Self::of(&mounts, &groups)
    }

    /// The one in these mounts that has the cpu controller. Where both versions are mounted (a
    /// hybrid), the first usually has it.
    pub(super) fn of(mountinfo: &str, cgroup: &str) -> Option<Self> {
        let mounts: Vec<Mount> = mountinfo.lines().filter_map(Mount::read).collect();
        let v1 = mounts
            .iter()
            .find(|mount| mount.kind == "cgroup" && has_word(&mount.options, ',', "cpu"));
        if let Some(mount) = v1 {
            let path = own_path(cgroup, |controllers| has_word(controllers, ',', "cpu"))?;
            return Some(mount.hierarchy(Version::V1, path));
        }
        let mount = mounts.iter().find(|mount| mount.kind == "cgroup2")?;
        let path = own_path(cgroup, str::is_empty)?;
        let found = mount.hierarchy(Version::V2, path);
        let controllers = fs::read_to_string(found.top.join("cgroup.controllers")).ok()?;
        has_word(&controllers, ' ', "cpu").then_some(found)
    }

    /// Where groups may be made, best first: at the top, where all slivers of the host are each
    /// other's neighbours, unless this process is under a limit that its child would leave there.
    pub(super) fn places(&self) -> Vec<&Path> {
        let mut places = vec![&*self.own];
        if self.top != self.own && !self.is_limited() {
            places.insert(0, &*self.top);
        }
        places
    }

    /// The group of process `pid`.
    pub fn group_of(&self, pid: u32) -> Option<PathBuf> {
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        Self::of(&mounts, &cgroup).map(|found| found.own)
    }

    fn is_limited(&self) -> bool {
        let limits: &[(&str, &str)] = match self.version {
            Version::V1 => &[("cpu.cfs_quota_us", "-1")],
            // All controllers are in one hierarchy: what is left is left with all of them.
            Version::V2 => &[
                ("cpu.max", "max"),
                ("memory.max", "max"),
                ("memory.high", "max"),
            ],
        };
        let below_top = self.own.ancestors().take_while(|dir| *dir != self.top);
        below_top.into_iter().any(|dir| {
            limits.iter().any(|(file, none)| {
                let limit = fs::read_to_string(dir.join(file));
                limit.is_ok_and(|limit| !limit.starts_with(none))
            })
        })
    }
}

/// What this host offers.
pub fn offer() -> Offer {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(hierarchy) = Hierarchy::of(&mounts, &groups) else {
        let kinds = mounts.lines().filter_map(Mount::read);
        return match kinds
            .into_iter()
            .any(|mount| mount.kind.starts_with("cgroup"))
        {
            true => Offer::NoController,
            false => Offer::Nothing,
        };
    };
    let usable = |place: &Path| {
        let made = place.join(super::group::PARENT);
        let dir = if made.is_dir() { &made } else { place };
        access(dir, Access::WRITE_OK).is_ok()
    };
    let places = hierarchy.places();
    match places.iter().any(|place| usable(place)) {
        true => Offer::Usable(hierarchy.version),
        false => Offer::Closed(hierarchy.version, places[0].to_owned()),
    }
}

impl Mount {
    fn read(line: &str) -> Option<Self> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        let mut filesystem = filesystem.split(' ');
        Some(Self {
            root: unescaped(root),
            point: PathBuf::from(unescaped(point)),
            kind: filesystem.next()?.to_owned(),
            options: filesystem.nth(1).unwrap_or_default().to_owned(),
        })
    }

    /// The hierarchy of this mount for a process in the group `path`. What is outside the part that
    /// is mounted, as in a container without a namespace of its own, is taken to be at its top.
    fn hierarchy(&self, version: Version, path: &str) -> Hierarchy {
        let inside = Path::new(path).strip_prefix(&self.root);
        let inside = inside.ok().filter(|path| !path.starts_with(".."));
        Hierarchy {
            version,
            top: self.point.clone(),
            own: match inside {
                Some(path) if path != Path::new("") => self.point.join(path),
                _ => self.point.clone(),
            },
        }
    }
}

/// The group of a process in the hierarchy with these controllers (cgroups(7), /proc/pid/cgroup).
fn own_path(cgroup: &str, controllers: impl Fn(&str) -> bool) -> Option<&str> {
    cgroup.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (found, path) = rest.split_once(':')?;
        controllers(found).then_some(path)
    })
}

pub(super) fn has_word(list: &str, separator: char, word: &str) -> bool {
    list.trim_end().split(separator).any(|one| one == word)
}

/// A path without the octal escapes that mountinfo has for blanks.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                out.push_str(&part[3..]);
            }
            None => {
                out.push('\\');
                out.push_str(part);
            }
        }
    }
    out
}
