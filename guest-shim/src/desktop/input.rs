//! Standard input, read by a thread that may wait, and the window that standard output is shown in.

use std::io::{BufRead, stdin, stdout};

use rustix::termios::tcgetwinsize;

use crate::console::WindowSize;

pub(crate) async fn read_line() -> Option<String> {
    blocking::unblock(|| next_line(stdin().lock())).await
}

/// As in a slice: what is no UTF-8 is no reason to stop.
fn next_line(mut input: impl BufRead) -> Option<String> {
    let mut bytes = Vec::new();
    if input.read_until(b'\n', &mut bytes).ok()? == 0 {
        return None;
    }
    for end in [b'\n', b'\r'] {
        bytes.pop_if(|last| *last == end);
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

pub(crate) fn window_size() -> Option<WindowSize> {
    let size = tcgetwinsize(stdout()).ok()?;
    Some(WindowSize {
        columns: size.ws_col,
        rows: size.ws_row,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_a_slice_would_read_and_end_with_the_input() {
        let mut input = &b"one\r\n\nth\xffree\nlast"[..];
        let lines: Vec<_> = std::iter::from_fn(|| next_line(&mut input)).collect();
        assert_eq!(lines, ["one", "", "th\u{fffd}ree", "last"]);
    }
}
