//! The way out of a node, between network namespaces: a cable to somebody outside. Nothing leaves the
//! machine.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::netns::Namespace;

/// The node, of an address that guards take for public.
pub const NODE: Ipv4Addr = Ipv4Addr::new(11, 0, 0, 1);

/// Somebody outside, the same.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(11, 0, 0, 9);

/// A node and somebody outside, with a cable between them: `eth0` of each.
#[derive(Debug)]
pub struct WayOut {
    /// The node, which forwards.
    pub node: Namespace,
    /// Where its way leads.
    pub outside: Namespace,
}

impl WayOut {
    /// Makes both.
    ///
    /// # Errors
    /// If this process may not, or `ip` is missing.
    pub fn new() -> Result<Self> {
        let (node, outside) = (Namespace::new()?, Namespace::new()?);
        let far = outside.path();
        node.ip(&format!(
            "link add eth0 type veth peer name eth0 netns {far}"
        ))?;
        for (namespace, address) in [(&node, NODE), (&outside, OUTSIDE)] {
            namespace.ip(&format!("addr add {address}/24 dev eth0"))?;
            namespace.ip("link set eth0 up")?;
        }
        node.ip(&format!("route add default via {OUTSIDE}"))?;
        node.inside(|| Ok(std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?))?;
        Ok(Self { node, outside })
    }
}

/// Protocol, source port and destination port of an IPv4 packet of the node, as it was heard.
pub fn ports_of_node(head: &[u8]) -> Option<(u8, u16, u16)> {
    let packet = head.get(14..)?;
    let is_of_node = head[12..14] == [8, 0] && packet.get(12..16)? == NODE.octets();
    let ports = packet.get(usize::from(packet[0] & 15) * 4..)?;
    let port = |at: usize| Some(u16::from_be_bytes([*ports.get(at)?, *ports.get(at + 1)?]));
    is_of_node.then_some((packet[9], port(0)?, port(2)?))
}
