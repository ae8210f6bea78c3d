//! The window that a guest's console is shown in. The monitor tells the guest its size at the start;
//! from then on it hears of another size from here.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::termios::{isatty, tcgetwinsize};
use vmm::control::proto::Op;

use crate::client::Client;
use crate::signals::ResizeSignal;

/// A terminal whose size is watched.
#[derive(Debug)]
pub(super) struct Window {
    terminal: OwnedFd,
    resized: ResizeSignal,
}

impl Window {
    /// The one that `output` is shown in; `None` if that is no terminal.
    pub(super) fn of(output: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        if !isatty(output) {
            return Ok(None);
        }
        Ok(Some(Self {
            terminal: output.try_clone_to_owned()?,
            resized: ResizeSignal::catch()?,
        }))
    }

    /// Tells the monitor behind the control socket `control` if the size is another now. A guest that
    /// does not learn of it draws as before.
    pub(super) fn tell(&self, control: &Path) {
        if self.resized.take()
            && let Ok(size) = tcgetwinsize(&self.terminal)
            && let Ok(mut client) = Client::connect(control)
        {
            let _ = client.send(Op::ResizeConsole {
                columns: size.ws_col,
                rows: size.ws_row,
            });
        }
    }
}

impl AsFd for Window {
    /// Readable when the size is another.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.resized.as_fd()
    }
}

#[cfg(test)]
#[allow(unsafe_code, reason = "makes a pseudo-terminal and a signal")]
mod tests {
    use super::*;
    use std::os::fd::FromRawFd;
    use std::os::unix::net::UnixListener;
    use std::ptr::{null, null_mut};

    use rustix::event::{PollFd, PollFlags, poll};
    use vmm::control::proto::{Request, read_frame};

    /// Both ends of a terminal.
    fn terminal(columns: u16, rows: u16) -> (OwnedFd, OwnedFd) {
        let (mut ours, mut theirs) = (-1, -1);
        let size = libc::winsize {
            ws_col: columns,
            ws_row: rows,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the kernel writes two descriptors and reads one size; no name, no settings.
        let made = unsafe { libc::openpty(&mut ours, &mut theirs, null_mut(), null(), &size) };
        assert_eq!(made, 0);
        // SAFETY: the call has made both, and nobody else knows of them.
        unsafe { (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) }
    }

    #[test]
    fn another_size_is_told_to_the_monitor_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let listener = UnixListener::bind(&path).unwrap();
        let (_shown, terminal) = terminal(132, 43);
        let window = Window::of(terminal.as_fd()).unwrap().unwrap();
        // SAFETY: a signal that this process catches.
        unsafe { libc::raise(libc::SIGWINCH) };
        let mut fds = [PollFd::new(&window, PollFlags::IN)];
        poll(&mut fds, None).unwrap();
        window.tell(&path);
        let (client, _) = listener.accept().unwrap();
        let request: Request = read_frame(&client).unwrap().unwrap();
        let expected = Op::ResizeConsole {
            columns: 132,
            rows: 43,
        };
        assert_eq!(request.op, expected);
        window.tell(&path);
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "nothing has changed since");
    }

    #[test]
    fn what_is_no_terminal_has_no_window() {
        let (pipe, _end) = io::pipe().unwrap();
        assert!(Window::of(pipe.as_fd()).unwrap().is_none());
    }
}
