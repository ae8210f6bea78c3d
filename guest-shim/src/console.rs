//! The console: functions behind the print macros.
//!
//! What one macro call prints stays together, also when several vCPUs print at once.

use core::fmt;

use crate::backend::console as backend;

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
