//! The jail of a monitor: what a guest that has taken over its monitor finds itself in.
//!
//! A monitor is born jailed. [`spawn`] makes a process in namespaces of its own, gives it an empty
//! root and a user that nobody else is, takes every privilege away and only then starts the program:
//! no line of it ever runs with more. What it works with comes as open descriptors.

mod enter;
mod host;
mod landlock;
mod layers;
mod shown;
mod spawn;
#[cfg(test)]
mod tests;

pub use enter::SHOWN;
pub use host::{Missing, missing};
pub use landlock::{LandlockError, forbid_everything};
pub use layers::{Layer, Layers, UnknownLayer};
pub use spawn::{Ended, JailError, Jailed, Launch, Step, gives_own_user, spawn};
