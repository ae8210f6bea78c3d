//! `slicectl run` with monitors that do not behave: scripts installed in place of the real one.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use integration::{artifacts, needs_kvm};
use rustix::process::{Pid, Signal, kill_process};
use vmm::control::proto::{Notice, encode_frame};
use vmm::exit::{EXIT_RECORD_VERSION, Exit, ExitRecord};

/// An installation of its own, whose monitor is a script.
struct Installed {
    dir: tempfile::TempDir,
}

impl Installed {
    /// `script` finds the tie's descriptor in `$tie` and the frames to send in files beside it:
    /// `started`, and `ended` for an end with status 7.
    fn new(script: &str) -> Self {
        let installed = Self {
            dir: tempfile::tempdir().expect("a directory"),
        };
        let bin = installed.path("bin");
        fs::create_dir(&bin).expect("made");
        fs::copy(artifacts::slicectl(), bin.join("slicectl")).expect("copied");
        let head = "#!/bin/sh\n\
                    here=$(dirname \"$0\")\n\
                    while [ $# -gt 0 ]; do [ \"$1\" = --tie ] && tie=$2; shift; done\n\
                    say() { cat \"$here/$1\" >&$tie; }\n";
        let monitor = bin.join("slicevmm");
        fs::write(&monitor, format!("{head}{script}\n")).expect("written");
        fs::set_permissions(&monitor, fs::Permissions::from_mode(0o755)).expect("set");
        let control = installed.path("nobody-listens-here").display().to_string();
        let ended = ExitRecord {
            version: EXIT_RECORD_VERSION,
            name: "made-up".to_owned(),
            slice: "local_made_up".to_owned(),
            exit: Exit::exited(7),
            timing_us: Default::default(),
            cpu_us: Default::default(),
            memory_kib: Default::default(),
            ignored_accesses: 0,
            devices: Vec::new(),
            exits: Default::default(),
            cpu: Default::default(),
        };
        for (name, notice) in [
            ("started", Notice::Started { control }),
            ("ended", Notice::Ended(Box::new(ended))),
        ] {
            fs::write(bin.join(name), encode_frame(&notice).expect("fits")).expect("written");
        }
        fs::write(installed.path("image"), "").expect("written");
        installed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self, flags: &[&str]) -> Child {
        Command::new(self.path("bin/slicectl"))
            .arg("run")
            .arg(self.path("image"))
            .args(flags)
            .env_remove("CARGO_MANIFEST_DIR")
            .env("SLICEVISOR_RUN_DIR", self.path("run"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started")
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
    let output = Installed::new("say started; echo console; say ended; exit 7").run(&[]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "console\n");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn with_json_stdout_holds_the_record_and_nothing_else() {
    needs_kvm!();
    let output = Installed::new("say started; echo console; say ended").run(&["--json"]);
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
    let output = Installed::new("say started; kill -KILL $$").run(&["--json"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        text(&output.stderr).contains("SIGKILL"),
        "{}",
        text(&output.stderr)
    );
    let record: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(record["exit"]["kind"], "error");
    let output = Installed::new("exit 3").run(&[]);
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
    let script = "for fd in 8 9; do [ -e /proc/$$/fd/$fd ] && echo $fd; done; say ended";
    let installed = Installed::new(script);
    let command = "exec 8</dev/null 9</dev/zero; exec \"$@\"";
    let output = Command::new("sh")
        .args(["-c", command, "sh"])
        .arg(installed.path("bin/slicectl"))
        .arg("run")
        .arg(installed.path("image"))
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
    let script = "printf '\\377\\377\\377\\377nonsense' >&$tie; exec sleep 60";
    let output = Installed::new(script).run(&[]);
    assert_eq!(output.status.code(), Some(125));
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_monitor_that_does_not_stop_is_killed() {
    needs_kvm!();
    let installed = Installed::new("trap '' TERM; say started; echo up; while :; do sleep 1; done");
    let mut slicectl = installed.start(&[]);
    let mut stdout = slicectl.stdout.take().expect("piped");
    let mut up = [0; 3];
    std::io::Read::read_exact(&mut stdout, &mut up).expect("the script is up");
    kill_process(Pid::from_child(&slicectl), Signal::TERM).expect("sent");
    let began = Instant::now();
    let status = slicectl.wait().expect("ended");
    assert_eq!(status.code(), Some(143));
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_time_limit_that_the_monitor_forgets_is_kept_by_slicectl() {
    needs_kvm!();
    let output = Installed::new("say started; exec sleep 60").run(&["--for", "1ms"]);
    assert_eq!(output.status.code(), Some(124), "{}", text(&output.stderr));
}

#[test]
fn wrong_flags_are_all_told_and_leave_no_trace() {
    let installed = Installed::new("echo started");
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
    let installed = Installed::new("say ended");
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
