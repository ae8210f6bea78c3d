//! What an unmodified guest sends to stay on its link: neighbour discovery for its own addresses,
//! the search for routers, membership of groups. It does not leave the link, and has no other rules.

use std::net::{IpAddr, Ipv6Addr};

use super::{Card, Reason};
use crate::net::packet::{Datagram, Discovery, Transport, protocol};

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
        (IpAddr::V6(to), Transport::Icmp6 { kind, .. }) => match (kind, datagram.discovery) {
            // The same for IPv6 (RFC 4861).
            (134 | 137, _) => Err(Reason::ForgedNeighbour),
            (_, Some(discovery)) if speaks_for_others(own, datagram, kind, discovery) => {
                Err(Reason::ForgedNeighbour)
            }
            (_, Some(_)) => Ok(is_link_group(to) || own.is_neighbour(destination)),
            // Listener discovery (RFC 2710, 3810).
            (131 | 132 | 143, _) => Ok(is_link_group(to)),
            _ => Ok(false),
        },
        _ => Ok(false),
    }
}

/// Whether it tells another's hardware address, or claims another's address: by answering for it, or
/// by looking whether it is free, which keeps its owner from using it (RFC 4862, 5.4.3).
fn speaks_for_others(own: &Card, datagram: &Datagram, kind: u8, discovery: Discovery) -> bool {
    let claims = match kind {
        135 => datagram.source.is_unspecified(),
        kind => kind == 136,
    };
    discovery.names_another || claims && !own.owns(discovery.target.into())
}

/// Groups that no router passes on (RFC 4291, 2.7).
fn is_link_group(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 0xff && second & 0xf == 2
}
