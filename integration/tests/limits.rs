//! Limits from outside: set, changed, told; those of processor time enforced, and the second fence.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;

use integration::cli::{Cli, assert_code, json, text};
use integration::needs_kvm;
use integration::sliver::until;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use slicectl::backstop::hierarchy::{Hierarchy, Offer, offer};

/// A busy sliver in the background.
struct Busy<'a> {
    cli: &'a Cli,
    name: &'a str,
    child: Child,
}

impl<'a> Busy<'a> {
    fn start(cli: &'a Cli, name: &'a str, quotas: &[&str]) -> Self {
        let usual = ["run", "spin", "--for", "60s", "--name", name];
        let args = [&usual[..], quotas, &["--", "--ms", "60000"]].concat();
        let busy = Self {
            cli,
            name,
            child: cli.spawn(&args),
        };
        until("it runs", || busy.status());
        busy
    }

    fn status(&self) -> Option<Value> {
        let output = self.cli.run(&["status", self.name, "--json"]);
        output.status.success().then(|| json(&output))
    }

    fn cpu(&self) -> Value {
        self.status().expect("it runs")["cpu"].clone()
    }

    fn pid(&self) -> u32 {
        let status = self.status().expect("it runs");
        status["pid"].as_u64().expect("a number") as u32
    }

    fn set(&self, quotas: &[&str]) -> Value {
        let args = [&["limits", "set", self.name, "--json"], quotas].concat();
        let output = self.cli.run(&args);
        assert_code(&output, 0);
        json(&output)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let _ = self.cli.run(&["stop", self.name]);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn quotas_are_told_and_changed_while_the_sliver_runs() {
    needs_kvm!();
    let cli = Cli::set_up();
    let ada = Busy::start(&cli, "ada", &["--cpu-cap", "40", "--cpu-share", "3"]);
    let get = json(&cli.run(&["limits", "get", "ada", "--json"]))["cpu"].clone();
    assert_eq!(
        (&get["cpu_cap"], &get["cpu_share"]),
        (&40.into(), &3.into())
    );
    assert_eq!(get["cpu_period"], 10);

    let quotas = [
        "--cpu-cap",
        "12.5",
        "--cpu-burst",
        "20",
        "--cpu-period",
        "5ms",
    ];
    let set = ada.set(&quotas)["cpu"].clone();
    assert_eq!(
        (&set["cpu_cap"], &set["cpu_share"]),
        (&12.5.into(), &3.into())
    );
    assert_eq!(
        (&set["cpu_burst"], &set["cpu_period"]),
        (&20.into(), &5.into())
    );
    let shown = text(&cli.run(&["limits", "get", "ada"]).stdout);
    assert!(shown.contains("cpu cap      12.5 %\n"), "{shown}");

    let lifted = ada.set(&["--cpu-cap", "none"])["cpu"].clone();
    assert_eq!(lifted["cpu_cap"], Value::Null);
    assert_eq!(lifted["cpu_burst"], 20);
    let status = text(&cli.run(&["status", "ada"]).stdout);
    assert!(
        status.contains("cap none, reserve 0 %, share 3"),
        "{status}"
    );
}

#[test]
fn limits_of_network_and_disks_are_told_and_changed_while_the_sliver_runs() {
    needs_kvm!();
    let cli = Cli::set_up();
    let disk = cli.place.path().join("disk.img");
    let file = File::create(&disk).and_then(|file| file.set_len(1 << 20));
    file.expect("the disk is made");
    let disk = disk.to_str().expect("UTF-8");
    let flags = [
        "--net",
        "tap",
        "--net-max-rate",
        "10mbit",
        "--net-allowance",
        "10G",
        "--disk",
        disk,
        "--disk-iops",
        "1000",
    ];
    let ada = Busy::start(&cli, "ada", &flags);
    let get = json(&cli.run(&["limits", "get", "ada", "--json"]));
    assert_eq!(get["net"]["net_max_rate"], 10_000);
    assert_eq!(get["net"]["net_max_kbyte"], 10 << 20);
    assert_eq!(get["net"]["net_rx_max_rate"], "none");
    assert_eq!(get["disk"]["disk_iops"], 1000);
    assert_eq!(get["disk"]["disk_rate"], "none");

    let set = ada.set(&[
        "--net-max-rate",
        "512kbit",
        "--net-burst",
        "64K",
        "--net-exempt",
        "192.0.2.0/24,2001:db8::/32",
        "--disk-rate",
        "50M",
        "--disk-iops",
        "none",
        "--cpu-cap",
        "50",
    ]);
    assert_eq!(set["net"]["net_max_rate"], 512);
    assert_eq!(set["net"]["net_exempt"][1], "2001:db8::/32");
    assert_eq!(set["disk"]["disk_rate"], 50 << 10);
    assert_eq!(set["cpu"]["cpu_cap"], 50);
    let shown = text(&cli.run(&["limits", "get", "ada"]).stdout);
    for line in [
        "net max rate          512 kbit/s\n",
        "net burst             64 KiB\n",
        "net allowance         10 GiB a day, spread from 9 GiB on\n",
        "net exempt            192.0.2.0/24, 2001:db8::/32\n",
        "disk rate             50 MiB/s\n",
        "disk requests         none\n",
        "cpu cap               50 %\n",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }

    let wrong = [
        "limits",
        "set",
        "ada",
        "--net-max-rate",
        "0",
        "--net-exempt",
        "192.0.2.0/33",
        "--disk-rate",
        "0",
        "--cpu-cap",
        "none",
    ];
    let output = cli.run(&wrong);
    assert_code(&output, 2);
    let told = text(&output.stderr);
    for word in [
        "--net-max-rate (kbit/s): is 0, allowed are 1 to",
        "--net-exempt: \"192.0.2.0/33\"",
        "--disk-rate (KiB/s): is 0",
    ] {
        assert!(told.contains(word), "{word}: {told}");
    }
    let after = json(&cli.run(&["limits", "get", "ada", "--json"]));
    assert_eq!(after, set);
}

#[test]
fn limits_of_what_a_sliver_does_not_have_are_refused() {
    needs_kvm!();
    let cli = Cli::set_up();
    let _ada = Busy::start(&cli, "ada", &[]);
    let output = cli.run(&[
        "limits",
        "set",
        "ada",
        "--net-share",
        "2",
        "--disk-iops",
        "5",
    ]);
    assert_code(&output, 2);
    let told = text(&output.stderr);
    for word in ["the sliver has no network card", "the sliver has no disk"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    let get = json(&cli.run(&["limits", "get", "ada", "--json"]));
    assert_eq!((&get["net"], &get["disk"]), (&Value::Null, &Value::Null));
    for (flag, wrong) in [("--net-max-rate", "10MB"), ("--disk-rate", "fast")] {
        let output = cli.run(&["run", "hello", flag, wrong]);
        assert_code(&output, 2);
        let told = text(&output.stderr);
        assert!(told.contains(flag) && told.contains(wrong), "{told}");
    }
}

#[test]
fn a_sliver_is_held_to_its_cap_until_that_is_lifted() {
    needs_kvm!();
    let cli = Cli::set_up();
    let ada = Busy::start(&cli, "ada", &["--cpu-cap", "5", "--no-backstop"]);
    until("it is held back", || {
        (ada.cpu()["throttled_periods"].as_u64() > Some(20)).then_some(())
    });
    let cpu = ada.cpu();
    let (consumed, periods) = (cpu["consumed_us"].as_u64(), cpu["periods"].as_u64());
    // Half a millisecond in each period, with room for one that has just begun.
    let most = (periods.expect("a number") + 3) * 500 * 2;
    assert!(consumed.is_some_and(|consumed| consumed < most), "{cpu:#}");
    ada.set(&["--cpu-cap", "none"]);
    let before = ada.cpu();
    until("it has used more than its cap ever allowed", || {
        let more = ada.cpu()["consumed_us"].as_u64()? - before["consumed_us"].as_u64()?;
        (more > 200_000).then_some(())
    });
    assert_eq!(ada.cpu()["throttled_periods"], before["throttled_periods"]);
}

#[test]
fn quotas_that_cannot_be_are_refused_with_those_that_can() {
    needs_kvm!();
    let cli = Cli::set_up();
    let _ada = Busy::start(&cli, "ada", &["--cpu-pct", "40"]);
    let refused = |args: &[&str], code: i32, words: &[&str]| {
        let output = cli.run(args);
        assert_code(&output, code);
        let told = text(&output.stderr);
        for word in words {
            assert!(told.contains(word), "{args:?}: {word:?} is not in {told:?}");
        }
    };
    let bounds = [
        "--cpu-cap",
        "0.1 to 100 in steps of 0.1",
        "--cpu-share",
        "1 to 10000",
    ];
    for cap in ["0", "0.05", "100.1", "-5"] {
        let quotas = ["--cpu-cap", cap, "--cpu-share", "0"];
        refused(
            &[&["limits", "set", "ada"], &quotas[..]].concat(),
            2,
            &bounds,
        );
        refused(&[&["run", "hello"], &quotas[..]].concat(), 2, &bounds);
    }
    refused(
        &["limits", "set", "ada", "--cpu-burst", "much"],
        2,
        &["--cpu-burst", "\"much\""],
    );
    refused(&["limits", "set", "ada"], 2, &["nothing"]);
    refused(
        &["limits", "set", "nobody", "--cpu-cap", "5"],
        1,
        &["there are: ada"],
    );
    refused(&["limits", "get", "nobody"], 1, &["there are: ada"]);
    // More than its one vCPU can use of two processors or more, and more than ada has left.
    let most = ["cpu_pct", "1 vCPU"];
    if slicectl::host::processors() > 1 {
        refused(&["limits", "set", "ada", "--cpu-pct", "90"], 1, &most);
        refused(
            &["run", "hello", "--cpu-pct", "90"],
            2,
            &["--cpu-pct", "1 vCPU"],
        );
    }
    let many = slicectl::host::processors().to_string();
    refused(
        &[
            "run",
            "hello",
            "--name",
            "eve",
            "--vcpus",
            &many,
            "--cpu-pct",
            "70",
        ],
        125,
        &["60"],
    );
    // In a ledger of its own there is room for it.
    let ledger = cli.place.path().join("another");
    let ledger = ledger.to_str().expect("UTF-8");
    let args = [
        "run",
        "hello",
        "--vcpus",
        &many,
        "--cpu-pct",
        "70",
        "--ledger",
        ledger,
    ];
    assert_code(&cli.run(&args), 0);
}

#[test]
fn top_tells_what_each_sliver_uses_and_is_not_held_up_by_one_that_hangs() {
    needs_kvm!();
    let cli = Cli::set_up();
    let ada = Busy::start(&cli, "ada", &["--cpu-cap", "30", "--cpu-share", "2"]);
    let _bob = Busy::start(&cli, "bob", &["--slice", "site_of.bob"]);
    let output = cli.run(&["top", "--once", "--json", "--sort", "name"]);
    assert_code(&output, 0);
    let rows = json(&output)["slivers"].clone();
    assert_eq!(
        (&rows[0]["name"], &rows[1]["name"]),
        (&"ada".into(), &"bob".into())
    );
    assert_eq!(
        (&rows[0]["cpu_cap"], &rows[1]["cpu_cap"]),
        (&30.0.into(), &Value::Null)
    );
    assert_eq!(rows[1]["slice"], "site_of.bob");
    for figure in ["cpu_percent", "throttled_percent", "memory_resident_kib"] {
        assert!(rows[0][figure].as_f64() > Some(0.0), "{figure}: {rows:#}");
    }
    let only = json(&cli.run(&["top", "--once", "--json", "bob"]))["slivers"].clone();
    assert_eq!(
        (only.as_array().map(Vec::len), &only[0]["name"]),
        (Some(1), &"bob".into())
    );

    let pid = Pid::from_raw(ada.pid() as i32).expect("a process");
    kill_process(pid, Signal::STOP).expect("it is there");
    let output = cli.run(&["top", "--once", "--sort", "state"]);
    kill_process(pid, Signal::CONT).expect("it is there");
    assert_code(&output, 1);
    let shown = text(&output.stdout);
    assert!(!shown.contains('\x1b'), "{shown:?}");
    let lines: Vec<&str> = shown.lines().collect();
    assert!(
        lines[2].starts_with("bob") && lines[2].contains("running"),
        "{shown}"
    );
    assert!(
        lines[3].starts_with("ada") && lines[3].contains("silent"),
        "{shown}"
    );
}

#[test]
fn top_follows_slivers_that_come_and_go() {
    needs_kvm!();
    let cli = Cli::set_up();
    let mut top = cli.spawn(&["top", "--json", "--interval", "100ms"]);
    let stdout = top.stdout.take().expect("a pipe");
    let mut views = serde_json::Deserializer::from_reader(stdout).into_iter::<Value>();
    let mut wait_for = |count: usize| {
        until("top shows them", || {
            let view = views.next()?.expect("JSON");
            (view["slivers"].as_array().map(Vec::len) == Some(count)).then_some(())
        });
    };
    wait_for(0);
    let ada = Busy::start(&cli, "ada", &[]);
    wait_for(1);
    drop(ada);
    wait_for(0);
    top.kill().expect("it runs");
    top.wait().expect("it has ended");
}

/// The group of a process, if this host lets groups be made.
fn group(pid: u32) -> Option<PathBuf> {
    if !matches!(offer(), Offer::Usable(_)) {
        eprintln!("left out: no control groups can be made here");
        return None;
    }
    Hierarchy::of_host()?.group_of(pid)
}

fn is_ours(group: &Path) -> bool {
    let parent = group.parent().and_then(Path::file_name);
    parent.is_some_and(|parent| parent == "slicevisor")
}

#[test]
fn a_control_group_follows_the_quotas_and_goes_with_the_sliver() {
    needs_kvm!();
    let cli = Cli::set_up();
    let name = format!("fenced-{}", std::process::id());
    let mut ada = Busy::start(&cli, &name, &["--cpu-cap", "40"]);
    if group(ada.pid()).is_none() {
        return;
    }
    let dir = until("it has a group", || {
        group(ada.pid()).filter(|dir| is_ours(dir))
    });
    let quota = || {
        let file = |name: &str| fs::read_to_string(dir.join(name)).ok();
        let quota = file("cpu.max").or_else(|| file("cpu.cfs_quota_us"));
        quota
            .expect("a quota")
            .split_whitespace()
            .next()
            .map(str::to_owned)
    };
    assert_eq!(quota().as_deref(), Some("50000"));
    ada.set(&["--cpu-cap", "80"]);
    assert_eq!(quota().as_deref(), Some("100000"));
    assert_code(&cli.run(&["stop", &name]), 0);
    until("slicectl ends", || ada.child.try_wait().expect("a child"));
    assert!(!dir.exists());
}

#[test]
fn what_a_killed_slicectl_leaves_of_groups_the_next_removes() {
    needs_kvm!();
    let cli = Cli::set_up();
    let name = format!("orphan-{}", std::process::id());
    let mut ada = Busy::start(&cli, &name, &[]);
    let pid = ada.pid();
    if group(pid).is_none() {
        return;
    }
    let dir = until("it has a group", || group(pid).filter(|dir| is_ours(dir)));
    ada.child.kill().expect("it runs");
    until("the monitor is gone", || {
        cli.monitors().is_empty().then_some(())
    });
    let next = Busy::start(&cli, "next", &[]);
    until("the group is swept away", || (!dir.exists()).then_some(()));
    drop(next);
}

#[test]
fn without_a_backstop_a_sliver_stays_where_it_was_started() {
    needs_kvm!();
    let cli = Cli::set_up();
    let ada = Busy::start(&cli, "ada", &["--no-backstop", "--cpu-cap", "50"]);
    // Longer than it takes to put one up.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let dir = group(ada.pid());
    assert!(dir.is_none_or(|dir| !is_ours(&dir)));
    ada.set(&["--cpu-cap", "60"]);
}
