//! What is told of network cards.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

/// A network card and its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Interface {
    /// Its name: `net0`, or what the host calls it.
    pub name: String,
    /// Its hardware address; zeros if it has none.
    pub mac: [u8; 6],
    /// The longest packet that it carries, in bytes.
    pub mtu: usize,
    /// Its addresses, each with the length of its prefix in bits.
    pub addresses: Vec<(IpAddr, u8)>,
}
