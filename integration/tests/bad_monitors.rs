//! `slicectl run` with monitors that do not behave, installed in place of the real one.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use integration::{artifacts, needs_kvm};
use rustix::process::{Pid, Signal, kill_process};

/// An installation of its own, whose monitor does as it is told.
struct Installed {
    dir: tempfile::TempDir,
    deeds: Vec<&'static str>,
}

impl Installed {
    /// Its monitor does these deeds, which `bad-monitor` knows, one after the other.
    fn new(deeds: &[&'static str]) -> Self {
        let installed = Self {
            dir: tempfile::tempdir().expect("a directory"),
            deeds: deeds.to_vec(),
        };
        let bin = installed.path("bin");
        fs::create_dir(&bin).expect("made");
        fs::copy(artifacts::slicectl(), bin.join("slicectl")).expect("copied");
        fs::copy(env!("CARGO_BIN_EXE_bad-monitor"), bin.join("slicevmm")).expect("copied");
        fs::write(installed.path("image"), "").expect("written");
        installed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(self.path("bin/slicectl"));
        command
            .arg("run")
            .args(flags)
            .arg(self.path("image"))
            .arg("--")
            .args(&self.deeds)
            .env_remove("CARGO_MANIFEST_DIR")
            .env("SLICEVISOR_RUN_DIR", self.path("run"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn start(&self, flags: &[&str]) -> Child {
        self.command(flags).spawn().expect("started")
    }

    fn run(&self, flags: &[&str]) -> Output {
        self.start(flags).wait_with_output().expect("ended")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_recorded_status_is_passed_on_and_the_console_is_not_touched() {
    needs_kvm!();
    let output = Installed::new(&["started", "print=console", "ended", "exit=7"]).run(&[]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "console\n");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn with_json_stdout_holds_the_record_and_nothing_else() {
    needs_kvm!();
    let output = Installed::new(&["started", "print=console", "ended"]).run(&["--json"]);
    let record: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(record["exit"]["kind"], "exited");
    assert_eq!(record["exit"]["status"], 7);
    for part in ["timing_us", "cpu_us", "memory_kib"] {
        assert!(record[part].is_object(), "{record}");
    }
    assert_eq!(text(&output.stderr), "console\n");
}

#[test]
fn a_monitor_that_dies_is_told_with_how_it_died() {
    needs_kvm!();
    let output = Installed::new(&["started", "abort"]).run(&["--json"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        text(&output.stderr).contains("it was killed by SIG"),
        "{}",
        text(&output.stderr)
    );
    let record: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(record["exit"]["kind"], "error");
    let output = Installed::new(&["exit=3"]).run(&[]);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        text(&output.stderr).contains("exited with code 3"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn what_slicectl_was_started_with_is_not_the_monitors() {
    needs_kvm!();
    let installed = Installed::new(&["inherited", "ended", "exit=7"]);
    let opener = "exec 8</dev/null 9</dev/zero; exec \"$@\"";
    let slicectl = installed.command(&[]);
    let output = Command::new("sh")
        .args(["-c", opener, "sh"])
        .arg(slicectl.get_program())
        .args(slicectl.get_args())
        .env_remove("CARGO_MANIFEST_DIR")
        .env("SLICEVISOR_RUN_DIR", installed.path("run"))
        .output()
        .expect("started");
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn nonsense_on_the_tie_is_an_error_and_no_wait() {
    needs_kvm!();
    let began = Instant::now();
    let output = Installed::new(&["nonsense", "sleep"]).run(&[]);
    assert_eq!(output.status.code(), Some(125));
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_monitor_that_does_not_stop_is_killed() {
    needs_kvm!();
    let installed = Installed::new(&["started", "print=up", "sleep"]);
    let mut slicectl = installed.start(&[]);
    let mut stdout = slicectl.stdout.take().expect("piped");
    let mut up = [0; 3];
    std::io::Read::read_exact(&mut stdout, &mut up).expect("it is up");
    kill_process(Pid::from_child(&slicectl), Signal::TERM).expect("sent");
    let began = Instant::now();
    let status = slicectl.wait().expect("ended");
    assert_eq!(status.code(), Some(143));
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_time_limit_that_the_monitor_forgets_is_kept_by_slicectl() {
    needs_kvm!();
    let output = Installed::new(&["started", "sleep"]).run(&["--for", "1ms"]);
    assert_eq!(output.status.code(), Some(124), "{}", text(&output.stderr));
}

#[test]
fn wrong_flags_are_all_told_and_leave_no_trace() {
    let installed = Installed::new(&["print=started"]);
    let output = installed.run(&["--mem", "64", "--vcpus", "0", "--for", "never", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    for flag in ["--mem: ", "--vcpus: ", "--for: "] {
        assert!(told.contains(flag), "{told}");
    }
    let record: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&record["exit"]["kind"], &record["exit"]["status"]),
        (&"error".into(), &2.into())
    );
    assert!(!installed.path("run").exists());
}

#[test]
fn a_signal_during_a_build_ends_cargo_too() {
    needs_kvm!();
    let installed = Installed::new(&["ended"]);
    // What makes the directory look like a source tree.
    for file in ["guest-shim/abi/Cargo.toml", "guest-shim/examples/slow.rs"] {
        let file = installed.path(file);
        fs::create_dir_all(file.parent().expect("a parent")).expect("made");
        fs::write(file, "").expect("written");
    }
    fs::create_dir(installed.path("vmm")).expect("made");
    let cargo = installed.path("cargo");
    fs::write(&cargo, "#!/bin/sh\necho $$ >&2\nexec sleep 60\n").expect("written");
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).expect("set");
    let mut slicectl = Command::new(installed.path("bin/slicectl"))
        .args(["run", "slow", "--json"])
        .env("CARGO", cargo)
        .env("SLICEVISOR_RUN_DIR", installed.path("run"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut pid = String::new();
    let mut said = BufReader::new(slicectl.stderr.take().expect("piped"));
    said.read_line(&mut pid).expect("the script is up");
    kill_process(Pid::from_child(&slicectl), Signal::TERM).expect("sent");
    let output = slicectl.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(143));
    assert!(!Path::new("/proc").join(pid.trim()).exists());
    let record: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(record["exit"]["kind"], "stopped");
}
