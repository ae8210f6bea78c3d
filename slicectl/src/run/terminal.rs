//! A terminal that gives every key to a guest, and is afterwards as it was.
//!
//! Only what comes from the keyboard is changed: lines on the screen are ended as before, whoever
//! prints them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::getpgrp;
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr,
    tcgetpgrp, tcsetattr,
};

/// Whether standard input is a terminal whose keys come to this process.
pub(crate) fn is_ours() -> bool {
    is_foreground(io::stdin().as_fd())
}

/// To change another process group's terminal would stop this process (SIGTTOU, termios(3)).
fn is_foreground(terminal: BorrowedFd<'_>) -> bool {
    isatty(terminal) && tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp())
}

/// A terminal without line editing, echo and keys that make signals, until it is given back or
/// dropped.
#[derive(Debug)]
pub(crate) struct Terminal {
    fd: OwnedFd,
    before: Termios,
    taken: AtomicBool,
}

impl Terminal {
    /// Takes the terminal that standard input is.
    pub(crate) fn take() -> io::Result<Self> {
        Self::take_from(io::stdin().as_fd())
    }

    fn take_from(terminal: BorrowedFd<'_>) -> io::Result<Self> {
        let fd = terminal.try_clone_to_owned()?;
        let before = tcgetattr(&fd)?;
        // Dropped from here on, it is as before.
        let terminal = Self {
            before,
            fd,
            taken: AtomicBool::new(true),
        };
        tcsetattr(
            &terminal.fd,
            OptionalActions::Now,
            &every_key(&terminal.before),
        )?;
        Ok(terminal)
    }

    /// Gives it back while its keys are typed on.
    pub(crate) fn give_back(&self) {
        self.restore(OptionalActions::Now);
    }

    /// Gives it back at the end: what was typed for the guest is not for whoever reads next.
    pub(crate) fn end(&self) {
        self.restore(OptionalActions::Flush);
    }

    fn restore(&self, when: OptionalActions) {
        if self.taken.swap(false, Ordering::AcqRel) && is_foreground(self.fd.as_fd()) {
            let _ = tcsetattr(&self.fd, when, &self.before);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.end();
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The input half of cfmakeraw(3).
fn every_key(before: &Termios) -> Termios {
    let mut raw = before.clone();
    raw.input_modes -= InputModes::IGNBRK
        | InputModes::BRKINT
        | InputModes::PARMRK
        | InputModes::ISTRIP
        | InputModes::INLCR
        | InputModes::IGNCR
        | InputModes::ICRNL
        | InputModes::IXON;
    raw.local_modes -= LocalModes::ECHO
        | LocalModes::ECHONL
        | LocalModes::ICANON
        | LocalModes::ISIG
        | LocalModes::IEXTEN;
    raw.special_codes[SpecialCodeIndex::VMIN] = 1;
    raw.special_codes[SpecialCodeIndex::VTIME] = 0;
    raw
}
