//! A monitor that has been launched, as its launcher has it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};

use super::LaunchError;
use crate::control::endpoint::Leftover;
use crate::control::proto::{Notice, read_frame};
use crate::devices::virtio::vsock::GuestSocket;
use crate::given::{Given, Hello};
use crate::jail::{Ended, Jailed};

/// How long the rest of a notice may take once it has begun.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is in the file system for a sliver, and goes with its process.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) directory: Leftover,
    pub(super) vsock: Option<GuestSocket>,
}

impl Left {
    /// Gives back what was to be handed in, with its locks, and clears away the rest.
    pub(super) fn let_go(&mut self, given: &mut Given) {
        *given = Given::default();
        self.clear();
    }

    fn clear(&mut self) {
        self.vsock = None;
        self.directory.clear();
    }
}

/// A running monitor. Dropping it kills the process, and clears away what it had.
pub struct Launched {
    jailed: Jailed,
    tie: Option<UnixStream>,
    left: Left,
    ended: Option<Ended>,
}

impl fmt::Debug for Launched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the monitor with process id {}", self.jailed.pid)
    }
}

impl Launched {
    pub(super) fn new(jailed: Jailed, tie: UnixStream, left: Left) -> Result<Self, LaunchError> {
        let launched = Self {
            jailed,
            tie: Some(tie),
            left,
            ended: None,
        };
        if let Some(tie) = &launched.tie {
            let limited = tie.set_read_timeout(Some(PATIENCE));
            limited.map_err(LaunchError::system("hear from the monitor"))?;
        }
        Ok(launched)
    }

    pub(super) fn hand_over(&mut self, given: Given, hello: &Hello) -> Result<(), LaunchError> {
        if let Some(tie) = &self.tie {
            let sent = given.send(tie, hello);
            sent.map_err(LaunchError::system("hand over to the monitor"))?;
        }
        if !hello.tied {
            self.tie = None;
        }
        Ok(())
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.jailed.pid.as_raw_nonzero().get() as u32
    }

    /// Readable when there is a notice, or when the monitor has closed its end. Dropping it ends the
    /// sliver.
    pub fn tie(&self) -> Option<&UnixStream> {
        self.tie.as_ref()
    }

    /// Takes the tie away: the sliver is to end.
    pub fn cut(&mut self) {
        self.tie = None;
    }

    /// Readable when the process has ended.
    pub fn process(&self) -> BorrowedFd<'_> {
        self.jailed.pidfd.as_fd()
    }

    /// The next notice; `None` when there will be no more, for whatever reason.
    pub fn notice(&mut self) -> Option<Notice> {
        read_frame(self.tie.as_ref()?).ok().flatten()
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.jailed.pidfd, signal);
    }

    /// Ends the process.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Waits for the end of the process and clears away what it had.
    pub fn wait(&mut self) -> io::Result<Ended> {
        if let Some(ended) = self.ended {
            return Ok(ended);
        }
        let ended = self.jailed.wait().ok_or(io::ErrorKind::NotFound)?;
        self.left.clear();
        Ok(*self.ended.insert(ended))
    }

    /// How it ended, if it has.
    pub fn try_wait(&mut self) -> io::Result<Option<Ended>> {
        let mut fds = [PollFd::new(&self.jailed.pidfd, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec::default())) {
            Ok(1..) => self.wait().map(Some),
            _ => Ok(None),
        }
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.kill();
            let _ = self.wait();
        }
    }
}
