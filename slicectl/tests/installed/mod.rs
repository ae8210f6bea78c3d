//! A `slicectl` whose monitor is a stand-in: a shell that holds what it was given until its tie ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Weak};

/// slicectl as it would be installed, with a stand-in for the monitor. One for all tests that run
/// at the same time: a file cannot be started while it is open for writing, be it by a process
/// that another test is about to start.
pub(crate) struct Installed {
    dir: tempfile::TempDir,
}

/// Waits on the descriptor behind `--tie`, holding all others.
const STAND_IN: &str = "#!/bin/bash
while [ $# -gt 0 ]; do
    [ \"$1\" = --tie ] && tie=$2
    shift
done
exec cat <&\"$tie\" >/dev/null
";

impl Installed {
    /// The one of this process.
    pub(crate) fn get() -> Arc<Self> {
        static INSTALLED: Mutex<Weak<Installed>> = Mutex::new(Weak::new());
        let mut installed = INSTALLED.lock().unwrap();
        installed.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Self::new());
            *installed = Arc::downgrade(&new);
            new
        })
    }

    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for part in ["bin", "libexec/slicevisor", "run"] {
            fs::create_dir_all(dir.path().join(part)).unwrap();
        }
        let installed = Self { dir };
        fs::hard_link(
            env!("CARGO_BIN_EXE_slicectl"),
            installed.path("bin/slicectl"),
        )
        .unwrap();
        let monitor = installed.path("libexec/slicevisor/slicevmm");
        fs::write(&monitor, STAND_IN).unwrap();
        fs::set_permissions(&monitor, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(installed.path("image"), "never looked at").unwrap();
        installed
    }

    /// A path in the directory of all of it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `slicectl run ./image` with these flags.
    pub(crate) fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(self.path("bin/slicectl"));
        command
            .current_dir(self.dir.path())
            // It would find this source tree by it.
            .env_remove("CARGO_MANIFEST_DIR")
            .env("SLICEVISOR_RUN_DIR", self.path("run"))
            .args(["run", "./image"])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }
}
