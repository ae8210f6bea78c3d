//! A value of JSON that may be missing. Part of several examples.

use core::fmt::{self, Display};

/// A value, or `null`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OrNull<T>(pub(crate) Option<T>);

impl<T: Display> Display for OrNull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("null"),
        }
    }
}
