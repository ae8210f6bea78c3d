//! What the monitor's console is connected to, and how its process ended.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use crate::signals::signal_name;

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
    /// A descriptor to read it from.
    pub(super) fn open(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Stdin => io::stdin().as_fd().try_clone_to_owned(),
            Self::Pipe(pipe) => pipe.try_clone_to_owned(),
            Self::Nowhere => File::open("/dev/null").map(OwnedFd::from),
        }
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
    /// A descriptor to write it to.
    pub(super) fn open(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Stdout => io::stdout().as_fd().try_clone_to_owned(),
            Self::Stderr => io::stderr().as_fd().try_clone_to_owned(),
            Self::Pipe(pipe) => pipe.try_clone_to_owned(),
            Self::Nowhere => {
                let null = File::options().write(true).open("/dev/null");
                null.map(OwnedFd::from)
            }
        }
    }
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
