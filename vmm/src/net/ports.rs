//! The sliver's ports as the outside sees them: each source port of the guest is translated into the
//! sliver's own range, and back. Pure: bytes of headers, and `now` as an argument.
//!
//! Slivers of a node have ranges without a port in common, and the host's masquerade keeps ports:
//! so a port that somebody outside complains of names one sliver, and which port each flow has is
//! known here. A port inside has the same port outside whomever it speaks with (RFC 4787, REQ-1).
//! TCP, UDP, the identifiers of ICMP questions, and what ICMP errors quote of them are translated;
//! addresses are the host's business, and IPv6 goes as it is. So does what a card exchanges with
//! its own network, where nothing is masqueraded: published ports, for one.

mod life;
mod range;
mod rewrite;
mod table;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr};

use crate::nanos::Nanos;
use crate::net::packet::protocol::{ICMP, TCP, UDP};
use crate::net::packet::{Datagram, Kind, Packet, Transport};

use life::Way;
pub use range::{FIRST_PORT, MIN_PORTS, PortRange, RangeError};
use rewrite::{Checksum, End, Place, Quoted};
use table::{Inside, Sign, Table};

/// A packet cannot have a port outside, and is to be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all ports of the sliver's range are taken")]
pub struct PortsFull;

/// The ports of a sliver.
#[derive(Debug)]
pub struct PortMap {
    range: PortRange,
    /// Networks of the cards, as their addresses and prefixes.
    near: Box<[(Ipv4Addr, u8)]>,
    tcp: Table,
    udp: Table,
    icmp: Table,
}

/// What is translated of a packet: a port, and who speaks with whom.
#[derive(Debug, Clone, Copy)]
struct Flow {
    inside: Inside,
    protocol: u8,
    place: Place,
    sign: Sign,
}

/// What can be translated of a packet.
#[derive(Debug, Clone, Copy)]
enum Part {
    Flow(Flow),
    Quotation(Quoted),
}

impl PortMap {
    /// The ports of a sliver whose cards have these addresses, with their prefixes. The seed should
    /// be nobody's guess.
    pub fn new(range: PortRange, cards: &[(Ipv4Addr, u8)], seed: u64) -> Self {
        Self {
            range,
            near: cards.into(),
            tcp: Table::new(range, seed),
            udp: Table::new(range, seed.wrapping_add(1)),
            icmp: Table::new(range, seed.wrapping_add(2)),
        }
    }

    /// The range.
    pub fn range(&self) -> PortRange {
        self.range
    }

    /// How many ports outside are in use, for TCP, UDP and ICMP.
    pub fn in_use(&self, now: Nanos) -> [usize; 3] {
        [&self.tcp, &self.udp, &self.icmp].map(|table| table.len(now))
    }

    /// Translates a packet that the guest sends, whose frame begins with `head`. With
    /// `partial_checksum` its transport checksum is left to others to finish. Gives the port that
    /// the outside sees, or `None` for what is not translated.
    pub fn outgoing(
        &mut self,
        head: &mut [u8],
        packet: &Packet,
        partial_checksum: bool,
        now: Nanos,
    ) -> Result<Option<u16>, PortsFull> {
        let checksum = checksum(partial_checksum);
        match self.part(head, packet, Way::Out) {
            None => Ok(None),
            Some(Part::Flow(flow)) => {
                let table = self.table(flow.protocol);
                let port = table.outside(flow.inside, flow.sign, now);
                let port = port.ok_or(PortsFull)?;
                flow.place.write(head, port, checksum);
                Ok(Some(port))
            }
            Some(Part::Quotation(quoted)) => {
                let inside = Inside {
                    address: quoted.destination,
                    port: quoted.ports.1,
                };
                // An error about what has no port outside is about nothing that came from there.
                if let Some(port) = self.table(quoted.protocol).known(inside, now) {
                    let bytes = packet_bytes(head, packet);
                    quoted.write(bytes, End::Destination, port, checksum);
                }
                Ok(None)
            }
        }
    }

    /// Translates a packet for the guest back, whose frame begins with `head`. Whether there is a
    /// mapping for it; without one it stays as it is.
    pub fn incoming(
        &mut self,
        head: &mut [u8],
        packet: &Packet,
        partial_checksum: bool,
        now: Nanos,
    ) -> bool {
        let checksum = checksum(partial_checksum);
        match self.part(head, packet, Way::In) {
            Some(Part::Flow(flow)) => {
                let table = self.table(flow.protocol);
                let whose = table.whose(flow.inside.port, now);
                if whose.is_none_or(|whose| whose.address != flow.inside.address) {
                    return false;
                }
                let Some(inside) = table.inside(flow.inside.port, flow.sign, now) else {
                    return false;
                };
                flow.place.write(head, inside.port, checksum);
                true
            }
            Some(Part::Quotation(quoted)) => {
                let whose = self.table(quoted.protocol).whose(quoted.ports.0, now);
                match whose.filter(|whose| whose.address == quoted.source) {
                    Some(inside) => {
                        let bytes = packet_bytes(head, packet);
                        quoted.write(bytes, End::Source, inside.port, checksum);
                        true
                    }
                    None => false,
                }
            }
            None => false,
        }
    }

    /// What there is to translate of a packet, if anything.
    fn part(&self, head: &[u8], packet: &Packet, way: Way) -> Option<Part> {
        let Kind::Ip(datagram) = &packet.kind else {
            return None;
        };
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (datagram.source, datagram.destination)
        else {
            return None;
        };
        let (address, remote) = match way {
            Way::Out => (source, destination),
            Way::In => (destination, source),
        };
        let quotation = quotation(head, datagram);
        // Who reports an error may be near, when what it is about is not.
        let far = match (&quotation, way) {
            (Some(quoted), Way::Out) => quoted.source,
            (Some(quoted), Way::In) => quoted.destination,
            (None, _) => remote,
        };
        if self.is_near(far) {
            return None;
        }
        if let Some(quoted) = quotation {
            return Some(Part::Quotation(quoted));
        }
        let ours = |source: u16, destination: u16| match way {
            Way::Out => (source, End::Source),
            Way::In => (destination, End::Destination),
        };
        let (protocol, (port, end), sign) = match datagram.transport {
            Transport::Tcp {
                source,
                destination,
                flags,
            } => (TCP, ours(source, destination), Sign::Segment(flags)),
            Transport::Udp {
                source,
                destination,
            } => (UDP, ours(source, destination), Sign::Datagram),
            Transport::Icmp { kind, id, .. } => match way {
                Way::Out if rewrite::is_question(kind) => (ICMP, ours(id, id), Sign::Question),
                Way::In if rewrite::is_answer(kind) => (ICMP, ours(id, id), Sign::Question),
                _ => return None,
            },
            _ => return None,
        };
        Some(Part::Flow(Flow {
            inside: Inside { address, port },
            protocol,
            place: Place::of(protocol, datagram.transport_at, end)?,
            sign,
        }))
    }

    /// Whether nothing for an address leaves the network of the card that it is sent by.
    fn is_near(&self, address: Ipv4Addr) -> bool {
        address.is_broadcast()
            || address.is_multicast()
            || address.is_link_local()
            || address.is_unspecified()
            || self.near.iter().any(|network| is_in(*network, address))
    }

    fn table(&mut self, protocol: u8) -> &mut Table {
        match protocol {
            TCP => &mut self.tcp,
            UDP => &mut self.udp,
            _ => &mut self.icmp,
        }
    }
}

/// What a packet quotes, if it is an ICMP error about one with ports.
fn quotation(head: &[u8], datagram: &Datagram) -> Option<Quoted> {
    match datagram.transport {
        Transport::Icmp { kind, .. } if rewrite::is_error(kind) => {
            let bytes = &head[..packet_end(head, datagram)];
            Quoted::read(bytes, datagram.transport_at)
        }
        _ => None,
    }
}

/// The bytes of a frame without those that only fill it up.
fn packet_bytes<'a>(head: &'a mut [u8], packet: &Packet) -> &'a mut [u8] {
    let end = match &packet.kind {
        Kind::Ip(datagram) => packet_end(head, datagram),
        _ => 0,
    };
    &mut head[..end]
}

/// Where an IPv4 packet ends in the beginning of a frame.
fn packet_end(head: &[u8], datagram: &Datagram) -> usize {
    let length = head.get(datagram.ip_at + 2..datagram.ip_at + 4);
    let length = length.map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    head.len().min(datagram.ip_at + usize::from(length))
}

fn checksum(partial: bool) -> Checksum {
    match partial {
        true => Checksum::Partial,
        false => Checksum::Whole,
    }
}

fn is_in((network, prefix): (Ipv4Addr, u8), address: Ipv4Addr) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    (network.to_bits() ^ address.to_bits()) & mask == 0
}
