//! Where a console's input comes from: a descriptor that others may use too.
//!
//! Reading never waits, and the descriptor's flags stay as they are: standard input is often one
//! with a terminal's output and with other programs, which would not expect it to be non-blocking.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Input for one console.
#[derive(Debug)]
pub struct Input {
    file: File,
    ended: bool,
}

impl Input {
    /// Reads from `file`.
    pub fn new(file: File) -> Self {
        Self { file, ended: false }
    }

    /// Reads what is there at once. How much that was: 0 if nothing is there, or ever will be.
    pub fn read(&mut self, bytes: &mut [u8]) -> usize {
        if self.ended || !has_bytes(&self.file) {
            return 0;
        }
        match (&self.file).read(bytes) {
            Ok(0) => self.ended = true,
            Ok(len) => return len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.ended = true,
        }
        0
    }

    /// Whether it has ended: it is not looked at any more.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The descriptor, to watch for input.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether a read would give something, or the end, at once.
fn has_bytes(file: &File) -> bool {
    let mut fds = [PollFd::new(file, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use rustix::fs::{OFlags, fcntl_getfl};

    #[test]
    fn reading_does_not_wait_and_leaves_the_flags_alone() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut input = Input::new(OwnedFd::from(ours).into());
        let mut bytes = [0; 8];
        assert_eq!(input.read(&mut bytes), 0);
        theirs.write_all(b"hello").unwrap();
        assert_eq!(input.read(&mut bytes), 5);
        assert_eq!(input.read(&mut bytes), 0);
        assert!(!input.has_ended());
        assert!(!fcntl_getfl(input.fd()).unwrap().contains(OFlags::NONBLOCK));
    }

    #[test]
    fn the_end_is_remembered_after_everything_before_it() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut input = Input::new(OwnedFd::from(ours).into());
        theirs.write_all(b"bye").unwrap();
        drop(theirs);
        let mut bytes = [0; 8];
        assert_eq!(input.read(&mut bytes), 3);
        assert!(!input.has_ended());
        assert_eq!(input.read(&mut bytes), 0);
        assert!(input.has_ended());
    }
}
