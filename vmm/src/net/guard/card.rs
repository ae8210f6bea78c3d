//! A card of the sliver: which addresses are its own, and what it must send so that an unmodified
//! guest stays on its link.
//!
//! A lease of DHCP is learned from the answer of the server. An address of IPv6 that others may reach
//! is the card's only if its spec says so: none is learned from routers, and a guest does without
//! SLAAC and DHCPv6. But any address of the link is its own, however the guest has come to it, unless
//! it is the gateway's or a router's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Reason;
use super::lease::Lease;
use crate::net::packet::{Arp, Datagram, Kind, Packet, Transport, protocol};
use crate::net::prefix::Prefix;
use crate::spec::{MAX_DNS, NetSpec};

/// The addresses of a card.
#[derive(Debug, Clone)]
pub struct Card {
    mac: [u8; 6],
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
    subnets: [Option<Prefix>; 2],
    gateways: [Option<IpAddr>; 2],
    name_servers: [Option<IpAddr>; MAX_DNS],
    /// Whether its spec tells any address.
    known: bool,
    /// Whether the guest may ask a DHCP server.
    asks: bool,
    /// Whether its address is what the server answers.
    leases: bool,
    /// Whether the guest has asked since the last lease.
    asked: bool,
    /// The server that gave the first lease: its hardware address, and its own.
    server: Option<([u8; 6], Ipv4Addr)>,
    /// The address on the link of who advertised itself as a router.
    router: Option<Ipv6Addr>,
}

impl Card {
    /// The card that a spec describes.
    pub fn new(spec: &NetSpec) -> Self {
        let (ipv4, ipv6) = (spec.ipv4(), spec.ipv6());
        let known = ipv4.is_some() || ipv6.is_some() || spec.dhcp();
        let mut name_servers = [None; MAX_DNS];
        for (slot, server) in name_servers.iter_mut().zip(spec.dns()) {
            *slot = Some(*server);
        }
        Self {
            mac: spec.mac().bytes(),
            ipv4: ipv4.map(|(address, _)| address),
            ipv6: ipv6.map(|(address, _)| address),
            subnets: [
                ipv4.map(|(address, bits)| Prefix::holding(address.into(), bits)),
                ipv6.map(|(address, bits)| Prefix::holding(address.into(), bits)),
            ],
            gateways: [
                spec.gateway4().map(IpAddr::from),
                spec.gateway6().map(IpAddr::from),
            ],
            name_servers,
            known,
            asks: spec.dhcp() || !known,
            leases: ipv4.is_none() && (spec.dhcp() || !known),
            asked: false,
            server: None,
            router: None,
        }
    }

    pub(super) fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// The gateways for IPv4 and for IPv6.
    pub(super) fn gateways(&self) -> [Option<IpAddr>; 2] {
        self.gateways
    }

    pub(super) fn is_gateway(&self, address: IpAddr) -> bool {
        self.gateways.contains(&Some(address))
    }

    pub(super) fn is_name_server(&self, address: IpAddr) -> bool {
        self.name_servers.contains(&Some(address))
    }

    /// Whether an address is on the card's link.
    pub(super) fn is_neighbour(&self, address: IpAddr) -> bool {
        let is_link_local = matches!(address, IpAddr::V6(six) if six.is_unicast_link_local());
        let mut subnets = self.subnets.iter().flatten();
        is_link_local
            || subnets.any(|subnet| subnet.contains(address))
            || self.is_gateway(address)
            || self.is_server(address)
    }

    fn is_server(&self, address: IpAddr) -> bool {
        self.server
            .is_some_and(|(_, server)| IpAddr::V4(server) == address)
    }

    /// Whether an address is its own to use as a source.
    pub(super) fn owns(&self, address: IpAddr) -> bool {
        match address {
            _ if self.is_gateway(address) => false,
            IpAddr::V6(six) if self.router == Some(six) => false,
            _ if !self.known => true,
            IpAddr::V4(four) => self.ipv4 == Some(four),
            IpAddr::V6(six) => self.ipv6 == Some(six) || six.is_unicast_link_local(),
        }
    }

    /// All of its subnet: the last address, and the first, which meant the same once (RFC 1122,
    /// 3.2.1.3).
    pub(super) fn is_broadcast(&self, address: Ipv4Addr) -> bool {
        let is_of_subnet = self.subnets[0].is_some_and(|subnet| {
            let rest = u32::MAX.checked_shr(subnet.bits().into()).unwrap_or(0);
            let own = address.to_bits() & rest;
            rest > 1 && subnet.contains(address.into()) && (own == rest || own == 0)
        });
        address.is_broadcast() || is_of_subnet
    }

    pub(super) fn judge_arp(&self, arp: &Arp) -> Result<(), Reason> {
        // Who asks whether an address is free has none yet, or it is that one (RFC 5227): for
        // another's this would be in its way.
        let may = match arp.sender.is_unspecified() {
            true => self.ipv4.is_none() || self.owns(arp.target.into()),
            false => self.owns(arp.sender.into()),
        };
        match may && arp.sender_mac == self.mac {
            true => Ok(()),
            false => Err(Reason::ForgedArp),
        }
    }

    pub(super) fn judge_source(&self, datagram: &Datagram) -> Result<(), Reason> {
        let may = match (datagram.source, datagram.transport) {
            // Duplicate address detection, the search for routers, and membership of groups
            // (RFC 4862, 3810, 3376).
            (IpAddr::V6(none), Transport::Icmp6 { kind, .. }) if none.is_unspecified() => {
                matches!(kind, 131..=133 | 135 | 143)
            }
            (IpAddr::V4(none), _) if none.is_unspecified() => datagram.protocol == protocol::IGMP,
            (source, _) => self.owns(source) && !source.is_multicast() && !source.is_unspecified(),
        };
        match may {
            true => Ok(()),
            false => Err(Reason::ForgedIp),
        }
    }

    /// Whether it asks a DHCP server, on this link only, for an address.
    pub(super) fn asks_dhcp(&mut self, datagram: &Datagram) -> bool {
        let asks = Transport::Udp {
            source: 68,
            destination: 67,
        };
        let (IpAddr::V4(from), IpAddr::V4(to)) = (datagram.source, datagram.destination) else {
            return false;
        };
        if !self.asks || datagram.transport != asks {
            return false;
        }
        let may = match from.is_unspecified() {
            true => to.is_broadcast(),
            false => self.owns(from.into()) && (to.is_broadcast() || self.is_neighbour(to.into())),
        };
        self.asked |= may;
        may
    }

    /// Learns from what has come who is on the link, and which address the guest has got. `head` is
    /// the frame's first bytes.
    #[inline]
    pub(super) fn learn(&mut self, packet: &Packet, head: &[u8]) {
        let Kind::Ip(datagram) = &packet.kind else {
            return;
        };
        match datagram.transport {
            Transport::Icmp6 { kind: 134, .. } => self.learn_router(datagram, head),
            Transport::Udp { source: 67, .. } if self.leases && self.asked => {
                self.learn_lease(packet.source_mac, datagram, head);
            }
            _ => {}
        }
    }

    /// Nobody but a neighbour advertises itself (RFC 4861, 6.1.2), and the guest is no router.
    fn learn_router(&mut self, datagram: &Datagram, head: &[u8]) {
        const HOP_LIMIT: usize = 7;
        let is_near = head.get(datagram.ip_at + HOP_LIMIT) == Some(&255);
        if let (IpAddr::V6(from), true) = (datagram.source, is_near)
            && from.is_unicast_link_local()
        {
            self.router = Some(from);
        }
    }

    /// Learns from the answer of a DHCP server which address the guest has got. Only who gave the
    /// first lease, or is on the link, is believed, and only when the guest has asked: nobody
    /// outside can give it an address to forge.
    fn learn_lease(&mut self, mac: [u8; 6], datagram: &Datagram, head: &[u8]) {
        let IpAddr::V4(from) = datagram.source else {
            return;
        };
        let server = (mac, from);
        let believed = self.server.is_none_or(|known| known == server)
            || self.subnets[0].is_some_and(|subnet| subnet.contains(from.into()));
        let lease = Lease::read(datagram, head).filter(|lease| lease.mac == self.mac);
        if let (Some(lease), true) = (lease, believed) {
            self.asked = false;
            self.server = Some(server);
            self.ipv4 = Some(lease.address);
            self.subnets[0] = lease.subnet;
            self.gateways[0] = lease.gateway.map(IpAddr::from);
        }
    }
}
