//! The console: functions behind the print macros, and what people type.
//!
//! What one macro call prints stays together, also when several vCPUs print at once.

#[cfg(any(test, not(feature = "desktop")))]
pub(crate) mod typed;

use alloc::string::String;
use core::fmt;

use crate::backend::{console as backend, input};

/// Prints; [`print!`](crate::print) is the usual way to call it.
pub fn print(text: fmt::Arguments<'_>) {
    backend::print(text);
}

/// Prints a complaint, at once; [`eprint!`](crate::eprint) is the usual way to call it.
pub fn eprint(text: fmt::Arguments<'_>) {
    backend::eprint(text);
}

/// Sends off what is printed but has no line end yet, and waits until all output has been taken.
///
/// ```
/// guest_shim::print!("working... ");
/// guest_shim::console::flush();
/// ```
pub fn flush() {
    backend::flush();
}

/// The next line that somebody has typed, or a file or another program has sent, without its end;
/// `None` when there will be no more: on a desktop at the end of the input, in a slice if it has no
/// console. A console's device cannot tell a slice that its input has ended, so let those who send
/// lines say which is the last.
///
/// If nobody waits for it any more, the line may be lost.
///
/// ```no_run
/// use guest_shim::{console, task};
///
/// task::block_on(async {
///     while let Some(line) = console::read_line().await {
///         guest_shim::println!("you said {line}");
///     }
/// });
/// ```
pub async fn read_line() -> Option<String> {
    input::read_line().await
}

/// The size of the window that the console is shown in, if it is in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// The size of the window at this moment.
pub fn window_size() -> Option<WindowSize> {
    let size = input::window_size()?;
    (size.columns > 0 && size.rows > 0).then_some(size)
}
