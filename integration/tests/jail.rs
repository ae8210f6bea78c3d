//! The jail of real monitors, as the host sees it, and hosts that cannot provide all of it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use integration::cli::{Cli, assert_code, json, text};
use integration::guests::bare;
use integration::needs_kvm;
use integration::sliver::Sliver;

/// What the host shows of a running monitor.
fn shown(pid: u32, what: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{what}")).expect("it runs")
}

fn status(pid: u32, field: &str) -> String {
    let status = shown(pid, "status");
    let mut fields = status.lines().filter_map(|line| line.split_once(":\t"));
    let found = fields.find(|(name, _)| *name == field);
    found.expect("it is told").1.to_owned()
}

#[test]
fn a_running_monitor_has_no_privileges_and_is_apart_in_every_namespace() {
    needs_kvm!();
    let sliver = Sliver::bare("idle").spawn_running();
    let pid = sliver.pid();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(pid, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(pid, "NoNewPrivs"), "1");
    for namespace in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).expect("one");
        assert_ne!(of(&pid.to_string()), of("self"), "{namespace}");
    }
    // Every thread of it.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    for thread in threads.flatten() {
        let status = fs::read_to_string(thread.path().join("status")).expect("it runs");
        assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    }
    assert_eq!(shown(pid, "environ"), "");
    sliver.assert_well();
}

#[test]
fn two_monitors_have_nothing_in_common() {
    needs_kvm!();
    let (one, other) = (
        Sliver::bare("idle").spawn_running(),
        Sliver::bare("idle").spawn_running(),
    );
    for namespace in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).expect("one");
        assert_ne!(of(one.pid()), of(other.pid()), "{namespace}");
    }
    if rustix::process::geteuid().is_root() {
        assert_ne!(status(one.pid(), "Uid"), status(other.pid(), "Uid"));
        assert_ne!(status(one.pid(), "Gid"), status(other.pid(), "Gid"));
    }
}

#[test]
fn a_running_monitor_has_an_empty_root_that_cannot_be_written() {
    needs_kvm!();
    let sliver = Sliver::bare("idle").spawn_running();
    let root = format!("/proc/{}/root", sliver.pid());
    assert_eq!(fs::read_dir(root).expect("it runs").count(), 0);
    let mounts = shown(sliver.pid(), "mounts");
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(mounts.contains(" / tmpfs ro,"), "{mounts}");
}

#[test]
fn a_running_monitor_keeps_no_descriptor_that_leads_to_anything_else() {
    needs_kvm!();
    let sliver = Sliver::bare("idle").spawn_running();
    let descriptors = fs::read_dir(format!("/proc/{}/fd", sliver.pid())).expect("it runs");
    let links = descriptors
        .flatten()
        .map(|entry| fs::read_link(entry.path()));
    let links: BTreeSet<String> = links
        .flatten()
        .map(|link| link.display().to_string())
        .collect();
    let dir = sliver.dir().display().to_string();
    for link in &links {
        let known = link.starts_with("socket:")
            || link.starts_with("anon_inode:")
            || link.starts_with("/memfd:slice-")
            || link.ends_with(".console")
            || link.ends_with(".errors")
            // Its lock, and what proc(5) tells of itself.
            || *link == format!("{dir}/lock")
            || link == &format!("/proc/{}/smaps", sliver.pid())
            || link == &format!("/proc/{}/pagemap", sliver.pid())
            || ["/dev/null", "/dev/kvm"].contains(&link.as_str())
            || *link == bare().display().to_string();
        assert!(known, "{link} among {links:?}");
    }
    sliver.assert_well();
}

#[test]
fn a_monitor_can_make_no_further_namespaces() {
    needs_kvm!();
    let sliver = Sliver::bare("idle").spawn_running();
    let output = Command::new("nsenter")
        .args(["--user", "--preserve-credentials", "--target"])
        .arg(sliver.pid().to_string())
        .args(["cat", "/proc/sys/user/max_user_namespaces"])
        .output()
        .expect("nsenter starts");
    assert_eq!(text(&output.stdout).trim(), "0", "{output:?}");
}

#[test]
fn a_monitor_leaves_no_core_and_lets_nobody_look_into_it() {
    needs_kvm!();
    let sliver = Sliver::bare("idle").spawn_running();
    let limits = shown(sliver.pid(), "limits");
    let core = limits.lines().find(|line| line.starts_with("Max core"));
    let core: Vec<_> = core.expect("told").split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "{limits}");
    // What is not dumpable belongs to root (proc(5)), whoever runs it.
    let memory = fs::metadata(format!("/proc/{}/mem", sliver.pid())).expect("it runs");
    assert_eq!(memory.uid(), 0);
}

/// Runs `slicectl` as the root of a user namespace that may have no namespaces for host names.
fn without_uts(cli: &Cli, line: &str) -> Command {
    let slicectl = cli.command(&[]);
    let script = format!("echo 0 > /proc/sys/user/max_uts_namespaces && exec \"$@\" {line}");
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "sh", "-c", &script, "sh"])
        .arg(slicectl.get_program())
        .args(slicectl.get_args());
    for (name, value) in slicectl.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command
}

#[test]
fn a_host_that_lacks_a_layer_is_told_and_the_weaker_jail_is_accepted_by_name() {
    needs_kvm!();
    let cli = Cli::set_up();
    let image = bare().display().to_string();
    let line = format!("run --name weak {image} -- exit 0");
    let output = without_uts(&cli, &line).output().expect("unshare starts");
    assert_code(&output, 125);
    let told = text(&output.stderr);
    assert!(
        told.contains("the layer uts") && told.contains("--allow-weak-jail=uts"),
        "{told}"
    );
    cli.assert_no_trace();

    let doctor = without_uts(&cli, "doctor --json").output();
    let doctor = json(&doctor.expect("unshare starts"));
    let checks = doctor["checks"].as_array().expect("a list");
    let jail = checks.iter().find(|check| check["name"] == "jail");
    let jail = jail.expect("it looks at the jail");
    assert_eq!(jail["status"], "fail", "{jail}");
    let mend = jail["mend"].as_str().expect("a remedy");
    assert!(mend.contains("--allow-weak-jail uts"), "{jail}");

    let line = format!("run --allow-weak-jail uts --name weak {image} -- idle");
    let mut run = without_uts(&cli, &line).spawn().expect("unshare starts");
    let listed = integration::sliver::until("it is listed", || {
        let listed = json(&cli.run(&["ps", "--json"]));
        listed.get(0).cloned()
    });
    assert_eq!(listed["weak_jail"], serde_json::json!(["uts"]), "{listed}");
    assert!(text(&cli.run(&["ps"]).stdout).contains("without uts"));
    assert_code(&cli.run(&["stop", "weak"]), 0);
    run.wait().expect("ours");
    let events = json(&cli.run(&["events", "--json"]));
    let events = events.as_array().expect("a list");
    assert!(
        events.iter().any(|event| event["kind"] == "weak_jail"),
        "{events:?}"
    );
}
