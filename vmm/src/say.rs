//! The monitor's own messages, on standard error, one line each.
//!
//! A message never stops the monitor: if nobody reads, or the other end is gone, it is lost. Not
//! `eprintln!`, which waits for a slow reader and panics when there is none.

use std::fmt::Write;

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

/// The message as one line that cannot pass for two, or for another's.
fn line(message: &str) -> String {
    let mut line = String::from("slicevmm: ");
    for c in message.chars() {
        if line.len() > MAX_LINE - 16 {
            line.push_str("...");
            break;
        }
        if c.is_control() {
            let _ = write!(line, "{}", c.escape_default());
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    line
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
