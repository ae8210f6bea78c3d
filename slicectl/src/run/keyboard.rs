//! Every key of the terminal to the guest, until the detach keys come: a thread between the
//! terminal and a pipe that the monitor reads.
//!
//! The thread never waits for the guest: what it does not read is kept, up to a bound beyond which
//! keys are lost as on any terminal, and the detach keys are always seen.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{OFlags, fcntl_setfl};

use super::flags::DetachKeys;
use super::terminal::Terminal;
use crate::report::say;

/// Bytes that are read at once.
const PIECE: usize = 4096;

/// Bytes that are kept for a guest that reads nothing.
const KEPT: usize = 1 << 20;

/// The guest's hold of the terminal. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Keyboard {
    terminal: Arc<Terminal>,
    reader: Option<OwnedFd>,
    end: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Keyboard {
    /// Takes the terminal for the sliver called `name`.
    pub(super) fn take(keys: &DetachKeys, name: &str) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        fcntl_setfl(&writer, OFlags::NONBLOCK)?;
        let end = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        say(beginning(keys, name));
        let terminal = Arc::new(Terminal::take()?);
        let carrier = Carrier {
            terminal: Arc::clone(&terminal),
            end: Arc::clone(&end),
            watcher: Watcher::new(keys.bytes()),
            kept: Vec::new(),
        };
        let name = name.to_owned();
        let thread = std::thread::Builder::new()
            .name("keyboard".to_owned())
            .spawn(move || carrier.carry(writer, &name))?;
        Ok(Self {
            terminal,
            reader: Some(reader.into()),
            end,
            thread: Some(thread),
        })
    }

    /// What the monitor reads.
    pub(super) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.reader.as_ref().map(AsFd::as_fd)
    }

    /// Closes this process's end: the pipe lives as long as the monitor that has inherited it.
    pub(super) fn let_go(&mut self) {
        self.reader = None;
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.end, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.terminal.end();
    }
}

fn beginning(keys: &DetachKeys, name: &str) -> String {
    match keys.bytes().is_empty() {
        true => format!("{name} gets every key; slicectl stop {name} ends it"),
        false => format!(
            "{name} gets every key until {}, which gives this terminal back",
            keys.told()
        ),
    }
}

/// The thread's side.
struct Carrier {
    terminal: Arc<Terminal>,
    end: Arc<OwnedFd>,
    watcher: Watcher,
    /// Keys that the pipe had no room for.
    kept: Vec<u8>,
}

impl Carrier {
    /// Carries keys until the detach keys, the end of the terminal or that of the sliver.
    fn carry(mut self, mut pipe: impl Write + AsFd, name: &str) {
        let mut piece = [0; PIECE];
        loop {
            let (keys, room, end) = self.wait(pipe.as_fd());
            if end {
                return;
            }
            if keys {
                match rustix::io::read(&*self.terminal, &mut piece) {
                    Ok(0) => return,
                    Ok(len) if self.watcher.pass(&piece[..len], &mut self.kept) => break,
                    Ok(_) => self.kept.truncate(KEPT),
                    Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                    Err(_) => return,
                }
            }
            if (keys || room) && !self.kept.is_empty() {
                match pipe.write(&self.kept) {
                    Ok(len) => drop(self.kept.drain(..len)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // Nobody reads any more.
                    Err(_) => return,
                }
            }
        }
        // What was typed before the detach keys is the guest's, if there is room for it.
        let _ = pipe.write(&self.kept);
        self.terminal.give_back();
        say(format!(
            "{name} gets no more keys and goes on; Ctrl-C or slicectl stop {name} ends it"
        ));
    }

    /// Waits for keys, for room if something is kept, or for the end of it all.
    fn wait(&self, pipe: BorrowedFd<'_>) -> (bool, bool, bool) {
        let mut fds = vec![
            PollFd::new(&*self.terminal, PollFlags::IN),
            PollFd::new(&*self.end, PollFlags::IN),
        ];
        if !self.kept.is_empty() {
            fds.push(PollFd::from_borrowed_fd(pipe, PollFlags::OUT));
        }
        // An interrupted poll leaves no events: the loop comes round again.
        let _ = poll(&mut fds, None);
        let ready = |index: usize| {
            fds.get(index)
                .is_some_and(|fd: &PollFd| !fd.revents().is_empty())
        };
        (ready(0), ready(2), ready(1))
    }
}

/// Finds the detach keys in what is typed.
#[derive(Debug)]
struct Watcher {
    keys: Vec<u8>,
    /// Typed keys that may be the first of them.
    held: Vec<u8>,
}

impl Watcher {
    fn new(keys: &[u8]) -> Self {
        Self {
            keys: keys.to_vec(),
            held: Vec::new(),
        }
    }

    /// Appends to `out` what is not part of the detach keys; whether they have come. What comes
    /// after them is nobody's.
    fn pass(&mut self, typed: &[u8], out: &mut Vec<u8>) -> bool {
        for &byte in typed {
            self.held.push(byte);
            while !self.keys.starts_with(&self.held) {
                out.push(self.held.remove(0));
            }
            if !self.held.is_empty() && self.held.len() == self.keys.len() {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pass(keys: &[u8], pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let (mut watcher, mut out) = (Watcher::new(keys), Vec::new());
        let found = pieces.iter().any(|piece| watcher.pass(piece, &mut out));
        (out, found)
    }

    #[test]
    fn keys_before_the_detach_keys_are_the_guest_s_and_those_after_are_nobody_s() {
        assert_eq!(pass(b"\x1d", &[b"ls\n\x1dpwd"]), (b"ls\n".to_vec(), true));
        assert_eq!(pass(b"\x01d", &[b"x\x01", b"dy"]), (b"x".to_vec(), true));
    }

    #[test]
    fn a_beginning_that_goes_on_otherwise_is_the_guest_s() {
        assert_eq!(pass(b"\x01d", &[b"\x01", b"c"]), (b"\x01c".to_vec(), false));
        assert_eq!(pass(b"aab", &[b"aaab"]), (b"a".to_vec(), true));
    }

    #[test]
    fn without_detach_keys_all_is_the_guest_s() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(pass(b"", &[&all]), (all.clone(), false));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_made_up(
            keys in prop::collection::vec(0u8..3, 0..4),
            typed in prop::collection::vec(0u8..3, 0..40),
        ) {
            let (mut watcher, mut out) = (Watcher::new(&keys), Vec::new());
            let found = watcher.pass(&typed, &mut out);
            let first = typed.windows(keys.len().max(1)).position(|window| window == keys);
            prop_assert_eq!(found, first.is_some());
            match first {
                Some(at) => prop_assert_eq!(&out, &typed[..at]),
                None => {
                    out.extend(&watcher.held);
                    prop_assert_eq!(out, typed);
                }
            }
        }
    }
}
