//! The parent's side of a jail: makes the process, says who it is, and hears whether it got in.
#![allow(unsafe_code, reason = "clone3, which no library offers")]

use std::ffi::{CString, c_char};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Pid, Resource, WaitOptions, WaitStatus, getegid, geteuid, waitpid};

use super::enter::{self, Plan, REPORT_BYTES};
use super::layers::{Layer, Layers};

/// What a jailed process is called in its own user namespace. Not 0: it is nobody's root.
const INSIDE: u32 = 1;

/// Outside, each jailed process that root has started has a user of its own: this and its process
/// number, which no other living process has. Above all that systemd hands out (its documentation,
/// "Users, Groups, UIDs and GIDs"), and process numbers end at 4,194,304.
const FIRST_USER: u32 = 0x7000_0000;

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
    const ALL: [Self; 7] = [
        Self::Parent,
        Self::User,
        Self::Root,
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
    #[error("a jailed process ended before it was jailed")]
    Ended,
}

fn names(layers: Layers) -> String {
    let names: Vec<_> = layers.iter().map(Layer::name).collect();
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
    let plan = Plan {
        layers: launch.layers,
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
    match introduce(&jailed, launch.layers, &mut ours) {
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
    pub fn wait(&self) -> Option<WaitStatus> {
        loop {
            match waitpid(Some(self.pid), WaitOptions::empty()) {
                Ok(ended) => return ended.map(|(_, status)| status),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return None,
            }
        }
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
fn introduce(jailed: &Jailed, layers: Layers, stream: &mut UnixStream) -> Result<(), JailError> {
    let own = match geteuid().is_root() {
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
    // An error shows below: the process is gone.
    let _ = stream.write_all(&inside.to_ne_bytes());
    let mut report = Vec::with_capacity(REPORT_BYTES);
    let read = stream.read_to_end(&mut report);
    match (read, report.as_slice()) {
        (Ok(_), []) => Ok(()),
        (Ok(_), &[step, ref errno @ ..]) => Err(failure(step, errno)),
        (Err(_), _) => Err(JailError::Ended),
    }
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

/// Says which user and group of this host the only ones of the process's namespace are.
fn map_users(pid: Pid, (uid, gid): (u32, u32)) -> io::Result<()> {
    let process = format!("/proc/{pid}");
    // Without it, a namespace that was made without privileges gets no groups (user_namespaces(7)).
    if !geteuid().is_root() {
        fs::write(format!("{process}/setgroups"), "deny")?;
    }
    fs::write(format!("{process}/gid_map"), format!("{INSIDE} {gid} 1\n"))?;
    fs::write(format!("{process}/uid_map"), format!("{INSIDE} {uid} 1\n"))
}
