//! What a frame says of itself, as far as it matters who it comes from and where it goes. Pure.
//!
//! A frame is judged by its first bytes, read once; headers that do not lie within them make it
//! malformed. Nothing is allocated, and every byte is hostile.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// First bytes of a frame that are looked at: Ethernet, and the longest headers of IPv4 and TCP or
/// a usual chain of IPv6's, or what matters in the answer of a DHCP server.
pub const HEAD_BYTES: usize = 512;

/// Bytes of an Ethernet header.
const ETHERNET_BYTES: usize = 14;
/// Extension headers of IPv6 that are followed at most.
const MOST_EXTENSIONS: usize = 8;

/// Numbers of protocols (RFC 5237).
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IGMP.
    pub const IGMP: u8 = 2;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMP6: u8 = 58;
}

/// A frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Hardware address of its sender.
    pub source_mac: [u8; 6],
    /// Hardware address of its receiver.
    pub destination_mac: [u8; 6],
    /// Bytes of the frame.
    pub frame_bytes: usize,
    /// What it carries.
    pub kind: Kind,
}

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A datagram of IPv4 or IPv6.
    Ip(Datagram),
    /// A question or an answer of ARP about IPv4 on Ethernet (RFC 826).
    Arp(Arp),
    /// Something else, with this EtherType.
    Other(u16),
    /// Something that contradicts itself.
    Malformed(Flaw),
}

/// Why a frame makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// A header is cut off, or does not lie within the first bytes.
    Short,
    /// A length contradicts another.
    Length,
    /// A field has a value that its standard does not know.
    Field,
    /// It says by which hosts it goes (RFC 791, 3.1; RFC 5095): its destination tells nothing.
    Routed,
}

/// A datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    /// Where it says it comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// Number of its protocol, that of the last extension header for IPv6.
    pub protocol: u8,
    /// The header of that protocol.
    pub transport: Transport,
    /// Bytes of all headers, with Ethernet's: what each segment repeats.
    pub header_bytes: usize,
    /// Where the IP header begins.
    pub ip_at: usize,
    /// Where the transport's begins.
    pub transport_at: usize,
}

/// The header behind IP's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// Port of the sender.
        source: u16,
        /// Port of the receiver.
        destination: u16,
        /// The flags, FIN being the least bit.
        flags: u8,
    },
    /// UDP.
    Udp {
        /// Port of the sender.
        source: u16,
        /// Port of the receiver.
        destination: u16,
    },
    /// ICMP.
    Icmp {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
        /// The identifier of an echo, 0 for others.
        id: u16,
    },
    /// ICMP for IPv6.
    Icmp6 {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
        /// The identifier of an echo, 0 for others.
        id: u16,
        /// The address that neighbour discovery is about (RFC 4861).
        target: Option<Ipv6Addr>,
    },
    /// A fragment that is not the first.
    Fragment,
    /// Another protocol.
    Other,
}

/// A packet of ARP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// Whether it answers, rather than asks.
    pub is_reply: bool,
    /// Hardware address that it tells as its sender's.
    pub sender_mac: [u8; 6],
    /// Address that it tells as its sender's.
    pub sender: Ipv4Addr,
    /// Address that it is about.
    pub target: Ipv4Addr,
}

/// What a flow is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// Address of the sender.
    pub source: IpAddr,
    /// Address of the receiver.
    pub destination: IpAddr,
    /// Number of the protocol.
    pub protocol: u8,
    /// Port of the sender; the identifier of an ICMP echo; 0 if there is none.
    pub source_port: u16,
    /// Port of the receiver, or 0.
    pub destination_port: u16,
}

impl Packet {
    /// Reads a frame of `frame_bytes` bytes of which `head` is the first [`HEAD_BYTES`], or all.
    pub fn parse(head: &[u8], frame_bytes: usize) -> Self {
        let Some((ethernet, _)) = head.split_first_chunk::<ETHERNET_BYTES>() else {
            return Self {
                source_mac: [0; 6],
                destination_mac: [0; 6],
                frame_bytes,
                kind: Kind::Malformed(Flaw::Short),
            };
        };
        let mac = |at: usize| std::array::from_fn(|index| ethernet[at + index]);
        let kind = match u16::from_be_bytes([ethernet[12], ethernet[13]]) {
            0x0800 => ipv4(head, frame_bytes).map(Kind::Ip),
            0x86dd => ipv6(head, frame_bytes).map(Kind::Ip),
            0x0806 => arp(head).map(Kind::Arp),
            other => Ok(Kind::Other(other)),
        };
        Self {
            source_mac: mac(6),
            destination_mac: mac(0),
            frame_bytes,
            kind: kind.unwrap_or_else(Kind::Malformed),
        }
    }

    /// The flow that it belongs to, if it is a datagram.
    pub fn tuple(&self) -> Option<Tuple> {
        let Kind::Ip(datagram) = &self.kind else {
            return None;
        };
        let (source_port, destination_port) = match datagram.transport {
            Transport::Tcp {
                source,
                destination,
                ..
            }
            | Transport::Udp {
                source,
                destination,
            } => (source, destination),
            Transport::Icmp { id, .. } | Transport::Icmp6 { id, .. } => (id, 0),
            Transport::Fragment | Transport::Other => (0, 0),
        };
        Some(Tuple {
            source: datagram.source,
            destination: datagram.destination,
            protocol: datagram.protocol,
            source_port,
            destination_port,
        })
    }
}

impl Tuple {
    /// The same flow as the other side sends it. Of an ICMP echo both sides name the identifier
    /// first.
    pub fn reversed(&self) -> Self {
        let is_echo = matches!(self.protocol, protocol::ICMP | protocol::ICMP6);
        let (source_port, destination_port) = match is_echo {
            true => (self.source_port, self.destination_port),
            false => (self.destination_port, self.source_port),
        };
        Self {
            source: self.destination,
            destination: self.source,
            protocol: self.protocol,
            source_port,
            destination_port,
        }
    }
}

fn word(head: &[u8], at: usize) -> Result<u16, Flaw> {
    let bytes = head.get(at..at + 2).ok_or(Flaw::Short)?;
    Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn byte(head: &[u8], at: usize) -> Result<u8, Flaw> {
    head.get(at).copied().ok_or(Flaw::Short)
}

fn address4(head: &[u8], at: usize) -> Result<Ipv4Addr, Flaw> {
    let bytes = head.get(at..).and_then(<[u8]>::first_chunk::<4>);
    bytes.map(|bytes| Ipv4Addr::from(*bytes)).ok_or(Flaw::Short)
}

fn address6(head: &[u8], at: usize) -> Result<Ipv6Addr, Flaw> {
    let bytes = head.get(at..).and_then(<[u8]>::first_chunk::<16>);
    bytes.map(|bytes| Ipv6Addr::from(*bytes)).ok_or(Flaw::Short)
}

/// RFC 791.
fn ipv4(head: &[u8], frame_bytes: usize) -> Result<Datagram, Flaw> {
    let at = ETHERNET_BYTES;
    let first = byte(head, at)?;
    let header = usize::from(first & 0xf) * 4;
    if first >> 4 != 4 {
        return Err(Flaw::Field);
    }
    let total = usize::from(word(head, at + 2)?);
    // Ethernet pads short frames; a bundle of segments may leave the length to the host.
    if header < 20 || total < header || at + total > frame_bytes {
        return Err(Flaw::Length);
    }
    if header > 20 && is_routed(head.get(at + 20..at + header).ok_or(Flaw::Short)?) {
        return Err(Flaw::Routed);
    }
    let (offset, more) = (
        word(head, at + 6)? & 0x1fff,
        byte(head, at + 6)? & 0x20 != 0,
    );
    let protocol = byte(head, at + 9)?;
    let (source, destination) = (address4(head, at + 12)?, address4(head, at + 16)?);
    let transport_at = at + header;
    let (transport, bytes) = match offset {
        0 => transport(head, transport_at, at + total, protocol)?,
        _ => (Transport::Fragment, 0),
    };
    if !more && offset == 0 && protocol == protocol::UDP {
        whole_udp(head, transport_at, at + total)?;
    }
    Ok(Datagram {
        source: source.into(),
        destination: destination.into(),
        protocol,
        transport,
        header_bytes: transport_at + bytes,
        ip_at: at,
        transport_at,
    })
}

/// RFC 8200.
fn ipv6(head: &[u8], frame_bytes: usize) -> Result<Datagram, Flaw> {
    let at = ETHERNET_BYTES;
    if byte(head, at)? >> 4 != 6 {
        return Err(Flaw::Field);
    }
    let end = at + 40 + usize::from(word(head, at + 4)?);
    if end > frame_bytes {
        return Err(Flaw::Length);
    }
    let (source, destination) = (address6(head, at + 8)?, address6(head, at + 24)?);
    let (mut next, mut here) = (byte(head, at + 6)?, at + 40);
    let (mut later, mut more) = (false, false);
    for turn in 0.. {
        // Hop by hop and destination options; routing; a fragment header; authentication.
        let bytes = match next {
            43 => return Err(Flaw::Routed),
            0 | 60 => usize::from(byte(head, here + 1)?) * 8 + 8,
            44 => {
                later |= word(head, here + 2)? & 0xfff8 != 0;
                more |= word(head, here + 2)? & 1 != 0;
                8
            }
            51 => usize::from(byte(head, here + 1)?) * 4 + 8,
            _ => break,
        };
        if turn == MOST_EXTENSIONS || here + bytes > end {
            return Err(Flaw::Length);
        }
        next = byte(head, here)?;
        here += bytes;
        if later {
            break;
        }
    }
    let (transport, bytes) = match later {
        false => transport(head, here, end, next)?,
        true => (Transport::Fragment, 0),
    };
    if !more && !later && next == protocol::UDP {
        whole_udp(head, here, end)?;
    }
    Ok(Datagram {
        source: source.into(),
        destination: destination.into(),
        protocol: next,
        transport,
        header_bytes: here + bytes,
        ip_at: at,
        transport_at: here,
    })
}

/// Whether options of IPv4 say by which hosts it goes: loose or strict source routing.
fn is_routed(mut options: &[u8]) -> bool {
    loop {
        match *options {
            [131 | 137, ..] => return true,
            [1, ..] => options = &options[1..],
            [2..=255, len @ 2..=255, ..] if usize::from(len) <= options.len() => {
                options = &options[len.into()..];
            }
            // The end of the list, or one that no host reads on.
            _ => return false,
        }
    }
}

/// Checks that a datagram of UDP that is no fragment has all of its bytes.
fn whole_udp(head: &[u8], at: usize, end: usize) -> Result<(), Flaw> {
    match at + usize::from(word(head, at + 4)?) <= end {
        true => Ok(()),
        false => Err(Flaw::Length),
    }
}

/// The header at `at` in a datagram that ends at `end`, and its bytes.
fn transport(head: &[u8], at: usize, end: usize, protocol: u8) -> Result<(Transport, usize), Flaw> {
    let fits = |bytes: usize| (at + bytes <= end).then_some(bytes).ok_or(Flaw::Length);
    Ok(match protocol {
        protocol::TCP => {
            let bytes = usize::from(byte(head, at + 12)? >> 4) * 4;
            if bytes < 20 {
                return Err(Flaw::Length);
            }
            let tcp = Transport::Tcp {
                source: word(head, at)?,
                destination: word(head, at + 2)?,
                flags: byte(head, at + 13)?,
            };
            (tcp, fits(bytes)?)
        }
        protocol::UDP => {
            let udp = Transport::Udp {
                source: word(head, at)?,
                destination: word(head, at + 2)?,
            };
            if word(head, at + 4)? < 8 {
                return Err(Flaw::Length);
            }
            (udp, fits(8)?)
        }
        protocol::ICMP => {
            let kind = byte(head, at)?;
            let id = match kind {
                0 | 8 | 13..=18 => word(head, at + 4)?,
                _ => 0,
            };
            let code = byte(head, at + 1)?;
            (Transport::Icmp { kind, code, id }, fits(8)?)
        }
        protocol::ICMP6 => {
            let kind = byte(head, at)?;
            let id = match kind {
                128 | 129 => word(head, at + 4)?,
                _ => 0,
            };
            let target = match kind {
                135..=137 => Some(address6(head, at + 8)?),
                _ => None,
            };
            let icmp = Transport::Icmp6 {
                kind,
                code: byte(head, at + 1)?,
                id,
                target,
            };
            (icmp, fits(4)?)
        }
        _ => (Transport::Other, 0),
    })
}

/// RFC 826.
fn arp(head: &[u8]) -> Result<Arp, Flaw> {
    let at = ETHERNET_BYTES;
    let (hardware, network) = (word(head, at)?, word(head, at + 2)?);
    if (hardware, network) != (1, 0x0800) || word(head, at + 4)? != 0x0604 {
        return Err(Flaw::Field);
    }
    let operation = word(head, at + 6)?;
    let target = address4(head, at + 24)?;
    let sender_mac = std::array::from_fn(|index| head[at + 8 + index]);
    Ok(Arp {
        is_reply: match operation {
            1 => false,
            2 => true,
            _ => return Err(Flaw::Field),
        },
        sender_mac,
        sender: address4(head, at + 14)?,
        target,
    })
}
