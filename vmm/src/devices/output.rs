//! Where a console's output goes: a descriptor that may be slow, full or gone.
//!
//! Writing never waits. What does not go through is written when the descriptor has room again: the
//! guest waits for its own output, as a program does whose terminal is slow, and nobody else does.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::tcgetwinsize;

/// A write to a pipe with room for this much does not wait (POSIX, `PIPE_BUF`).
pub const PIECE: usize = 4096;

/// Output for one console.
#[derive(Debug)]
pub struct Output {
    file: File,
    broken: bool,
}

impl Output {
    /// Writes to `file`.
    pub fn new(file: File) -> Self {
        Self {
            file,
            broken: false,
        }
    }

    /// Writes what goes through at once of `bytes`, at most [`PIECE`], and says how much that was.
    /// Output that nobody reads any more counts as written.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let piece = &bytes[..bytes.len().min(PIECE)];
        if self.broken {
            return piece.len();
        }
        if !has_room(&self.file) {
            return 0;
        }
        match (&self.file).write(piece) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.broken = true;
                piece.len()
            }
        }
    }

    /// Columns and rows of the terminal that it is; zeros if it is none.
    pub fn window_size(&self) -> (u16, u16) {
        tcgetwinsize(&self.file).map_or((0, 0), |size| (size.ws_col, size.ws_row))
    }

    /// The descriptor, to watch for room.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether a write would go through, or fail, at once.
fn has_room(file: &File) -> bool {
    let mut fds = [PollFd::new(file, PollFlags::OUT)];
    matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    fn pair() -> (Output, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Output::new(OwnedFd::from(ours).into()), theirs)
    }

    #[test]
    fn a_full_output_takes_nothing_until_it_is_read() {
        let (mut output, mut reader) = pair();
        let mut sent = 0;
        loop {
            match output.write(&[7; PIECE]) {
                0 => break,
                written => sent += written,
            }
        }
        let mut received = vec![0; sent];
        reader.read_exact(&mut received).unwrap();
        assert!(output.write(b"more") > 0);
        assert!(received.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn output_nobody_reads_is_dropped() {
        let (mut output, reader) = pair();
        drop(reader);
        assert_eq!(output.write(b"x"), 1);
        assert_eq!(output.write(&[0; 1 << 20]), PIECE);
    }
}
