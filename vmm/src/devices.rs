//! Devices of a sliver, the bus that finds them by address, and who attends to them.

pub mod assemble;
pub mod attendant;
pub mod bus;
pub mod guest_io;
pub mod input;
pub mod output;
pub mod outside;
pub mod ports;
pub mod rated;
pub mod uplink;
pub mod virtio;
