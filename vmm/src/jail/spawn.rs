//! The parent's side of a jail: makes the process, says who it is, and hears whether it got in.
#![allow(unsafe_code, reason = "clone3, which no library offers")]

use std::ffi::{CString, c_char};
use std::fs;
use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, Resource, getegid, geteuid};

use super::enter::{self, Plan, REPORT_BYTES};
use super::layers::{Layer, Layers};
use super::shown;
use crate::say::shown_path;

/// What a jailed process is called in its own user namespace. Not 0: it is nobody's root.
const INSIDE: u32 = 1;

/// Outside, each jailed process that root has started has a user of its own: this and its process
/// number, which no other living process has. Above all that systemd hands out (its documentation,
/// "Users, Groups, UIDs and GIDs"), and process numbers end at 4,194,304.
const FIRST_USER: u32 = 0x7000_0000;

/// The highest number that a process can have (proc_sys_kernel(5), `pid_max`).
const LAST_PROCESS: u64 = 1 << 22;

/// What to start in a jail.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The program: a static one, for it finds no files.
    pub program: BorrowedFd<'a>,
    /// Its arguments, its name first.
    pub arguments: &'a [CString],
    /// What become its descriptors 0, 1, 2 and so on. It has no others.
    pub descriptors: &'a [BorrowedFd<'a>],
    /// The layers of its jail.
    pub layers: Layers,
    /// What it may use of each resource.
    pub limits: &'a [(Resource, u64)],
    /// A directory of the host that it sees at [`SHOWN`](super::SHOWN), if it has a root of its own:
    /// it can connect to the sockets in it that the owner of the directory can, and change nothing.
    pub shown: Option<&'a Path>,
}

/// A step on the way into the jail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Hearing from its parent.
    Parent,
    /// Becoming another user.
    User,
    /// Making an empty root.
    Root,
    /// Seeing a directory of the host.
    Shown,
    /// Giving descriptors their numbers.
    Descriptors,
    /// Limiting resources.
    Limits,
    /// Giving up privileges.
    Privileges,
    /// Starting the program.
    Program,
}

impl Step {
    const ALL: [Self; 8] = [
        Self::Parent,
        Self::User,
        Self::Root,
        Self::Shown,
        Self::Descriptors,
        Self::Limits,
        Self::Privileges,
        Self::Program,
    ];

    fn words(self) -> &'static str {
        match self {
            Self::Parent => "hear from its parent",
            Self::User => "become another user",
            Self::Root => "get an empty root",
            Self::Shown => "see a directory of the host",
            Self::Descriptors => "be given its descriptors",
            Self::Limits => "be limited",
            Self::Privileges => "give up its privileges",
            Self::Program => "start the program",
        }
    }
}

/// A process could not be jailed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub enum JailError {
    #[error("cannot {what} for a jailed process: {source}")]
    Prepare {
        what: &'static str,
        source: io::Error,
    },
    #[error("cannot make a process in namespaces of its own ({}): {source}", names(*layers))]
    Namespaces { layers: Layers, source: io::Error },
    #[error("cannot give a jailed process a user of its own: {source}")]
    Users { source: io::Error },
    #[error("a jailed process could not {}: {source}", step.words())]
    Step { step: Step, source: io::Error },
    #[error("cannot show {} to a jailed process: {source}", shown_path(path))]
    Shown { path: PathBuf, source: io::Error },
    #[error("a jailed process ended before it was jailed")]
    Ended,
}

fn names(layers: Layers) -> String {
    let namespaces = layers.iter().filter(|layer| layer.clone_flag() != 0);
    let names: Vec<_> = namespaces.map(Layer::name).collect();
    names.join(", ")
}

/// A jailed process that has started its program. Nobody waits for it unless its owner does.
#[derive(Debug)]
pub struct Jailed {
    /// Its number outside.
    pub pid: Pid,
    /// The process itself.
    pub pidfd: OwnedFd,
}

/// How a jailed process has ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// The processor time that it has used.
    pub cpu: Duration,
}

/// Starts a program in a jail.
pub fn spawn(launch: &Launch<'_>) -> Result<Jailed, JailError> {
    let prepare = |what| move |source: io::Error| JailError::Prepare { what, source };
    let (mut ours, theirs) = UnixStream::pair().map_err(prepare("make a pair of sockets"))?;
    // Beyond all numbers that the process is to have, so that none is overwritten before its turn.
    let beyond = launch.descriptors.len() as RawFd;
    let lift = |fd: BorrowedFd<'_>| {
        fcntl_dupfd_cloexec(fd, beyond).map_err(|errno| prepare("open a descriptor")(errno.into()))
    };
    // The first of the two is closed here: only the new process is to hold that end.
    let theirs = lift(OwnedFd::from(theirs).as_fd())?;
    let program = lift(launch.program)?;
    let descriptors = launch.descriptors.iter().map(|fd| lift(*fd));
    let descriptors = descriptors.collect::<Result<Vec<OwnedFd>, _>>()?;
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let mut argv: Vec<*const c_char> = launch.arguments.iter().map(|arg| arg.as_ptr()).collect();
    argv.push(std::ptr::null());
    let shown = launch.shown.filter(|_| launch.layers.has(Layer::Mount));
    let shown_name = shown.map(|path| CString::new(path.as_os_str().as_bytes()));
    let shown_name = shown_name.transpose();
    let shown_name = shown_name.map_err(|error| prepare("name a directory")(error.into()))?;
    let plan = Plan {
        layers: launch.layers,
        shown: shown_name.as_deref(),
        program: program.as_fd(),
        argv: &argv,
        descriptors: &numbers,
        parent: theirs.as_fd(),
        limits: launch.limits,
    };
    let jailed = fork_into(&plan).map_err(|source| JailError::Namespaces {
        layers: launch.layers,
        source,
    })?;
    drop(theirs);
    match introduce(&jailed, launch.layers, shown, &mut ours) {
        Ok(()) => Ok(jailed),
        Err(error) => {
            // It may still wait for its turn; if it is gone already, there is nobody to kill.
            let _ =
                rustix::process::pidfd_send_signal(&jailed.pidfd, rustix::process::Signal::KILL);
            let _ = jailed.wait();
            Err(error)
        }
    }
}

impl Jailed {
    /// Waits for its end. `None` if somebody else has.
    pub fn wait(&self) -> Option<Ended> {
        let mut status = 0;
        // SAFETY: the structure is one of numbers, for which zeros are valid.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        loop {
            let pid = self.pid.as_raw_nonzero().get();
            // SAFETY: both pointers are to local variables of the right types.
            let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
            match waited {
                -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                -1 => return None,
                _ => break,
            }
        }
        let time = |t: libc::timeval| {
            Duration::from_secs(t.tv_sec as u64) + Duration::from_micros(t.tv_usec as u64)
        };
        Some(Ended {
            status: ExitStatus::from_raw(status),
            cpu: time(usage.ru_utime) + time(usage.ru_stime),
        })
    }
}

/// Makes a process in the namespaces of a plan, which goes into the jail.
fn fork_into(plan: &Plan<'_>) -> io::Result<Jailed> {
    let mut pidfd: RawFd = -1;
    // SAFETY: the structure is one of numbers, for which zeros are valid.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = (plan.layers.clone_flags() | libc::CLONE_PIDFD) as u32 as u64;
    arguments.pidfd = &raw mut pidfd as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    let size = size_of::<libc::clone_args>();
    // SAFETY: without CLONE_VM and CLONE_THREAD this is a fork: the new process returns on a copy of
    // this stack. There it runs `enter`, which never returns and keeps to what a copy of one thread of
    // many may do. The kernel reads `arguments` and writes `pidfd`, both of which outlive the call.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size) } {
        0 => enter::enter(plan),
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Jailed {
            pid: Pid::from_raw(pid as i32).ok_or_else(io::Error::last_os_error)?,
            // SAFETY: the kernel has just opened it for us.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}

/// Says who the process is and has it go in; an error if it does not arrive.
fn introduce(
    jailed: &Jailed,
    layers: Layers,
    shown: Option<&Path>,
    stream: &mut UnixStream,
) -> Result<(), JailError> {
    let own = match gives_own_user() {
        true => {
            let number = FIRST_USER + jailed.pid.as_raw_nonzero().get() as u32;
            (number, number)
        }
        false => (geteuid().as_raw(), getegid().as_raw()),
    };
    let inside = match layers.has(Layer::User) {
        true => {
            map_users(jailed.pid, own).map_err(|source| JailError::Users { source })?;
            INSIDE
        }
        false => own.0,
    };
    // Somebody who may not map users shows it as it is, from inside: the users are the same.
    let mapped = shown.filter(|_| gives_own_user()).map(|path| {
        shown::as_if_owned_by(path, own).map_err(|source| JailError::Shown {
            path: path.to_owned(),
            source,
        })
    });
    let mapped = mapped.transpose()?;
    let mapped: Vec<_> = mapped.iter().map(AsFd::as_fd).collect();
    // An error shows below: the process is gone.
    let _ = say_who_to_be(stream, inside, &mapped);
    let mut report = Vec::with_capacity(REPORT_BYTES);
    let read = stream.read_to_end(&mut report);
    match (read, report.as_slice()) {
        (Ok(_), []) => Ok(()),
        (Ok(_), &[step, ref errno @ ..]) => Err(failure(step, errno)),
        (Err(_), _) => Err(JailError::Ended),
    }
}

fn say_who_to_be(to: &UnixStream, inside: u32, with: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !with.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(with));
    }
    let bytes = inside.to_ne_bytes();
    sendmsg(
        to,
        &[IoSlice::new(&bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

fn failure(step: u8, errno: &[u8]) -> JailError {
    let errno = errno.try_into().map(i32::from_ne_bytes);
    let step = Step::ALL.into_iter().find(|known| *known as u8 == step);
    match (step, errno) {
        (Some(step), Ok(errno)) => JailError::Step {
            step,
            source: io::Error::from_raw_os_error(errno),
        },
        _ => JailError::Ended,
    }
}

/// Whether each jailed process gets a user of its own: this one has to be root, and not only within a
/// user namespace that knows few users (user_namespaces(7)).
pub fn gives_own_user() -> bool {
    let users = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    geteuid().is_root() && users.lines().any(has_all)
}

/// Whether a line of `uid_map` has all users that jailed processes may get.
pub(super) fn has_all(line: &str) -> bool {
    let mut numbers = line.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(first)), Some(Ok(_)), Some(Ok(count))) =
        (numbers.next(), numbers.next(), numbers.next())
    else {
        return false;
    };
    first <= u64::from(FIRST_USER) && first + count > u64::from(FIRST_USER) + LAST_PROCESS
}

/// Says which user and group of this host the only ones of the process's namespace are.
fn map_users(pid: Pid, (uid, gid): (u32, u32)) -> io::Result<()> {
    let process = format!("/proc/{pid}");
    // Without it, a namespace that was made without privileges gets no groups (user_namespaces(7)).
    if !gives_own_user() {
        fs::write(format!("{process}/setgroups"), "deny")?;
    }
    fs::write(format!("{process}/gid_map"), format!("{INSIDE} {gid} 1\n"))?;
    fs::write(format!("{process}/uid_map"), format!("{INSIDE} {uid} 1\n"))
}
