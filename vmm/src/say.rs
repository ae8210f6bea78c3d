//! The monitor's own messages, on standard error, one line each.
//!
//! A message never stops the monitor: if nobody reads, or the other end is gone, it is lost. Not
//! `eprintln!`, which waits for a slow reader and panics when there is none.

use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::stdio::stderr;

/// A line of at most this length goes into a pipe whole and at once (POSIX, `PIPE_BUF`).
const MAX_LINE: usize = 4096;

/// Says one line.
pub fn say(message: &str) {
    if has_room() {
        let _ = rustix::io::write(stderr(), line(message).as_bytes());
    }
}

fn has_room() -> bool {
    let stderr = stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1..))
}

/// The message as one line of bounded length.
fn line(message: &str) -> String {
    let mut line = String::from("slicevmm: ");
    line.push_str(&shown(message, MAX_LINE - 64));
    line.push('\n');
    line
}

/// Text from outside as it may be shown: in one line that cannot pass for two, move a terminal's
/// cursor or turn the direction of writing, and cut to about `longest` bytes.
pub fn shown(text: &str, longest: usize) -> String {
    let mut line = String::with_capacity(text.len().min(longest));
    for c in text.chars() {
        if line.len() > longest {
            line.push_str("...");
            break;
        }
        let breaks_or_turns = matches!(
            c,
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        );
        if c.is_control() || breaks_or_turns {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// A path as it may be shown.
pub fn shown_path(path: &Path) -> String {
    const PATH_MAX: usize = 4096;
    shown(&path.to_string_lossy(), PATH_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_whatever_it_holds() {
        assert_eq!(line("a b"), "slicevmm: a b\n");
        assert_eq!(
            line("a\nslicevmm: b\x1b["),
            "slicevmm: a\\nslicevmm: b\\u{1b}[\n"
        );
        let long = line(&"x".repeat(10_000));
        assert!(long.len() <= MAX_LINE && long.ends_with("...\n"));
    }
}
