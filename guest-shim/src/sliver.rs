//! Who this sliver is, what it was asked to do, and how it ends.

use crate::backend::{control, identity};
use crate::console;

/// The arguments, without a program name.
///
/// ```
/// println!("{} arguments", guest_shim::args().len());
/// for arg in guest_shim::args() {
///     guest_shim::println!("{arg}");
/// }
/// ```
pub fn args() -> Args {
    Args(identity::args())
}

/// Iterator over the arguments.
#[derive(Debug, Clone)]
pub struct Args(identity::Args);

impl Iterator for Args {
    type Item = &'static str;

    fn next(&mut self) -> Option<&'static str> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Args {}

/// Name of this sliver, unique on its node.
pub fn sliver_name() -> &'static str {
    identity::sliver_name()
}

/// Name of the slice that this sliver belongs to.
pub fn slice_name() -> &'static str {
    identity::slice_name()
}

/// Ends the sliver, with all its vCPUs, after printing what is still to print. 0 means success.
pub fn exit(status: u8) -> ! {
    console::flush();
    control::exit(status)
}
