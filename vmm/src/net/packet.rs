//! What a frame says of itself, as far as it matters who it comes from and where it goes. Pure.
//!
//! A frame is judged by its first bytes, read once; headers that do not lie within them make it
//! malformed. Nothing is allocated, and every byte is hostile.

mod bytes;
mod discovery;
mod ip;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::chunk;

/// First bytes of a frame that are looked at: Ethernet, and the longest headers of IPv4 and TCP or
/// a usual chain of IPv6's, or what matters in the answer of a DHCP server.
pub const HEAD_BYTES: usize = 512;

/// Bytes of an Ethernet header.
const ETHERNET_BYTES: usize = 14;
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
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// ICMP for IPv6.
    pub const ICMP6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;
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
    /// What neighbour discovery says, if it is that.
    pub discovery: Option<Discovery>,
    /// To whom the packet went that it quotes, if it is an ICMP error that quotes one.
    pub quoted: Option<IpAddr>,
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
    },
    /// Another with the ports where these have them: DCCP, SCTP, UDP-Lite (RFC 4340, 9260, 3828).
    Ported {
        /// Port of the sender.
        source: u16,
        /// Port of the receiver.
        destination: u16,
    },
    /// A fragment that is not the first.
    Fragment,
    /// Another protocol.
    Other,
}

/// What neighbour discovery says (RFC 4861): a search for a router or a neighbour, or the answer of
/// one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discovery {
    /// The address that it is about; unspecified in a search for routers.
    pub target: Ipv6Addr,
    /// Whether it tells another hardware address than the frame's as the sender's.
    pub names_another: bool,
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

impl Transport {
    /// Whether it is an error, which quotes the packet that it is about.
    pub fn is_error(&self) -> bool {
        match *self {
            Self::Icmp { kind, .. } => matches!(kind, 3 | 4 | 11 | 12),
            Self::Icmp6 { kind, .. } => kind < 128,
            _ => false,
        }
    }
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
        let packet = |kind| Self {
            source_mac: mac(6),
            destination_mac: mac(0),
            frame_bytes,
            kind,
        };
        // Each is written where it stays: what is moved about would be half of what it costs.
        let flaw = match u16::from_be_bytes([ethernet[12], ethernet[13]]) {
            0x0800 => match ip::ipv4(head, frame_bytes) {
                Ok(datagram) => return packet(Kind::Ip(datagram)),
                Err(flaw) => flaw,
            },
            0x86dd => match ip::ipv6(head, frame_bytes) {
                Ok(datagram) => return packet(Kind::Ip(datagram)),
                Err(flaw) => flaw,
            },
            0x0806 => match arp(head) {
                Ok(arp) => return packet(Kind::Arp(arp)),
                Err(flaw) => flaw,
            },
            other => return packet(Kind::Other(other)),
        };
        packet(Kind::Malformed(flaw))
    }

    /// The flow that it belongs to, if it is a datagram.
    #[inline(always)]
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
            }
            | Transport::Ported {
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

/// RFC 826.
fn arp(head: &[u8]) -> Result<Arp, Flaw> {
    let arp: &[u8; 28] = chunk(head, ETHERNET_BYTES)?;
    // Ethernet and IPv4, by the lengths of their addresses, too.
    if arp[..6] != [0, 1, 8, 0, 6, 4] {
        return Err(Flaw::Field);
    }
    Ok(Arp {
        is_reply: match arp[6..8] {
            [0, 1] => false,
            [0, 2] => true,
            _ => return Err(Flaw::Field),
        },
        sender_mac: *chunk(arp, 8)?,
        sender: Ipv4Addr::from(*chunk(arp, 14)?),
        target: Ipv4Addr::from(*chunk(arp, 24)?),
    })
}
