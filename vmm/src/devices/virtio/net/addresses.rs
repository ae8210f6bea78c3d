//! What the guest is told of its addresses, in the info page.

use std::net::IpAddr;

use slice_abi::info::{NET_DHCP, NetConfig};

use crate::spec::NetSpec;

/// The addresses of the card at place `device` of the device table.
pub fn net_config(spec: &NetSpec, device: u32) -> NetConfig {
    let mut config = NetConfig {
        device,
        flags: if spec.dhcp() { NET_DHCP } else { 0 },
        ..NetConfig::default()
    };
    if let Some((address, prefix)) = spec.ipv4() {
        (config.ipv4, config.prefix4) = (address.octets(), prefix);
    }
    if let Some((address, prefix)) = spec.ipv6() {
        (config.ipv6, config.prefix6) = (address.octets(), prefix);
    }
    if let Some(gateway) = spec.gateway4() {
        config.gateway4 = gateway.octets();
    }
    if let Some(gateway) = spec.gateway6() {
        config.gateway6 = gateway.octets();
    }
    for (slot, server) in config.dns.iter_mut().zip(spec.dns()) {
        *slot = match server {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
    }
    config
}
