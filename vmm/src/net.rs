//! The way out to the host's network.

pub mod ports;
pub mod tap;
#[cfg(test)]
pub(crate) mod testing;
