//! A `slicectl` whose monitor is a stand-in: it holds what it was given until its tie ends.

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

/// Waits until nobody holds the other end of the tie, descriptor 3. What was sent to it, it leaves where
/// it is, and with it all that it was given.
const STAND_IN: &[u8] = &[
    0x48, 0xb8, 3, 0, 0, 0, 0, 0x20, 0, 0,    // mov rax, { fd: 3, events: POLLRDHUP }
    0x50, // push rax
    0x48, 0x89, 0xe7, // mov rdi, rsp
    0x6a, 1, 0x5e, // push 1; pop rsi
    0x6a, 0xff, 0x5a, // push -1; pop rdx: for ever
    0x6a, 7, 0x58, // push 7; pop rax: poll
    0x0f, 0x05, // syscall
    0x31, 0xff, // xor edi, edi
    0x6a, 60, 0x58, // push 60; pop rax: exit
    0x0f, 0x05, // syscall
];

/// These instructions as a program that needs nothing of the file system.
fn program(code: &[u8]) -> Vec<u8> {
    const AT: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // An executable for x86-64.
    file.extend([2u8, 0, 62, 0, 1, 0, 0, 0]);
    for word in [AT + HEADERS, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    for half in [0u16, 0, 64, 56, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // One segment to be loaded: the whole file, to be read and executed.
    file.extend([1u8, 0, 0, 0, 5, 0, 0, 0]);
    let len = HEADERS + code.len() as u64;
    for word in [0, AT, AT, len, len, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}

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
        fs::write(&monitor, program(STAND_IN)).unwrap();
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
