//! Where a console's output goes: a descriptor that may be slow, full or gone.
//!
//! The guest waits for its own output, as a program does whose terminal is slow. It does not make
//! anybody else wait: a pause or an end interrupts the wait.

use std::fs::File;
use std::io::{self, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A write to a pipe with this much room does not block (POSIX, `PIPE_BUF`).
pub const PIECE: usize = 4096;

/// Output for one console.
#[derive(Debug)]
pub struct Output {
    file: File,
    broken: bool,
}

/// How often a wait looks up: a signal that comes just before it would else be missed.
const LOOK_UP: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// Stands between a guest's output and the sliver's life.
pub trait Patience {
    /// `false` if the sliver ends and the rest of the output is to be dropped.
    fn go_on(&mut self) -> bool;

    /// Output has to wait (`true`), or waits no more (`false`).
    fn waits(&mut self, waits: bool);
}

impl Output {
    /// Writes to `file`.
    pub fn new(file: File) -> Self {
        Self {
            file,
            broken: false,
        }
    }

    /// Writes all of `bytes`, waiting for room. Output that nobody reads any more is dropped.
    pub fn write(&mut self, mut bytes: &[u8], patience: &mut dyn Patience) {
        while !bytes.is_empty() && !self.broken {
            if !self.has_room(&Timespec::default()) {
                patience.waits(true);
                while !self.has_room(&LOOK_UP) && patience.go_on() {}
                patience.waits(false);
                if !patience.go_on() {
                    return;
                }
            }
            match self.file.write(&bytes[..bytes.len().min(PIECE)]) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.broken = true,
            }
        }
    }

    /// Whether a write would go through, or fail, at once.
    fn has_room(&self, within: &Timespec) -> bool {
        let mut fds = [PollFd::new(&self.file, PollFlags::OUT)];
        matches!(poll(&mut fds, Some(within)), Ok(1..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    struct Calm;

    impl Patience for Calm {
        fn go_on(&mut self) -> bool {
            true
        }

        fn waits(&mut self, _: bool) {}
    }

    fn pair() -> (Output, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Output::new(std::os::fd::OwnedFd::from(ours).into()), theirs)
    }

    #[test]
    fn everything_arrives_in_order() {
        let (mut output, mut reader) = pair();
        let sent: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        let copy = sent.clone();
        let writer = std::thread::spawn(move || output.write(&copy, &mut Calm));
        let mut received = vec![0; sent.len()];
        reader.read_exact(&mut received).unwrap();
        writer.join().unwrap();
        assert_eq!(received, sent);
    }

    #[test]
    fn output_nobody_reads_is_dropped() {
        let (mut output, reader) = pair();
        drop(reader);
        output.write(b"x", &mut Calm);
        assert!(output.broken);
        output.write(&[0; 1 << 20], &mut Calm);
    }

    #[test]
    fn a_full_output_is_left_when_the_sliver_ends() {
        struct Ending(Vec<bool>);
        impl Patience for Ending {
            fn go_on(&mut self) -> bool {
                false
            }
            fn waits(&mut self, waits: bool) {
                self.0.push(waits);
            }
        }
        let (mut output, _reader) = pair();
        let mut ending = Ending(Vec::new());
        output.write(&vec![0; 8 << 20], &mut ending);
        assert_eq!(ending.0, [true, false]);
    }
}
