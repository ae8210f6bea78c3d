//! ICMP echo through the host: an unprivileged ICMP socket, or a raw one where that is refused.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use async_io::Async;
use rustix::net::{AddressFamily, SocketType, ipproto, socket};

use crate::net::Result;

/// What a request carries, so that its packet is as long as other people's.
const PAYLOAD: [u8; 56] = [0x53; 56];

/// Type of a request and of its answer.
const ECHO4: (u8, u8) = (8, 0);
const ECHO6: (u8, u8) = (128, 129);

static SEQUENCE: AtomicU16 = AtomicU16::new(1);

/// Sends a request and waits for its answer.
pub(crate) async fn ping(to: IpAddr) -> Result<Duration> {
    let (socket, raw) = open(to)?;
    let (request, reply) = if to.is_ipv4() { ECHO4 } else { ECHO6 };
    // Where the kernel does not choose the identity, the process is one, and each request differs
    // in its number.
    let identity = std::process::id() as u16;
    let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
    let mut packet = vec![request, 0, 0, 0];
    packet.extend(identity.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend(PAYLOAD);
    let sum = checksum(&packet);
    // Of IPv6 the kernel makes the checksum.
    if to.is_ipv4() {
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let sent = Instant::now();
    socket.send_to(&packet, SocketAddr::new(to, 0)).await?;
    let mut buffer = [0; 1500];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await?;
        let mut answer = &buffer[..length];
        if raw && to.is_ipv4() {
            let header = usize::from(answer.first().map_or(0, |first| first & 0xf)) * 4;
            answer = answer.get(header..).unwrap_or_default();
        }
        let ours = !raw || answer.get(4..6) == Some(&identity.to_be_bytes());
        let this = answer.get(6..8) == Some(&sequence.to_be_bytes());
        if from.ip() == to && answer.first() == Some(&reply) && ours && this {
            return Ok(sent.elapsed());
        }
    }
}

/// A socket, and whether it is a raw one.
fn open(to: IpAddr) -> io::Result<(Async<UdpSocket>, bool)> {
    let (family, protocol) = if to.is_ipv4() {
        (AddressFamily::INET, ipproto::ICMP)
    } else {
        (AddressFamily::INET6, ipproto::ICMPV6)
    };
    let open = |kind| socket(family, kind, Some(protocol));
    let (fd, raw) = match open(SocketType::DGRAM) {
        Ok(fd) => (fd, false),
        Err(refused) => (open(SocketType::RAW).map_err(|_| refused)?, true),
    };
    Ok((Async::new(UdpSocket::from(fd))?, raw))
}

/// The Internet checksum (RFC 1071).
fn checksum(packet: &[u8]) -> u16 {
    let words = packet.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or_default();
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}
