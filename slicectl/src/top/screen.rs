//! The table on a terminal: it stays in place, follows the window's size, and keys sort it.
//!
//! Slivers are asked by a thread of its own, so that keys are answered while somebody hangs. The
//! terminal's screen is as before when this ends, whatever ends it.

use std::fmt::Write as _;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::tcgetwinsize;

use super::{View, Wanted, Watched, row, table};
use crate::cli::SortKey;
use crate::problem::{Failure, Problem};
use crate::run::terminal::{self, Terminal};
use crate::signals::{EndSignals, ResizeSignal};

/// The other screen without a cursor, and back (xterm's control sequences, ctlseqs).
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const REST_OF_LINE: &str = "\x1b[K";
const REST_OF_SCREEN: &str = "\x1b[J";
const REVERSE: &str = "\x1b[7m";
const PLAIN: &str = "\x1b[m";

/// Columns and lines where the terminal does not say.
const USUAL_SIZE: (usize, usize) = (80, 24);

/// The last line.
const KEYS: &str = "q quit  sort: c cpu  t throttled  m memory  n net  d disk  u uptime  a name  < >  \
                    r reverse";

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Quit,
    Sort(SortKey),
    Left,
    Right,
    Reverse,
}

/// Shows the table until somebody quits.
pub(super) fn show(wanted: Wanted, interval: Duration, sort: SortKey) -> Result<u8, Failure> {
    let broken = |error: io::Error| Problem::new("the terminal", error.to_string());
    let signals = EndSignals::catch().map_err(broken)?;
    let resized = ResizeSignal::catch().map_err(broken)?;
    let mut views = Views::begin(wanted, interval).map_err(broken)?;
    let mut screen = Screen::enter(sort).map_err(broken)?;
    loop {
        screen.draw().map_err(broken)?;
        let mut fds = vec![
            PollFd::new(&views.bell, PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(resized.as_fd(), PollFlags::IN),
        ];
        if let Some(keys) = &screen.keys {
            fds.push(PollFd::new(keys, PollFlags::IN));
        }
        // An interrupted poll leaves no events: the loop comes round again.
        let _ = poll(&mut fds, None);
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if signals.take().is_some() {
            return Ok(0);
        }
        resized.take();
        if ready[0] {
            screen.view = Some(views.next()?);
        }
        if ready.get(3) == Some(&true) && screen.hear() {
            return Ok(0);
        }
    }
}

/// Columns and lines of the terminal that is standard output.
pub(super) fn size() -> (usize, usize) {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => USUAL_SIZE,
    }
}

/// What the thread that asks has found.
struct Views {
    views: Receiver<Result<View, Problem>>,
    /// Readable when there is one more.
    bell: PipeReader,
}

impl Views {
    fn begin(wanted: Wanted, interval: Duration) -> io::Result<Self> {
        let (bell, mut ring) = io::pipe()?;
        let (tell, views) = mpsc::channel();
        let ask = move || {
            let mut watched = Watched::new(wanted);
            loop {
                let sent = tell.send(watched.look()).is_ok();
                if !sent || ring.write_all(&[0]).is_err() {
                    return;
                }
                std::thread::sleep(interval);
            }
        };
        let thread = std::thread::Builder::new().name("asker".to_owned());
        thread.spawn(ask)?;
        Ok(Self { views, bell })
    }

    fn next(&mut self) -> Result<View, Problem> {
        let gone = || Problem::new("top", "the thread that asks slivers has ended");
        self.bell.read_exact(&mut [0]).map_err(|_| gone())?;
        self.views.recv().map_err(|_| gone())?
    }
}

/// The terminal while the table is on it.
struct Screen {
    /// Standard input, if its keys come to this process.
    keys: Option<Terminal>,
    sort: SortKey,
    reversed: bool,
    view: Option<View>,
}

impl Screen {
    fn enter(sort: SortKey) -> io::Result<Self> {
        let keys = terminal::is_ours().then(Terminal::take).transpose()?;
        let screen = Self {
            keys,
            sort,
            reversed: false,
            view: None,
        };
        write(ENTER)?;
        Ok(screen)
    }

    fn draw(&mut self) -> io::Result<()> {
        let (width, height) = size();
        let Some(view) = &mut self.view else {
            return write(&format!("{HOME}asking ...{REST_OF_SCREEN}"));
        };
        row::sort(&mut view.slivers, self.sort, self.reversed);
        let text = table::text(view, self.sort, width);
        write(&frame(&text, self.keys.is_some(), (width, height)))
    }

    /// Does what keys ask for; whether that is to quit.
    fn hear(&mut self) -> bool {
        let mut keys = [0; 64];
        let read = match &self.keys {
            Some(terminal) => rustix::io::read(terminal, &mut keys),
            None => return false,
        };
        let Ok(len) = read else {
            return read != Err(rustix::io::Errno::INTR);
        };
        let columns = table::keys();
        let at = columns.iter().position(|key| *key == self.sort);
        let at = at.unwrap_or_default();
        for wish in wishes(&keys[..len]) {
            match wish {
                Wish::Quit => return true,
                Wish::Sort(key) => self.sort = key,
                Wish::Left => self.sort = columns[at.saturating_sub(1)],
                Wish::Right => self.sort = columns[(at + 1).min(columns.len() - 1)],
                Wish::Reverse => self.reversed = !self.reversed,
            }
        }
        // Nobody is at the keyboard any more.
        len == 0
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = write(LEAVE);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What is sent to a terminal of this size for `text`, whose second line is the table's head.
fn frame(text: &str, has_keys: bool, (width, height): (usize, usize)) -> String {
    let mut out = HOME.to_owned();
    let room = height.saturating_sub(usize::from(has_keys));
    for (i, line) in text.lines().take(room).enumerate() {
        let (before, after) = if i == 1 { (REVERSE, PLAIN) } else { ("", "") };
        let end = if i + 1 < height { "\r\n" } else { "" };
        let _ = write!(out, "{before}{line}{after}{REST_OF_LINE}{end}");
    }
    out.push_str(REST_OF_SCREEN);
    if has_keys {
        let keys: String = KEYS.chars().take(width).collect();
        let _ = write!(out, "\x1b[{height};1H{keys}");
    }
    out
}

/// What these bytes from a terminal ask for. Arrows come as three.
fn wishes(keys: &[u8]) -> Vec<Wish> {
    let mut wishes = Vec::new();
    let mut rest = keys;
    while let Some((&key, after)) = rest.split_first() {
        rest = after;
        wishes.extend(match key {
            b'\x1b' => {
                let (wish, len) = match rest {
                    [b'[' | b'O', b'D', ..] => (Some(Wish::Left), 2),
                    [b'[' | b'O', b'C', ..] => (Some(Wish::Right), 2),
                    [] => (Some(Wish::Quit), 0),
                    // Some other key.
                    _ => (None, rest.len()),
                };
                rest = &rest[len..];
                wish
            }
            // Also Ctrl-C and Ctrl-D.
            b'q' | b'Q' | 3 | 4 => Some(Wish::Quit),
            b'c' | b'C' => Some(Wish::Sort(SortKey::Cpu)),
            b't' | b'T' => Some(Wish::Sort(SortKey::Throttled)),
            b'm' | b'M' => Some(Wish::Sort(SortKey::Memory)),
            b'n' | b'N' => Some(Wish::Sort(SortKey::Net)),
            b'd' | b'D' => Some(Wish::Sort(SortKey::Disk)),
            b'u' | b'U' => Some(Wish::Sort(SortKey::Uptime)),
            b'a' | b'A' => Some(Wish::Sort(SortKey::Name)),
            b'r' | b'R' => Some(Wish::Reverse),
            b'<' => Some(Wish::Left),
            b'>' => Some(Wish::Right),
            _ => None,
        });
    }
    wishes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_from_each_other_and_from_what_means_nothing() {
        assert_eq!(wishes(b"x\x1b[Dq"), [Wish::Left, Wish::Quit]);
        assert_eq!(
            wishes(b"\x1bOCr>"),
            [Wish::Right, Wish::Reverse, Wish::Right]
        );
        assert_eq!(wishes(b"m\x1b[5~"), [Wish::Sort(SortKey::Memory)]);
        assert_eq!(wishes(b"\x03"), [Wish::Quit]);
        assert_eq!(wishes(b"\x1b"), [Wish::Quit]);
    }

    #[test]
    fn a_frame_has_no_more_lines_than_the_terminal() {
        let text = "summary\nhead\n1\n2\n3\n4\n";
        for height in 1..10 {
            let frame = frame(text, true, (20, height));
            assert!(frame.matches("\r\n").count() < height, "{frame:?}");
            assert!(
                frame.contains(&format!("\x1b[{height};1Hq quit")),
                "{frame:?}"
            );
        }
    }
}
