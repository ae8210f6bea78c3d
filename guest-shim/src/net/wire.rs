//! Looks at Ethernet frames without a stack: what lies where, who talks to whom, checksums.
//!
//! Pure. A frame may hold anything; what is not plain TCP or UDP in an unfragmented IP packet
//! without extension headers is nothing that is known here.

#[cfg(test)]
pub(crate) mod tests;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;
/// Bytes of an IPv4 header without options.
pub(crate) const IPV4: usize = 20;
/// Bytes of an IPv6 header.
pub(crate) const IPV6: usize = 40;
/// Bytes of a TCP header without options.
pub(crate) const TCP: usize = 20;
/// Bytes of a UDP header.
pub(crate) const UDP: usize = 8;

const TYPE_IPV4: u16 = 0x0800;
const TYPE_IPV6: u16 = 0x86dd;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

/// Bits of the TCP flags.
pub(crate) mod flag {
    pub(crate) const FIN: u8 = 1;
    pub(crate) const SYN: u8 = 2;
    pub(crate) const RST: u8 = 4;
    pub(crate) const PSH: u8 = 8;
    pub(crate) const ACK: u8 = 16;
}

/// What carries what in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Whether the packet is IPv6.
    pub(crate) v6: bool,
    /// Whether it carries TCP; otherwise it is UDP.
    pub(crate) tcp: bool,
    /// Where the transport header begins.
    pub(crate) transport: usize,
    /// Where the payload begins.
    pub(crate) payload: usize,
    /// Where the packet ends; padding may follow.
    pub(crate) end: usize,
}

impl Layout {
    /// Of a frame that holds a whole TCP or UDP packet.
    pub(crate) fn of(frame: &[u8]) -> Option<Self> {
        let packet = frame.get(ETHERNET..)?;
        let (v6, header, total, protocol) = match word(frame, 12)? {
            TYPE_IPV4 => {
                let first = *packet.first()?;
                let fragment = word(packet, 6)? & 0x3fff;
                if first >> 4 != 4 || fragment != 0 {
                    return None;
                }
                let header = usize::from(first & 0xf) * 4;
                let total = usize::from(word(packet, 2)?);
                (false, header.max(IPV4), total, *packet.get(9)?)
            }
            TYPE_IPV6 => {
                if packet.first()? >> 4 != 6 {
                    return None;
                }
                let total = IPV6 + usize::from(word(packet, 4)?);
                (true, IPV6, total, *packet.get(6)?)
            }
            _ => return None,
        };
        let transport = ETHERNET + header;
        let end = ETHERNET + total;
        let (tcp, length) = match protocol {
            PROTOCOL_TCP => {
                let words = frame.get(transport + 12)? >> 4;
                (true, (usize::from(words) * 4).max(TCP))
            }
            PROTOCOL_UDP => (false, UDP),
            _ => return None,
        };
        let payload = transport + length;
        (payload <= end && end <= frame.len()).then_some(Self {
            v6,
            tcp,
            transport,
            payload,
            end,
        })
    }

    /// Who sent the packet, and to whom.
    pub(crate) fn ends(&self, frame: &[u8]) -> (SocketAddr, SocketAddr) {
        let (from, to) = self.addresses(frame);
        let from_port = word(frame, self.transport).unwrap_or_default();
        let to_port = word(frame, self.transport + 2).unwrap_or_default();
        (
            SocketAddr::new(from, from_port),
            SocketAddr::new(to, to_port),
        )
    }

    /// The flags of a TCP segment.
    pub(crate) fn flags(&self, frame: &[u8]) -> u8 {
        frame[self.transport + 13]
    }

    /// Whether this asks for a new connection.
    pub(crate) fn is_syn(&self, frame: &[u8]) -> bool {
        let mask = flag::SYN | flag::ACK | flag::RST;
        self.tcp && self.flags(frame) & mask == flag::SYN
    }

    /// Whether the transport checksum is right. UDP over IPv4 may do without.
    pub(crate) fn checksum_is_right(&self, frame: &[u8]) -> bool {
        if !self.tcp && !self.v6 && word(frame, self.checksum()) == Some(0) {
            return true;
        }
        let sum = self.pseudo_sum(frame) + sum(&frame[self.transport..self.end]);
        fold(sum) == 0xffff
    }

    /// Puts into the checksum's field what a device goes on from (virtio 1.2, 5.1.6.2): the sum of
    /// the pseudo header, not complemented.
    pub(crate) fn begin_checksum(&self, frame: &mut [u8]) {
        let begun = fold(self.pseudo_sum(frame));
        let at = self.checksum();
        frame[at..at + 2].copy_from_slice(&begun.to_be_bytes());
    }

    /// Where the checksum is, counted from the transport header.
    pub(crate) const fn checksum_offset(&self) -> usize {
        if self.tcp { 16 } else { 6 }
    }

    const fn checksum(&self) -> usize {
        self.transport + self.checksum_offset()
    }

    fn addresses(&self, frame: &[u8]) -> (IpAddr, IpAddr) {
        if self.v6 {
            let at = |start| Ipv6Addr::from(array::<16>(frame, start));
            (at(ETHERNET + 8).into(), at(ETHERNET + 24).into())
        } else {
            let at = |start| Ipv4Addr::from(array::<4>(frame, start));
            (at(ETHERNET + 12).into(), at(ETHERNET + 16).into())
        }
    }

    /// Addresses, protocol and length, as both checksums cover them (RFC 9293, 3.1).
    fn pseudo_sum(&self, frame: &[u8]) -> u64 {
        let addresses = if self.v6 {
            ETHERNET + 8..ETHERNET + 40
        } else {
            ETHERNET + 12..ETHERNET + 20
        };
        let protocol = if self.tcp { PROTOCOL_TCP } else { PROTOCOL_UDP };
        let length = (self.end - self.transport) as u64;
        sum(&frame[addresses]) + u64::from(protocol) + length
    }
}

/// The sum of 16-bit words, big endian, not yet folded. An odd last byte counts as a high one.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    // As they lie in memory and four bytes at a time: neither changes what a sum folds into, but
    // for the order of its bytes (RFC 1071, 2).
    let (quads, rest) = bytes.as_chunks::<4>();
    let native: u64 = quads
        .iter()
        .map(|quad| u64::from(u32::from_ne_bytes(*quad)))
        .sum();
    let mut total = u64::from(u16::from_be_bytes(fold(native).to_ne_bytes()));
    for pair in rest.chunks(2) {
        let low = pair.get(1).copied().unwrap_or_default();
        total += u64::from(u16::from_be_bytes([pair[0], low]));
    }
    total
}

/// Folds a sum into 16 bits.
pub(crate) const fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The 16-bit word at an offset.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*pair))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>());
    found.copied().unwrap_or([0; N])
}
