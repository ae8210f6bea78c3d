//! The monitor as a child process: starting it and hearing from it.
#![allow(unsafe_code, reason = "marks inherited descriptors by their numbers")]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use rustix::time::{ClockId, clock_gettime};
use vmm::control::proto::{Notice, read_frame};

use crate::signals::signal_name;

/// How long the rest of a notice may take once it has begun.
const PATIENCE: Duration = Duration::from_secs(2);

/// A running monitor. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct Monitor {
    child: Child,
    pidfd: OwnedFd,
    tie: UnixStream,
}

/// What to start it with.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    /// The program.
    pub(super) program: &'a Path,
    /// The spec, as JSON.
    pub(super) spec: &'a str,
    /// The directory of all slivers.
    pub(super) run_dir: &'a Path,
    /// The ledger through which it shares the processors.
    pub(super) ledger: Option<&'a Path>,
    /// Where to write a core file.
    pub(super) core: Option<BorrowedFd<'a>>,
    /// Taps made for the sliver, each with the index of its card.
    pub(super) taps: Vec<(usize, BorrowedFd<'a>)>,
    /// Where the guest's console goes.
    pub(super) console: ConsoleOutput<'a>,
    /// Where its input comes from.
    pub(super) input: ConsoleInput<'a>,
}

/// Where the input of a guest's console comes from.
#[derive(Debug)]
pub(super) enum ConsoleInput<'a> {
    /// From this process's standard input.
    Stdin,
    /// From a pipe.
    Pipe(BorrowedFd<'a>),
    /// From nowhere.
    Nowhere,
}

impl ConsoleInput<'_> {
    fn stdio(&self) -> io::Result<Stdio> {
        Ok(match self {
            Self::Stdin => Stdio::inherit(),
            Self::Pipe(pipe) => pipe.try_clone_to_owned()?.into(),
            Self::Nowhere => Stdio::null(),
        })
    }
}

/// Where the output of a guest's console goes.
#[derive(Debug)]
pub(super) enum ConsoleOutput<'a> {
    /// To standard output.
    Stdout,
    /// To standard error.
    Stderr,
    /// To a pipe.
    Pipe(BorrowedFd<'a>),
    /// Nowhere.
    Nowhere,
}

impl ConsoleOutput<'_> {
    fn stdio(&self) -> io::Result<Stdio> {
        Ok(match self {
            Self::Stdout => Stdio::inherit(),
            Self::Stderr => io::stderr().as_fd().try_clone_to_owned()?.into(),
            Self::Pipe(pipe) => pipe.try_clone_to_owned()?.into(),
            Self::Nowhere => Stdio::null(),
        })
    }
}

impl Monitor {
    /// Starts the monitor.
    pub(super) fn start(launch: &Launch) -> io::Result<Self> {
        let (tie, far_end) = UnixStream::pair()?;
        let spec = memfd_create("slice-spec", MemfdFlags::CLOEXEC)?;
        File::from(spec.try_clone()?).write_all(launch.spec.as_bytes())?;
        rustix::fs::seek(&spec, rustix::fs::SeekFrom::Start(0))?;

        keep_from_children();
        // Inherited under their own numbers: nothing else is started while they are open to it.
        let inherited = |fd: BorrowedFd| fcntl_setfd(fd, FdFlags::empty());
        inherited(far_end.as_fd())?;
        inherited(spec.as_fd())?;
        let mut command = Command::new(launch.program);
        command
            .arg("--spec")
            .arg(format!("/dev/fd/{}", spec.as_raw_fd()))
            .arg("--run-dir")
            .arg(launch.run_dir)
            .arg("--tie")
            .arg(far_end.as_raw_fd().to_string());
        if let Some(ledger) = launch.ledger {
            command.arg("--ledger").arg(ledger);
        }
        if let Some(core) = launch.core {
            inherited(core)?;
            command.arg("--core-fd").arg(core.as_raw_fd().to_string());
        }
        for (index, tap) in &launch.taps {
            inherited(*tap)?;
            let tap = format!("{index}={}", tap.as_raw_fd());
            command.arg("--net-fd").arg(tap);
        }
        command.stdout(launch.console.stdio()?);
        command.stdin(launch.input.stdio()?);
        let now = clock_gettime(ClockId::Monotonic);
        let now = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        let mut child = command.arg("--spawned-at").arg(now.to_string()).spawn()?;
        if let Some(core) = launch.core {
            fcntl_setfd(core, FdFlags::CLOEXEC)?;
        }
        let pidfd = match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error.into());
            }
        };
        tie.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { child, pidfd, tie })
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Readable when there is a notice, or when the monitor has closed its end.
    pub(super) fn tie(&self) -> BorrowedFd<'_> {
        self.tie.as_fd()
    }

    /// Readable when the process has ended.
    pub(super) fn process(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The next notice; `None` when there will be no more, for whatever reason.
    pub(super) fn notice(&mut self) -> Option<Notice> {
        read_frame(&self.tie).ok().flatten()
    }

    /// Asks the process to end, as somebody who only knows its number would.
    pub(super) fn terminate(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::TERM);
    }

    /// Ends the process.
    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// Waits for the end of the process.
    pub(super) fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // Does nothing to a child that was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps the monitor from inheriting what this process was started with beside the standard three:
/// a sliver's process has no business with a script's open files.
fn keep_from_children() {
    let flags = libc::CLOSE_RANGE_CLOEXEC as libc::c_int;
    // A kernel before 5.11 refuses, and they stay as they are.
    // SAFETY: closes nothing and touches no memory; sets a flag that nothing here relies on being
    // unset.
    let _ = unsafe { libc::close_range(3, libc::c_uint::MAX, flags) };
}

/// How a process ended, in words.
pub(super) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it exited with code {code}"),
        (None, Some(libc::SIGKILL)) => "it was killed by SIGKILL; if nobody did that, the kernel \
                                        was out of memory: see sudo dmesg"
            .to_owned(),
        (None, Some(signal)) => format!("it was killed by {}", signal_name(signal)),
        (None, None) => "it ended in an unknown way".to_owned(),
    }
}
