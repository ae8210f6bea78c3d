//! Datagrams of IPv4 and IPv6, and the header behind theirs.
//!
//! What most packets are is read with the fewest steps: each header is taken as a whole.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::bytes::{byte, chunk, word};
use super::{Datagram, ETHERNET_BYTES, Flaw, Transport, discovery, protocol};

/// Extension headers of IPv6 that are followed at most.
const MOST_EXTENSIONS: usize = 8;

/// RFC 791.
#[inline(always)]
pub(super) fn ipv4(head: &[u8], frame_bytes: usize) -> Result<Datagram, Flaw> {
    let at = ETHERNET_BYTES;
    let ip: &[u8; 20] = chunk(head, at).map_err(|_| Flaw::Length)?;
    if ip[0] >> 4 != 4 {
        return Err(Flaw::Field);
    }
    let header = usize::from(ip[0] & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    // Ethernet pads short frames; a bundle of segments may leave the length to the host.
    if header < 20 || total < header || at + total > frame_bytes {
        return Err(Flaw::Length);
    }
    if header > 20 && is_routed(head.get(at + 20..at + header).ok_or(Flaw::Short)?) {
        return Err(Flaw::Routed);
    }
    let fragment = Fragment {
        is_later: u16::from_be_bytes([ip[6], ip[7]]) & 0x1fff != 0,
        has_more: ip[6] & 0x20 != 0,
    };
    let [.., a, b, c, d, e, f, g, h] = *ip;
    let transport_at = at + header;
    let (transport, bytes) = transport(head, transport_at..at + total, ip[9], fragment)?;
    Ok(Datagram {
        source: Ipv4Addr::new(a, b, c, d).into(),
        destination: Ipv4Addr::new(e, f, g, h).into(),
        protocol: ip[9],
        transport,
        discovery: None,
        quoted: match transport.is_error() {
            true => chunk::<4>(head, transport_at + 8 + 16)
                .ok()
                .map(|octets| Ipv4Addr::from(*octets).into()),
            false => None,
        },
        header_bytes: transport_at + bytes,
        ip_at: at,
        transport_at,
    })
}

/// RFC 8200.
#[inline(always)]
pub(super) fn ipv6(head: &[u8], frame_bytes: usize) -> Result<Datagram, Flaw> {
    let at = ETHERNET_BYTES;
    let ip: &[u8; 40] = chunk(head, at).map_err(|_| Flaw::Length)?;
    if ip[0] >> 4 != 6 {
        return Err(Flaw::Field);
    }
    let end = at + 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
    if end > frame_bytes {
        return Err(Flaw::Length);
    }
    let (mut next, mut here) = (ip[6], at + 40);
    let mut fragment = Fragment::default();
    for turn in 0.. {
        // Hop by hop and destination options; routing; a fragment header; authentication.
        let bytes = match next {
            43 => return Err(Flaw::Routed),
            0 | 60 => usize::from(byte(head, here + 1)?) * 8 + 8,
            44 => {
                fragment.is_later |= word(head, here + 2)? & 0xfff8 != 0;
                fragment.has_more |= word(head, here + 2)? & 1 != 0;
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
        if fragment.is_later {
            break;
        }
    }
    let (transport, bytes) = transport(head, here..end, next, fragment)?;
    let discovery = match transport {
        Transport::Icmp6 { kind, .. } => discovery::read(head, here..end, kind)?,
        _ => None,
    };
    // It is never in fragments (RFC 6980).
    if discovery.is_some() && fragment.has_more {
        return Err(Flaw::Field);
    }
    Ok(Datagram {
        source: Ipv6Addr::from(*chunk::<16>(ip, 8)?).into(),
        destination: Ipv6Addr::from(*chunk::<16>(ip, 24)?).into(),
        protocol: next,
        transport,
        discovery,
        quoted: match transport.is_error() {
            true => chunk::<16>(head, here + 8 + 24)
                .ok()
                .map(|octets| Ipv6Addr::from(*octets).into()),
            false => None,
        },
        header_bytes: here + bytes,
        ip_at: at,
        transport_at: here,
    })
}

/// Which part of a datagram this is.
#[derive(Debug, Clone, Copy, Default)]
struct Fragment {
    /// Others come before it.
    is_later: bool,
    /// Others come behind it.
    has_more: bool,
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

/// The header that begins at the start of `place`, in a datagram that ends at its end, and its
/// bytes.
#[inline(always)]
fn transport(
    head: &[u8],
    place: Range<usize>,
    protocol: u8,
    fragment: Fragment,
) -> Result<(Transport, usize), Flaw> {
    if fragment.is_later {
        return Ok((Transport::Fragment, 0));
    }
    let at = place.start;
    let fits = |bytes: usize| {
        (at + bytes <= place.end)
            .then_some(bytes)
            .ok_or(Flaw::Length)
    };
    Ok(match protocol {
        protocol::TCP => {
            let tcp: &[u8; 14] = chunk(head, at)?;
            let bytes = usize::from(tcp[12] >> 4) * 4;
            if bytes < 20 {
                return Err(Flaw::Length);
            }
            let transport = Transport::Tcp {
                source: u16::from_be_bytes([tcp[0], tcp[1]]),
                destination: u16::from_be_bytes([tcp[2], tcp[3]]),
                flags: tcp[13],
            };
            (transport, fits(bytes)?)
        }
        protocol::UDP => {
            let udp: &[u8; 6] = chunk(head, at)?;
            let len = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
            // One that is no fragment has all of its bytes.
            if len < 8 || !fragment.has_more && at + len > place.end {
                return Err(Flaw::Length);
            }
            let transport = Transport::Udp {
                source: u16::from_be_bytes([udp[0], udp[1]]),
                destination: u16::from_be_bytes([udp[2], udp[3]]),
            };
            (transport, fits(8)?)
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
            let code = byte(head, at + 1)?;
            (Transport::Icmp6 { kind, code, id }, fits(4)?)
        }
        protocol::DCCP | protocol::SCTP | protocol::UDP_LITE => {
            let ports: &[u8; 4] = chunk(head, at)?;
            let transport = Transport::Ported {
                source: u16::from_be_bytes([ports[0], ports[1]]),
                destination: u16::from_be_bytes([ports[2], ports[3]]),
            };
            (transport, fits(8)?)
        }
        _ => (Transport::Other, 0),
    })
}
