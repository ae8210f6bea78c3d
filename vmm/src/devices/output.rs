//! Where a console's output goes: a descriptor that may be slow, full or gone.
//!
//! Writing never waits. What does not go through is written when the descriptor has room again: the
//! guest waits for its own output, as a program does whose terminal is slow, and nobody else does.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat, makedev, open};
use rustix::termios::{isatty, tcgetwinsize};

/// A write to a pipe with room for this much does not wait (POSIX, `PIPE_BUF`).
pub const PIECE: usize = 4096;

/// Output for one console.
#[derive(Debug)]
pub struct Output {
    file: File,
    broken: bool,
}

impl Output {
    /// Writes to `file`, best one that [`own_description`] made.
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

/// The terminal or pipe that `file` is, opened anew so that writing does not wait: a terminal that
/// has some room has not always enough, what room a pipe had another console of the same guest may
/// have taken, and whoever shares `file` with us expects its flags to stay as they are. `None` if it
/// is neither, or cannot be opened.
pub fn own_description(file: BorrowedFd<'_>) -> Option<File> {
    let stat = fstat(file).ok()?;
    // To open the other end of a pseudo-terminal is to make a new one (pts(4)).
    let is_other_end = stat.st_rdev == makedev(5, 2);
    let is_pipe = FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
    if !is_pipe && (is_other_end || !isatty(file)) {
        return None;
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).ok().map(File::from)
}

/// Whether a write would go through, or fail, at once.
fn has_room(file: &File) -> bool {
    let mut fds = [PollFd::new(file, PollFlags::OUT)];
    matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1..))
}

#[cfg(test)]
#[allow(unsafe_code, reason = "makes a pseudo-terminal")]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::{FromRawFd, OwnedFd};
    use std::os::unix::net::UnixStream;

    use rustix::fs::fcntl_getfl;

    /// A terminal, and the end of it where what is printed comes out.
    fn terminal() -> (File, File) {
        let options = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let outside = File::from(open("/dev/ptmx", options, Mode::empty()).unwrap());
        let (fd, unlocked) = (outside.as_raw_fd(), 0i32);
        let flags = options.bits();
        // SAFETY: TIOCSPTLCK reads one number, which lives through the call; TIOCGPTPEER takes one.
        let inside = unsafe {
            assert_eq!(libc::ioctl(fd, libc::TIOCSPTLCK, &raw const unlocked), 0);
            libc::ioctl(fd, libc::TIOCGPTPEER, flags)
        };
        assert!(inside >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the descriptor was just opened and is nobody else's.
        (unsafe { File::from_raw_fd(inside) }, outside)
    }

    #[test]
    fn a_terminal_that_nobody_reads_is_not_waited_for() {
        let (inside, mut outside) = terminal();
        let shared = inside.try_clone().unwrap();
        let mut output = Output::new(own_description(inside.as_fd()).unwrap());
        let mut sent = 0;
        // Lines: a terminal makes each longer, so that there is some room but not enough.
        let text = b"line\n".repeat(PIECE / 5);
        loop {
            match output.write(&text[..]) {
                0 => break,
                written => sent += written,
            }
        }
        assert!(sent > 0);
        assert!(!fcntl_getfl(&shared).unwrap().contains(OFlags::NONBLOCK));
        let mut bytes = [0; 16];
        outside.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"line\r\nline\r\nline");
    }

    #[test]
    fn the_other_end_of_a_terminal_is_written_to_as_it_is() {
        let (mut inside, outside) = terminal();
        assert!(own_description(outside.as_fd()).is_none());
        let mut output = Output::new(outside);
        assert_eq!(output.write(b"typed\n"), 6);
        let mut bytes = [0; 6];
        inside.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"typed\n");
    }

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
    fn a_pipe_whose_room_somebody_else_took_is_not_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        let shared = File::from(OwnedFd::from(writer));
        let mut output = Output::new(own_description(shared.as_fd()).unwrap());
        while output.write(&[7; PIECE]) > 0 {}
        // As between its look for room and its write.
        let error = (&output.file).write(b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(!fcntl_getfl(&shared).unwrap().contains(OFlags::NONBLOCK));
        reader.read_exact(&mut [0; PIECE]).unwrap();
        assert!(output.write(b"more") > 0);
    }

    #[test]
    fn output_nobody_reads_is_dropped() {
        let (mut output, reader) = pair();
        drop(reader);
        assert_eq!(output.write(b"x"), 1);
        assert_eq!(output.write(&[0; 1 << 20]), PIECE);
    }
}
