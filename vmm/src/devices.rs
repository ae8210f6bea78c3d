//! Devices of a sliver, and the bus that finds them by address.

pub mod bus;
pub mod output;
pub mod virtio;
