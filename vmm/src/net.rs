//! The way out to the host's network.

pub mod bucket;
pub mod ports;
pub mod prefix;
pub mod tap;
#[cfg(test)]
pub(crate) mod testing;
pub mod wire;
