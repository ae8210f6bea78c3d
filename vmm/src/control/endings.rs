//! What ends a sliver from outside: a signal to its monitor, the tie, its time limit. They count
//! from the first moment, while the sliver is still being started, to the last.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::exit::Exit;
use crate::signals::Signals;

/// The three of them.
#[derive(Debug)]
pub(crate) struct Endings {
    signals: Signals,
    tie: Option<UnixStream>,
    limit: Option<Duration>,
    started: Instant,
}

impl Endings {
    /// For a sliver that was `started` then and may run for `limit`.
    pub(crate) fn new(
        signals: Signals,
        tie: Option<UnixStream>,
        limit: Option<Duration>,
        started: Instant,
    ) -> Self {
        Self {
            signals,
            tie,
            limit,
            started,
        }
    }

    /// The socket to whoever runs the sliver in the foreground.
    pub(crate) fn tie(&self) -> Option<&UnixStream> {
        self.tie.as_ref()
    }

    /// Descriptors that become ready when one of them comes.
    pub(crate) fn poll_fds(&self) -> Vec<PollFd<'_>> {
        let tie = self.tie.as_ref().map(AsFd::as_fd);
        [Some(self.signals.as_fd()), tie]
            .into_iter()
            .flatten()
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect()
    }

    /// How long the time limit leaves.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        let limit = self.limit?;
        Some(limit.saturating_sub(self.started.elapsed()))
    }

    /// The end that is due, if one is.
    pub(crate) fn due(&self) -> Option<Exit> {
        if let Some(name) = self.signals.take() {
            return Some(Exit::stopped(format!("the monitor received {name}")));
        }
        if self.tie.as_ref().is_some_and(is_ready) {
            return Some(Exit::stopped("whoever ran it in the foreground is gone"));
        }
        let limit = self
            .limit
            .filter(|limit| self.started.elapsed() >= *limit)?;
        let message = format!("its time limit of {limit:?} was reached");
        Some(Exit::timeout(message))
    }
}

/// Nothing is ever sent on the tie to the monitor: if there is something to read, it is its end.
fn is_ready(tie: &UnixStream) -> bool {
    let mut fds = [PollFd::new(tie, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1..))
}

/// A duration as `poll` takes it.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().min(i32::MAX as u64) as i64,
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
