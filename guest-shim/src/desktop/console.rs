//! Standard output and standard error. A reader that has gone away is no error: as in a slice,
//! output that nobody takes is dropped.

use std::fmt::Arguments;
use std::io::{Write, stderr, stdout};

pub(crate) fn print(text: Arguments<'_>) {
    let _ = stdout().lock().write_fmt(text);
}

pub(crate) fn eprint(text: Arguments<'_>) {
    let _ = stderr().lock().write_fmt(text);
}

pub(crate) fn flush() {
    let _ = stdout().lock().flush();
}
