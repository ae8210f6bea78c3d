//! Standard input, read by a thread that may wait, and the window that standard output is shown in.

use std::io::{stdin, stdout};

use rustix::termios::tcgetwinsize;

use crate::console::WindowSize;

pub(crate) async fn read_line() -> Option<String> {
    blocking::unblock(|| stdin().lines().next()?.ok()).await
}

pub(crate) fn window_size() -> Option<WindowSize> {
    let size = tcgetwinsize(stdout()).ok()?;
    Some(WindowSize {
        columns: size.ws_col,
        rows: size.ws_row,
    })
}
