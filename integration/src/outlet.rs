//! A pipe for a monitor's output that a test reads when it wants to, and only then.

use std::io::{PipeReader, PipeWriter, Read, pipe};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionread;

/// The end of the pipe that the test reads.
#[derive(Debug)]
pub struct Outlet(PipeReader);

impl Outlet {
    /// A pipe, and the end of it for the monitor.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn new() -> (Self, PipeWriter) {
        let (reader, writer) = pipe().expect("a pipe is made");
        (Self(reader), writer)
    }

    /// Bytes that have been printed and not been read.
    ///
    /// # Panics
    /// If the kernel does not tell.
    pub fn held(&self) -> u64 {
        ioctl_fionread(&self.0).expect("a pipe tells what it holds")
    }

    /// Reads whatever comes during this time; how many bytes that were.
    ///
    /// # Panics
    /// If the pipe cannot be read.
    pub fn drain(&mut self, time: Duration) -> u64 {
        let until = Instant::now() + time;
        let mut buffer = vec![0; 1 << 16];
        let mut total = 0;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            let left = Timespec::try_from(left).expect("a test does not read for ages");
            let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
            if poll(&mut fds, Some(&left)).expect("a pipe can be waited for") == 0 {
                break;
            }
            match self.0.read(&mut buffer).expect("a pipe can be read") {
                0 => break,
                n => total += n as u64,
            }
        }
        total
    }
}

/// A pipe's end for the monitor whose other end is closed.
///
/// # Panics
/// If the pipe cannot be made.
pub fn to_nobody() -> PipeWriter {
    Outlet::new().1
}
