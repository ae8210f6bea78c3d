//! Control groups: found in what hosts show, made in directories that look like them, and, where
//! this host has them, for real.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};

use serde_json::json;

use super::group::Group;
use super::hierarchy::{Hierarchy, Version};
use super::*;

const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
33 31 0:30 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

fn limits(quotas: serde_json::Value) -> CpuLimits {
    serde_json::from_value(quotas).expect("quotas")
}

/// Something that a fence can be put around.
struct Somebody(Child);

impl Somebody {
    fn new() -> Self {
        let mut command = Command::new("sleep");
        Self(command.arg("600").spawn().expect("sleep starts"))
    }

    fn fenced(&self, name: &str, limits: CpuLimits) -> Fenced {
        Fenced {
            name: name.to_owned(),
            pid: self.0.id(),
            control: "/nowhere".into(),
            limits,
            vcpus: 1,
        }
    }
}

impl Drop for Somebody {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_hierarchy_is_the_one_with_the_cpu_controller() {
    let groups = "3:cpuset:/x\n1:cpu,cpuacct:/user/ada\n0::/other\n";
    let found = Hierarchy::of(HYBRID, groups).expect("found");
    assert_eq!(found.version, Version::V1);
    assert_eq!(found.top, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
    assert_eq!(found.own, Path::new("/sys/fs/cgroup/cpu,cpuacct/user/ada"));
    assert_eq!(Hierarchy::of(HYBRID, "0::/\n"), None);
    assert_eq!(Hierarchy::of("", ""), None);
}

#[test]
fn a_container_sees_its_part_of_the_hierarchy_as_the_whole() {
    let mounts = "7 6 0:29 /docker/ab /cg\\040cpu rw - cgroup cgroup rw,cpu\n";
    let of = |groups| Hierarchy::of(mounts, groups).expect("found").own;
    assert_eq!(of("1:cpu:/docker/ab/in"), Path::new("/cg cpu/in"));
    assert_eq!(of("1:cpu:/docker/ab"), Path::new("/cg cpu"));
    assert_eq!(of("1:cpu:/elsewhere"), Path::new("/cg cpu"));
    let namespace = "7 6 0:29 / /cg rw - cgroup cgroup rw,cpu\n";
    let outside = Hierarchy::of(namespace, "1:cpu:/../other").expect("found");
    assert_eq!(outside.own, Path::new("/cg"));
}

/// A directory that looks like the second version's at the top, with this process in `own`.
fn unified(own: &str) -> (tempfile::TempDir, Hierarchy) {
    let dir = tempfile::tempdir().expect("a directory");
    let top = dir.path().to_owned();
    for group in [&top, &top.join(own), &top.join("slicevisor")] {
        fs::create_dir_all(group).expect("made");
        let files = [
            ("cgroup.controllers", "cpu memory\n"),
            ("cgroup.subtree_control", "cpu memory\n"),
            ("cgroup.procs", ""),
            ("cpu.max", "max 100000\n"),
            ("memory.max", "max\n"),
        ];
        for (file, text) in files {
            fs::write(group.join(file), text).expect("written");
        }
    }
    let mounts = format!("41 31 0:38 / {} rw - cgroup2 cgroup2 rw\n", top.display());
    let found = Hierarchy::of(&mounts, &format!("0::/{own}\n")).expect("found");
    assert_eq!(found.version, Version::V2);
    (dir, found)
}

#[test]
fn a_group_of_the_second_version_has_a_weight_and_a_quota() {
    let (dir, hierarchy) = unified("session");
    let somebody = Somebody::new();
    let wanted = limits(json!({ "cpu_cap": 40, "cpu_share": 3 }));
    let fenced = somebody.fenced("web-1", wanted);
    let group = Group::put_up(&hierarchy, &fenced, &Figures::of(&wanted, 1)).expect("put up");
    let read = |file: &str| {
        let path = dir.path().join("slicevisor").join(file);
        fs::read_to_string(path).expect(file)
    };
    assert_eq!(read("web-1/cpu.max"), "50000 100000");
    assert_eq!(read("web-1/cpu.weight"), "300");
    assert_eq!(read("web-1/cgroup.procs"), fenced.pid.to_string());
    assert_eq!(read("cpu.weight"), "300");

    // The same name in another run directory.
    let other = Somebody::new();
    let second = other.fenced("web-1", wanted);
    let number = second.pid;
    Group::put_up(&hierarchy, &second, &Figures::of(&wanted, 1)).expect("put up");
    assert_eq!(
        read(&format!("web-1.{number}/cgroup.procs")),
        number.to_string()
    );
    assert_eq!(read("cpu.weight"), "600");

    group.set(&Figures::of(&limits(json!({})), 1)).expect("set");
    assert_eq!(
        (read("web-1/cpu.max"), read("web-1/cpu.weight")),
        ("max".into(), "100".into())
    );
    assert_eq!(read("cpu.weight"), "400");
}

#[test]
fn controllers_are_passed_on_to_the_groups_below() {
    let (dir, hierarchy) = unified("session");
    let control = |group: &str| dir.path().join(group).join("cgroup.subtree_control");
    fs::write(control(""), "memory\n").expect("written");
    fs::write(control("slicevisor"), "").expect("written");
    let somebody = Somebody::new();
    let fenced = somebody.fenced("web-1", CpuLimits::default());
    let figures = Figures::of(&CpuLimits::default(), 1);
    Group::put_up(&hierarchy, &fenced, &figures).expect("put up");
    for group in ["", "slicevisor"] {
        assert_eq!(fs::read_to_string(control(group)).expect("read"), "+cpu");
    }
}

#[test]
fn who_is_under_a_limit_does_not_leave_it() {
    let (dir, hierarchy) = unified("unit/inner");
    assert_eq!(
        hierarchy.places(),
        [dir.path(), &dir.path().join("unit/inner")]
    );
    let unit = dir.path().join("unit");
    fs::write(unit.join("memory.max"), "1073741824\n").expect("written");
    assert_eq!(hierarchy.places(), [dir.path().join("unit/inner")]);
    fs::write(unit.join("memory.max"), "max\n").expect("written");
    fs::write(unit.join("inner/cpu.max"), "50000 100000\n").expect("written");
    assert_eq!(hierarchy.places(), [dir.path().join("unit/inner")]);
}

#[test]
fn a_process_that_is_no_child_is_not_moved() {
    let (dir, hierarchy) = unified("session");
    let fenced = Fenced {
        pid: 1,
        ..Somebody::new().fenced("web-1", CpuLimits::default())
    };
    let figures = Figures::of(&CpuLimits::default(), 1);
    assert!(Group::put_up(&hierarchy, &fenced, &figures).is_err());
    assert!(!dir.path().join("slicevisor/web-1/cgroup.procs").exists());
}

/// The hierarchy of this host, if groups of the first version can be made.
fn real() -> Option<Hierarchy> {
    let hierarchy = Hierarchy::of_host()?;
    let usable = matches!(hierarchy::offer(), hierarchy::Offer::Usable(Version::V1));
    usable.then_some(hierarchy)
}

#[test]
fn a_group_of_the_first_version_holds_the_process_until_it_is_removed() {
    let Some(hierarchy) = real() else {
        eprintln!("this host has no cpu controller of the first version that can be used");
        return;
    };
    let somebody = Somebody::new();
    let name = format!("test-{}", somebody.0.id());
    let wanted = limits(json!({ "cpu_cap": 0.1, "cpu_share": 2 }));
    let fenced = somebody.fenced(&name, wanted);
    let group = Group::put_up(&hierarchy, &fenced, &Figures::of(&wanted, 1)).expect("put up");
    let found = Group::of_monitor(&hierarchy, fenced.pid).expect("found by its process");
    let dir = hierarchy.group_of(fenced.pid).expect("a group");
    assert_eq!(dir.file_name().and_then(|name| name.to_str()), Some(&*name));
    let read = |file: &str| fs::read_to_string(dir.join(file)).expect(file);
    assert_eq!(read("cpu.cfs_quota_us"), "1000\n");
    assert_eq!(read("cpu.cfs_period_us"), "800000\n");
    assert_eq!(read("cpu.shares"), "2048\n");
    let other = limits(json!({ "cpu_cap": 80, "cpu_period": 100 }));
    found.set(&Figures::of(&other, 1)).expect("set");
    assert_eq!(read("cpu.cfs_quota_us"), "1000000\n");
    found
        .set(&Figures::of(&CpuLimits::default(), 1))
        .expect("set");
    assert_eq!(read("cpu.cfs_quota_us"), "-1\n");
    group::sweep(&hierarchy);
    assert!(dir.exists(), "it holds a process");
    drop(somebody);
    group.remove();
    assert!(!dir.exists());
}

#[test]
fn what_nobody_is_in_is_swept() {
    let Some(hierarchy) = real() else {
        eprintln!("this host has no cpu controller of the first version that can be used");
        return;
    };
    let somebody = Somebody::new();
    let name = format!("swept-{}", somebody.0.id());
    let fenced = somebody.fenced(&name, CpuLimits::default());
    let figures = Figures::of(&CpuLimits::default(), 1);
    Group::put_up(&hierarchy, &fenced, &figures).expect("put up");
    let dir = hierarchy.group_of(fenced.pid).expect("a group");
    drop(somebody);
    // The kernel takes a moment to let go of a process.
    for _ in 0..1000 {
        sweep();
        if !dir.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{} is still there", dir.display());
}
