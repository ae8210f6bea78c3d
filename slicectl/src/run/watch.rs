//! Watches a running monitor until it has ended, and makes it end when that is asked for.
//!
//! A stop goes the gentle way first (the control socket, or SIGTERM while there is none); if the
//! monitor is still there two seconds later, or a second signal comes, it is killed.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use vmm::control::proto::{LastTraffic, Notice, Op};
use vmm::exit::ExitRecord;
use vmm::launch::Launched;

use super::window::Window;
use crate::client::Client;
use crate::signals::{EndSignals, signal_name};

/// How long a monitor may take to end once it was told to.
const GRACE: Duration = Duration::from_secs(2);

/// How far past its time limit a sliver may be before slicectl ends it itself.
const OVERTIME: Duration = Duration::from_secs(3);

/// How a run ended.
#[derive(Debug)]
pub(super) enum End {
    /// As the monitor says.
    Recorded(Box<ExitRecord>),
    /// slicectl ended it, because of this, and the monitor left no record.
    Forced(Cause),
    /// The monitor went away by itself without a record.
    Died(Option<ExitStatus>),
}

/// Why slicectl ends a sliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    /// This signal came.
    Signal(i32),
    /// The time limit passed and the monitor did not act.
    TimeLimit(Duration),
    /// The monitor closed the tie or spoke nonsense on it, but goes on.
    LostTie,
}

impl Cause {
    fn reason(&self) -> String {
        match self {
            Self::Signal(signal) => format!("slicectl received {}", signal_name(*signal)),
            Self::TimeLimit(_) => "the time limit has passed".to_owned(),
            Self::LostTie => "the tie to slicectl is lost".to_owned(),
        }
    }
}

/// One run being watched.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    monitor: &'a mut Launched,
    signals: &'a EndSignals,
    window: Option<&'a Window>,
    /// When to end it if the monitor does not.
    limit: Option<(Instant, Duration)>,
    control: Option<PathBuf>,
    record: Option<Box<ExitRecord>>,
    traffic: Vec<LastTraffic>,
    stopping: Option<(Cause, Instant)>,
}

impl<'a> Watch<'a> {
    /// Watches `monitor`, whose console may be shown in a window and whose sliver may run for `limit`.
    pub(super) fn new(
        monitor: &'a mut Launched,
        signals: &'a EndSignals,
        window: Option<&'a Window>,
        limit: Option<Duration>,
    ) -> Self {
        Self {
            monitor,
            signals,
            window,
            limit: limit
                .and_then(|limit| Some((Instant::now().checked_add(limit + OVERTIME)?, limit))),
            control: None,
            record: None,
            traffic: Vec::new(),
            stopping: None,
        }
    }

    /// Returns when the monitor has ended, with what it told last of its sliver's traffic. `started`
    /// is called with the path of the control socket once there is one.
    pub(super) fn until_end(mut self, mut started: impl FnMut(&Path)) -> (End, Vec<LastTraffic>) {
        let mut tied = true;
        loop {
            let ready = self.wait(tied);
            if ready.signal {
                self.on_signal();
            }
            if ready.window
                && let (Some(window), Some(control)) = (self.window, &self.control)
            {
                window.tell(control);
            }
            if ready.tie {
                match self.monitor.notice() {
                    Some(Notice::Started { control }) => {
                        let control = self.control.insert(PathBuf::from(control));
                        started(control);
                    }
                    Some(Notice::Traffic(piece)) => self.traffic.push(*piece),
                    Some(Notice::Ended(record)) => self.record = Some(record),
                    None => {
                        tied = false;
                        self.stopping
                            .get_or_insert((Cause::LostTie, Instant::now()));
                    }
                }
            } else if ready.process {
                return self.ended();
            }
            self.check_time();
        }
    }

    /// Waits for whatever comes next: a notice, the end, a signal or a deadline.
    fn wait(&self, tied: bool) -> Ready {
        let deadline = match (&self.stopping, self.limit) {
            (Some((_, since)), _) => Some(*since + GRACE),
            (None, Some((deadline, _))) => Some(deadline),
            (None, None) => None,
        };
        let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.monitor.process(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
        ];
        let mut watch = |fd| {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            fds.len() - 1
        };
        let tie = self
            .monitor
            .tie()
            .filter(|_| tied)
            .map(|tie| watch(tie.as_fd()));
        // Until there is somebody to tell of it, what happens to the window can wait.
        let window = self.window.filter(|_| self.control.is_some());
        let window = window.map(|window| watch(window.as_fd()));
        // An interrupted or failed poll leaves no events: the loop comes round again.
        let _ = poll(&mut fds, timeout.as_ref());
        let ready = |i: usize| {
            fds.get(i)
                .is_some_and(|fd: &PollFd| !fd.revents().is_empty())
        };
        Ready {
            process: ready(0),
            signal: ready(1),
            tie: tie.is_some_and(ready),
            window: window.is_some_and(ready),
        }
    }

    fn on_signal(&mut self) {
        let Some(signal) = self.signals.take() else {
            return;
        };
        match self.stopping {
            None | Some((Cause::LostTie, _)) => self.stop(Cause::Signal(signal)),
            Some(_) => self.monitor.kill(),
        }
    }

    fn check_time(&mut self) {
        let now = Instant::now();
        match (&self.stopping, self.limit) {
            (Some((_, since)), _) if now >= *since + GRACE => self.monitor.kill(),
            (None, Some((deadline, limit))) if now >= deadline => {
                self.stop(Cause::TimeLimit(limit))
            }
            _ => {}
        }
    }

    fn stop(&mut self, cause: Cause) {
        let reason = cause.reason();
        let asked = self.control.as_ref().is_some_and(|path| {
            Client::connect(path).is_ok_and(|mut client| client.send(Op::Stop { reason }).is_ok())
        });
        if !asked {
            self.monitor.signal(Signal::TERM);
        }
        self.stopping = Some((cause, Instant::now()));
    }

    fn ended(self) -> (End, Vec<LastTraffic>) {
        let status = self.monitor.wait().ok().map(|ended| ended.status);
        let end = match (self.record, self.stopping) {
            (Some(record), _) => End::Recorded(record),
            (None, Some((Cause::LostTie, _)) | None) => End::Died(status),
            (None, Some((cause, _))) => End::Forced(cause),
        };
        (end, self.traffic)
    }
}

struct Ready {
    process: bool,
    signal: bool,
    tie: bool,
    window: bool,
}
