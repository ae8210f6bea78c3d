//! One run of a process, measured from outside: its wall time, its processor time, when its first
//! byte came, and what it said.
//!
//! Every process of every metric goes through here, so that what the harness adds is the same for
//! all of them.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use integration::sliver::monotonic_ns;
use vmm::launch::Launched;

/// No run of a benchmark takes this long, in nanoseconds; a hang ends the benchmark.
const PATIENCE_NS: u64 = 120_000_000_000;

/// A started process.
#[derive(Debug)]
pub(crate) struct Started {
    process: Process,
    /// `None` if nobody wants to know what it says.
    stdout: Option<File>,
    stderr: File,
    since: u64,
}

/// What was started.
#[derive(Debug)]
enum Process {
    Program(Child),
    Monitor(Box<Launched>),
}

impl Process {
    fn pid(&self) -> u32 {
        match self {
            Self::Program(child) => child.id(),
            Self::Monitor(monitor) => monitor.pid(),
        }
    }

    fn as_pid(&self) -> Result<Pid> {
        Pid::from_raw(self.pid() as i32).context("a process has a number")
    }

    /// Waits for its end: its exit code, or 128 and the signal, and its processor time.
    fn reap(&mut self) -> Result<(i32, u64)> {
        match self {
            Self::Program(child) => reap(Pid::from_child(child)),
            Self::Monitor(monitor) => {
                let ended = monitor.wait()?;
                let signal = ended.status.signal().map(|signal| 128 + signal);
                let code = ended.status.code().or(signal).unwrap_or(-1);
                Ok((code, ended.cpu.as_nanos() as u64))
            }
        }
    }
}

/// What one run was like.
#[derive(Debug)]
pub(crate) struct Run {
    /// CLOCK_MONOTONIC just before the process was made, in nanoseconds.
    pub(crate) since: u64,
    /// From then until it was gone, in nanoseconds.
    pub(crate) wall_ns: u64,
    /// Processor time of the process and its threads, in the kernel and outside, in nanoseconds.
    pub(crate) cpu_ns: u64,
    /// From its start until its first byte on standard output, in nanoseconds.
    pub(crate) first_byte_ns: Option<u64>,
    /// All it wrote to standard output.
    pub(crate) stdout: Vec<u8>,
    /// Its exit code.
    pub(crate) code: i32,
    /// All it wrote to standard error.
    pub(crate) stderr: String,
}

impl Run {
    /// This run, if it ended with `code`.
    pub(crate) fn expect(self, what: &str, code: i32) -> Result<Self> {
        if self.code != code {
            bail!(
                "{what} ended with {} instead of {code}: {}",
                self.code,
                self.stderr.trim()
            );
        }
        Ok(self)
    }
}

/// Starts `command`. `since` is the moment its time counts from: take it with [`monotonic_ns`]
/// just before.
pub(crate) fn start(mut command: Command, since: u64) -> Result<Started> {
    command.stdout(Stdio::piped());
    command.stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    let stderr = child.stderr.take().context("standard error is a pipe")?;
    Ok(Started {
        stdout: child
            .stdout
            .take()
            .map(|stdout| OwnedFd::from(stdout).into()),
        stderr: OwnedFd::from(stderr).into(),
        process: Process::Program(child),
        since,
    })
}

/// What was launched at the moment `since`, with what its guest and its monitor say.
pub(crate) fn launched(
    monitor: Launched,
    stdout: Option<File>,
    stderr: File,
    since: u64,
) -> Started {
    Started {
        process: Process::Monitor(Box::new(monitor)),
        stdout,
        stderr,
        since,
    }
}

/// Runs `command` to its end.
pub(crate) fn run(command: Command, since: u64) -> Result<Run> {
    start(command, since)?.finish()
}

impl Started {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What a launched monitor has to say.
    pub(crate) fn monitor(&mut self) -> Option<&mut Launched> {
        match &mut self.process {
            Process::Program(_) => None,
            Process::Monitor(monitor) => Some(monitor),
        }
    }

    /// Waits until it has written something to standard output, or has closed it.
    pub(crate) fn wait_for_output(&self) -> Result<()> {
        match &self.stdout {
            Some(stdout) => self.ready(stdout.as_fd()),
            None => bail!("nobody reads what process {} writes", self.process.pid()),
        }
    }

    /// Ends it without warning.
    pub(crate) fn kill(self) -> Result<Run> {
        kill_process(self.process.as_pid()?, Signal::KILL)?;
        self.finish()
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Result<Run> {
        self.wait()
    }

    /// The same, and what was started can still be asked what it has left to say.
    pub(crate) fn wait(&mut self) -> Result<Run> {
        let mut stdout = Vec::new();
        let mut first_byte_ns = None;
        let mut chunk = [0; 4096];
        let mut from = self.stdout.take();
        while let Some(from) = &mut from {
            self.ready(from.as_fd())?;
            match from.read(&mut chunk) {
                Ok(0) => break,
                Ok(len) => {
                    first_byte_ns.get_or_insert_with(|| monotonic_ns() - self.since);
                    stdout.extend(&chunk[..len]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("reading standard output"),
            }
        }
        let ended = pidfd_open(self.process.as_pid()?, PidfdFlags::empty())?;
        self.ready(ended.as_fd())?;
        let (code, cpu_ns) = self.process.reap()?;
        let wall_ns = monotonic_ns() - self.since;
        let mut stderr = String::new();
        self.stderr.read_to_string(&mut stderr)?;
        Ok(Run {
            since: self.since,
            wall_ns,
            cpu_ns,
            first_byte_ns,
            stdout,
            code,
            stderr,
        })
    }

    fn ready(&self, fd: impl AsFd) -> Result<()> {
        let left = (self.since + PATIENCE_NS).saturating_sub(monotonic_ns());
        let timeout = Timespec {
            tv_sec: (left / 1_000_000_000) as i64,
            tv_nsec: (left % 1_000_000_000) as i64,
        };
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        if poll(&mut fds, Some(&timeout))? == 0 {
            // Killed first, or it would outlive the benchmark.
            kill_process(self.process.as_pid()?, Signal::KILL)?;
            bail!("process {} hangs", self.process.pid());
        }
        Ok(())
    }
}

/// Reaps a child that has ended: its exit code, or 128 and the signal, and its processor time.
#[allow(unsafe_code, reason = "no safe interface returns what wait4 returns")]
fn reap(pid: Pid) -> Result<(i32, u64)> {
    let mut status = 0;
    // SAFETY: all zeroes is a valid `rusage`, which holds only integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live locals of the right types; the process is our child and
    // nobody else waits for it.
    let reaped = unsafe { libc::wait4(pid.as_raw_nonzero().get(), &mut status, 0, &mut usage) };
    if reaped < 0 {
        return Err(std::io::Error::last_os_error()).context("wait4");
    }
    let code = if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        128 + libc::WTERMSIG(status)
    };
    let ns = |t: libc::timeval| t.tv_sec as u64 * 1_000_000_000 + t.tv_usec as u64 * 1000;
    Ok((code, ns(usage.ru_utime) + ns(usage.ru_stime)))
}
