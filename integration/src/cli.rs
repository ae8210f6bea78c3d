//! `slicectl` from outside, with a run directory of its own.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use slicectl::rundir;
use tempfile::TempDir;

use crate::artifacts;
use crate::sliver::until;

/// A `slicectl` with a run directory of its own.
#[derive(Debug)]
pub struct Cli {
    /// The directory of everything it makes.
    pub place: TempDir,
}

impl Cli {
    /// With nothing in it; what it runs is built.
    pub fn set_up() -> Self {
        // Built before, so that no test waits for it inside slicectl.
        artifacts::slicevmm();
        artifacts::image("hello");
        Self {
            // In memory, where its slivers can share a ledger.
            place: TempDir::with_prefix_in("slicevisor-test-", "/dev/shm")
                .expect("a directory is made"),
        }
    }

    /// `slicectl` with these arguments, and nothing to read. No signal is ignored, as at a terminal:
    /// tests that run in the background inherit otherwise from their shell.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("env");
        command
            .arg("--default-signal")
            .arg(artifacts::slicectl())
            .args(args)
            .current_dir(artifacts::workspace())
            .env("SLICEVISOR_RUN_DIR", self.place.path().join("run"))
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        let mut command = self.command(args);
        command.output().expect("slicectl starts")
    }

    /// Starts it, its output in pipes.
    pub fn spawn(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("slicectl starts")
    }

    /// Process ids of the monitors that run in this place.
    pub fn monitors(&self) -> Vec<String> {
        let place = self.place.path().to_str().expect("a test's path is UTF-8");
        let processes = fs::read_dir("/proc").expect("proc is mounted");
        let is_monitor = |process: &Path| {
            let line = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
            line.contains("slicevmm") && line.contains(place)
        };
        processes
            .flatten()
            .filter(|entry| is_monitor(&entry.path()))
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// Nothing is left of any sliver but the ledger that all of them share.
    pub fn assert_no_trace(&self) {
        until("the monitor is gone", || {
            self.monitors().is_empty().then_some(())
        });
        if let Ok(left) = fs::read_dir(self.place.path().join("run")) {
            let names = left.flatten().map(|entry| entry.file_name());
            let names: Vec<_> = names.filter(|name| name != rundir::LEDGER).collect();
            assert!(names.is_empty(), "{names:?}");
        }
    }
}

/// What was printed.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// It ended with this code.
#[track_caller]
pub fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
}

/// The JSON object that ends stdout.
#[track_caller]
pub fn json(output: &Output) -> Value {
    let stdout = text(&output.stdout);
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout:?}"))
}
