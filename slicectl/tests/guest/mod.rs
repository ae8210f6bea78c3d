//! A guest of few words: it sends packets that a test makes through a tap, with its ports translated
//! as a monitor does it, and hears what comes back.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm::nanos::Nanos;
use vmm::net::packet::protocol::{ICMP, TCP, UDP};
use vmm::net::packet::{Kind, Packet, Transport};
use vmm::net::ports::{PortMap, PortRange};

/// Bytes of the virtio header before each frame.
const HEADER: usize = 10;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The guest.
pub(crate) struct Guest {
    tap: File,
    mac: [u8; 6],
    gateway: [u8; 6],
    address: Ipv4Addr,
    ports: PortMap,
}

/// What is heard.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) from: Ipv4Addr,
    pub(crate) transport: Transport,
    /// The transport header and what follows.
    pub(crate) bytes: Vec<u8>,
}

impl Guest {
    /// One behind a tap, whose gateway has that hardware address.
    pub(crate) fn new(
        tap: OwnedFd,
        mac: [u8; 6],
        gateway: [u8; 6],
        address: Ipv4Addr,
        ports: PortRange,
    ) -> Self {
        Self {
            tap: tap.into(),
            mac,
            gateway,
            address,
            ports: PortMap::new(ports, &[(address, 24)], 7),
        }
    }

    /// Sends a transport header and what follows, whose checksum is filled in; the port outside.
    pub(crate) fn send(&mut self, to: Ipv4Addr, protocol: u8, transport: &[u8]) -> Option<u16> {
        let mut frame = vec![0; HEADER];
        frame.extend(self.gateway);
        frame.extend(self.mac);
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((20 + transport.len() as u16).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
        frame.extend(self.address.octets());
        frame.extend(to.octets());
        let ip = HEADER + 14;
        let header = !sum(&frame[ip..]);
        frame[ip + 10..ip + 12].copy_from_slice(&header.to_be_bytes());
        frame.extend(transport);
        fill_checksum(&mut frame[ip..]);
        let bytes = &mut frame[HEADER..];
        let packet = Packet::parse(bytes, bytes.len());
        let port = self.ports.outgoing(bytes, &packet, false, Nanos(1));
        self.tap.write_all(&frame).unwrap();
        port.unwrap()
    }

    /// Waits for a packet that `wanted` makes something of.
    pub(crate) fn hear<T>(&mut self, mut wanted: impl FnMut(Heard) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nothing came within {PATIENCE:?}");
            let left = Timespec::try_from(left).unwrap();
            let mut fds = [PollFd::new(&self.tap, PollFlags::IN)];
            if poll(&mut fds, Some(&left)).unwrap() == 0 {
                continue;
            }
            if let Some(found) = self.next().and_then(&mut wanted) {
                return found;
            }
        }
    }

    fn next(&mut self) -> Option<Heard> {
        let mut frame = vec![0; 65_536];
        let len = self.tap.read(&mut frame).unwrap();
        let bytes = &mut frame[HEADER..len];
        let packet = Packet::parse(bytes, bytes.len());
        self.ports.incoming(bytes, &packet, false, Nanos(1));
        let Kind::Ip(datagram) = Packet::parse(bytes, bytes.len()).kind else {
            return None;
        };
        let std::net::IpAddr::V4(from) = datagram.source else {
            return None;
        };
        assert_eq!(checksummed(&bytes[14..]), u16::MAX, "a checksum is wrong");
        Some(Heard {
            from,
            transport: datagram.transport,
            bytes: bytes[datagram.transport_at..].to_vec(),
        })
    }
}

/// A UDP datagram.
pub(crate) fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [from.to_be_bytes(), to.to_be_bytes()].concat();
    bytes.extend((8 + payload.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    bytes
}

/// A TCP segment without data.
pub(crate) fn tcp(from: u16, to: u16, sequence: u32, acknowledged: u32, flags: u8) -> Vec<u8> {
    let mut bytes = [from.to_be_bytes(), to.to_be_bytes()].concat();
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(acknowledged.to_be_bytes());
    bytes.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes
}

/// An ICMP echo request.
pub(crate) fn echo(id: u16) -> Vec<u8> {
    let mut bytes = vec![8, 0, 0, 0];
    bytes.extend(id.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// The sum in one's complement.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let words = words.map(|word| u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]));
    let mut sum: u32 = words.map(u32::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The sum over all that the transport checksum of an IPv4 packet covers.
fn checksummed(packet: &[u8]) -> u16 {
    let header = usize::from(packet[0] & 15) * 4;
    let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    let transport = &packet[header..length];
    let mut covered = Vec::new();
    if packet[9] != ICMP {
        covered.extend(&packet[12..20]);
        covered.extend([0, packet[9]]);
        covered.extend((transport.len() as u16).to_be_bytes());
    }
    covered.extend(transport);
    sum(&covered)
}

fn fill_checksum(packet: &mut [u8]) {
    let at = match packet[9] {
        TCP => 20 + 16,
        UDP => 20 + 6,
        _ => 20 + 2,
    };
    let sum = !checksummed(packet);
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}
