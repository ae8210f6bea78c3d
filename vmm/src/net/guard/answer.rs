//! The frame that tells a guest that its packet was "administratively prohibited" (RFC 1812,
//! 5.2.7.1; RFC 4443, 3.1), so that its owner learns why there is no answer.

use std::net::IpAddr;

use crate::net::packet::{Datagram, Kind, Packet, Transport, protocol};

const ETHERNET_BYTES: usize = 14;
/// Bytes of the packet behind its IP header that are told.
const TOLD_BYTES: usize = 8;

/// Writes it. `None` if there must be none: about groups, fragments, and errors themselves.
pub(super) fn prohibited(
    head: &[u8],
    packet: &Packet,
    gateways: [Option<IpAddr>; 2],
    out: &mut [u8],
) -> Option<usize> {
    let Kind::Ip(datagram) = &packet.kind else {
        return None;
    };
    let to_all = packet.destination_mac[0] & 1 != 0 || datagram.destination.is_multicast();
    let tells = match datagram.transport {
        Transport::Tcp { .. } | Transport::Udp { .. } => true,
        Transport::Icmp { kind, .. } => kind == 8,
        Transport::Icmp6 { kind, .. } => kind == 128,
        Transport::Fragment | Transport::Ported { .. } | Transport::Other => false,
    };
    if to_all || !tells || datagram.source.is_unspecified() {
        return None;
    }
    let told = head.get(ETHERNET_BYTES..datagram.transport_at + TOLD_BYTES)?;
    let from = |gateway: Option<IpAddr>| gateway.unwrap_or(datagram.destination);
    out.get_mut(..6)?.copy_from_slice(&packet.source_mac);
    out.get_mut(6..12)?.copy_from_slice(&packet.destination_mac);
    match (datagram.source, from(gateways[0]), from(gateways[1])) {
        (IpAddr::V4(to), IpAddr::V4(from), _) => {
            let ip = [from.octets(), to.octets()].concat();
            write4(told, &ip, out)
        }
        (IpAddr::V6(to), _, IpAddr::V6(from)) => {
            let ip = [from.octets(), to.octets()].concat();
            write6(told, &ip, datagram, out)
        }
        _ => None,
    }
}

fn write4(told: &[u8], addresses: &[u8], out: &mut [u8]) -> Option<usize> {
    let bytes = 20 + 8 + told.len();
    let frame = out.get_mut(..ETHERNET_BYTES + bytes)?;
    frame[12..14].copy_from_slice(&[8, 0]);
    let (ip, icmp) = frame[ETHERNET_BYTES..].split_at_mut(20);
    ip.fill(0);
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&(bytes as u16).to_be_bytes());
    (ip[8], ip[9]) = (64, protocol::ICMP);
    ip[12..20].copy_from_slice(addresses);
    let sum = checksum(ip, 0);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    icmp[..8].copy_from_slice(&[3, 13, 0, 0, 0, 0, 0, 0]);
    icmp[8..].copy_from_slice(told);
    let sum = checksum(icmp, 0);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    Some(frame.len())
}

fn write6(told: &[u8], addresses: &[u8], about: &Datagram, out: &mut [u8]) -> Option<usize> {
    // The hop-by-hop and other headers between would not fit: without them there is none.
    if about.transport_at != ETHERNET_BYTES + 40 {
        return None;
    }
    let bytes = 8 + told.len();
    let frame = out.get_mut(..ETHERNET_BYTES + 40 + bytes)?;
    frame[12..14].copy_from_slice(&[0x86, 0xdd]);
    let (ip, icmp) = frame[ETHERNET_BYTES..].split_at_mut(40);
    ip[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, bytes as u8, protocol::ICMP6, 64]);
    ip[8..40].copy_from_slice(addresses);
    icmp[..8].copy_from_slice(&[1, 1, 0, 0, 0, 0, 0, 0]);
    icmp[8..].copy_from_slice(told);
    let pseudo = checksum_of(addresses) + bytes as u32 + u32::from(protocol::ICMP6);
    let sum = checksum(icmp, pseudo);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    Some(frame.len())
}

fn checksum_of(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<2>();
    let words = words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)));
    let last = rest.first().map_or(0, |byte| u32::from(*byte) << 8);
    words.sum::<u32>() + last
}

/// RFC 1071.
fn checksum(bytes: &[u8], more: u32) -> u16 {
    let mut sum = checksum_of(bytes) + more;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
