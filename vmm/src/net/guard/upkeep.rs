//! What an unmodified guest sends to stay on its link: neighbour discovery for its own addresses,
//! the search for routers, membership of groups. It does not leave the link, and has no other rules.

use std::net::{IpAddr, Ipv6Addr};

use super::{Card, Reason};
use crate::net::packet::{Datagram, Transport, protocol};

/// Whether a datagram is of that kind. What speaks for others is refused.
pub(super) fn is_upkeep(own: &Card, datagram: &Datagram) -> Result<bool, Reason> {
    let destination = datagram.destination;
    match (destination, datagram.transport) {
        // Redirects, and routers' advertisements (RFC 792, 1256).
        (_, Transport::Icmp { kind: 5 | 9, .. }) => Err(Reason::ForgedNeighbour),
        (IpAddr::V4(group), _) => {
            let [a, b, c, _] = group.octets();
            Ok(datagram.protocol == protocol::IGMP && [a, b, c] == [224, 0, 0])
        }
        (IpAddr::V6(to), Transport::Icmp6 { kind, .. }) => match kind {
            // The same for IPv6 (RFC 4861).
            134 | 137 => Err(Reason::ForgedNeighbour),
            136 if !{ datagram.target }.is_some_and(|target| own.owns(target.into())) => {
                Err(Reason::ForgedNeighbour)
            }
            133 | 135 | 136 => Ok(is_link_group(to) || own.is_neighbour(destination)),
            // Listener discovery (RFC 2710, 3810).
            131 | 132 | 143 => Ok(is_link_group(to)),
            _ => Ok(false),
        },
        _ => Ok(false),
    }
}

/// Groups that no router passes on (RFC 4291, 2.7).
fn is_link_group(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 0xff && second & 0xf == 2
}
