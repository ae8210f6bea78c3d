//! The backend of a native slice: the slice ABI as the guest sees it, and nothing below it.
//!
//! Everything is mapped one to one, so an address here is also what a device is told.

mod entry;
mod heap;
mod panic;
mod turn;

pub(crate) mod balloon;
pub(crate) mod block;
pub(crate) mod clock;
pub(crate) mod console;
pub(crate) mod control;
pub(crate) mod device;
pub(crate) mod identity;
pub(crate) mod input;
pub(crate) mod net;
pub(crate) mod rand;
pub(crate) mod task;
pub(crate) mod vsock;

pub use identity::info;
