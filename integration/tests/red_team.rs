//! What a monitor that somebody has taken over can do: nothing of this. Each row is an attempt that a
//! program makes in the place of the monitor, in its jail, after it has taken over all that a sliver
//! has.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Output};

use integration::cli::text;
use integration::{artifacts, needs_kvm};

const ATTEMPTS: &[&str] = &[
    "open a file of the host",
    "open what is above the root",
    "open a directory of the host by the lock",
    "open itself",
    "open KVM again",
    "list the root",
    "make a file",
    "make a directory",
    "make a device",
    "mount",
    "make the root writable",
    "change the root",
    "make a user namespace",
    "make a mount namespace",
    "make a network namespace",
    "make a process namespace",
    "become root",
    "become its user's group again",
    "signal all others",
    "signal who started it",
    "signal any process by its number",
    "trace any process",
    "read the memory of any process",
    "be traced by nobody's leave",
    "reach a service of the host",
    "reach the network",
    "send packets of any kind",
    "connect to an abstract socket of the host",
    "connect to a socket of the host by its path",
    "rename the host",
    "set the clock",
    "have a processor to itself",
    "load a module",
    "write into the ledger",
    "map the ledger to write",
    "make a disk larger",
    "take all descriptors",
    "take all processes",
    "take all memory",
    "take more of any limit",
];

/// An installation whose monitor is the red team's.
struct Installed {
    dir: tempfile::TempDir,
}

impl Installed {
    fn new() -> Self {
        let installed = Self {
            // In memory, for the ledger.
            dir: tempfile::tempdir_in("/dev/shm").expect("a directory"),
        };
        let path = |name| installed.dir.path().join(name);
        fs::create_dir(path("bin")).expect("made");
        fs::copy(artifacts::slicectl(), path("bin/slicectl")).expect("copied");
        fs::copy(env!("CARGO_BIN_EXE_red-team"), path("bin/slicevmm")).expect("copied");
        fs::write(path("image"), "").expect("written");
        fs::write(path("disk"), [0; 4096]).expect("written");
        installed
    }

    fn attempt(&self, name: &str) -> Output {
        let path = |name| self.dir.path().join(name);
        let mut command = Command::new(path("bin/slicectl"));
        command
            .args(["run", "--disk"])
            .arg(path("disk"))
            .arg(path("image"))
            .args(["--", name])
            .env_remove("CARGO_MANIFEST_DIR")
            .env("SLICEVISOR_RUN_DIR", path("run"));
        command.output().expect("slicectl starts")
    }
}

#[test]
fn everything_that_a_taken_over_monitor_tries_is_blocked() {
    needs_kvm!();
    let installed = Installed::new();
    let address = SocketAddr::from_abstract_name("slicevisor-red-team").expect("a name");
    let _listener = UnixListener::bind_addr(&address).expect("bound");
    let mut open = Vec::new();
    for attempt in ATTEMPTS {
        let output = installed.attempt(attempt);
        let came_of_it = text(&output.stdout);
        println!("{attempt:45} {}", came_of_it.trim());
        if !came_of_it.starts_with("blocked: ") {
            open.push(format!("{attempt}: {came_of_it}{}", text(&output.stderr)));
        }
    }
    assert!(open.is_empty(), "{open:#?}");
}
