//! The backend of an ordinary process: what a sliver has, made of what the host offers.
//!
//! It offers the same narrow interface as the slice backend (idle, wake, yield, exit; two clocks;
//! a console; who and what this is), so that everything above it is the same code.

pub(crate) mod balloon;
pub(crate) mod block;
pub(crate) mod clock;
pub(crate) mod console;
pub(crate) mod control;
pub(crate) mod identity;
pub(crate) mod input;
pub(crate) mod net;
pub(crate) mod rand;
pub(crate) mod task;
pub(crate) mod vsock;
