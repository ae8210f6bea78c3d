//! Packets that a guest makes by hand, right or wrong, each behind the header of a network card.

use super::virtio::Device;

/// Bytes of a card's header (virtio 1.2, 5.1.6).
const HEADER: usize = 12;
/// Of the headers in a packet.
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;
const TCP: usize = 20;
/// The shortest frame without its checksum.
const SHORTEST: usize = 60;
/// Room for a packet.
const ROOM: usize = 160;

/// EtherTypes.
const ETHER_IPV4: u16 = 0x0800;
const ETHER_ARP: u16 = 0x0806;
const ETHER_IPV6: u16 = 0x86dd;
/// For experiments (IEEE 802).
const ETHER_OTHER: u16 = 0x88b5;

/// Protocols.
const ICMP: u8 = 1;
const TCP_PROTOCOL: u8 = 6;
const UDP_PROTOCOL: u8 = 17;
const ICMP6: u8 = 58;

/// Of the gateway, and of everybody.
const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 1];
const EVERYBODY: [u8; 6] = [0xff; 6];

/// The gateway's address of the link, fe80::1.
const GATEWAY_OF_LINK: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Ports of honest packets.
const HERE: u16 = 4000;
const THERE: u16 = 9000;

/// Bytes of payload in a segment, and its header's flag and type (virtio 1.2, 5.1.6).
const SEGMENT: u16 = 1448;
const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;

/// A packet behind a card's header.
pub struct Frame {
    bytes: [u8; ROOM],
    len: usize,
}

/// Makes them, for one card and one peer.
pub struct Packets {
    mac: [u8; 6],
    own: [u8; 4],
    peer: [u8; 4],
}

impl Packets {
    /// For a card of this address.
    pub fn of(card: &Device, own: [u8; 4], peer: [u8; 4]) -> Self {
        let mut mac = [0; 6];
        for (at, byte) in (0..).zip(&mut mac) {
            *byte = card.config(at);
        }
        Self { mac, own, peer }
    }

    /// What `kind` names.
    pub fn named(&self, kind: &[u8]) -> Option<Frame> {
        let (own, peer) = (self.own, self.peer);
        let mut frame = match kind {
            b"honest-udp" => self.udp(HERE, THERE),
            b"honest-tcp" => self.tcp(HERE, THERE),
            b"honest-icmp" => self.echo(),
            b"honest-arp" => self.arp(self.mac, own),
            b"udp-to-port-zero" => self.udp(HERE, 0),
            b"udp-from-port-zero" => self.udp(0, THERE),
            b"tcp-to-port-zero" => self.tcp(HERE, 0),
            b"tcp-from-port-zero" => self.tcp(0, THERE),
            b"to-unset" => self.datagram(own, [0; 4]),
            b"from-unset" => self.datagram([0; 4], peer),
            b"to-this-network" => self.datagram(own, [0, 1, 2, 3]),
            b"to-loopback" => self.datagram(own, [127, 0, 0, 1]),
            b"to-reserved" => self.datagram(own, [240, 0, 0, 1]),
            b"to-multicast" => self.datagram(own, [224, 0, 0, 251]),
            b"to-everybody" => self.datagram(own, [255; 4]),
            b"from-loopback" => self.datagram([127, 0, 0, 1], peer),
            b"forged-ip" => self.datagram([own[0], own[1], own[2], own[3] ^ 1], peer),
            b"forged-far-ip" => self.datagram([198, 51, 100, 7], peer),
            b"forged-arp" => self.arp(self.mac, [own[0], own[1], own[2], own[3] ^ 1]),
            b"forged-arp-mac" => self.arp(GATEWAY, own),
            b"forged-neighbour" => self.neighbour(self.link_local()),
            b"from-gateway-of-link" => self.neighbour(GATEWAY_OF_LINK),
            b"other-ethertype" => self.ethernet(GATEWAY, ETHER_OTHER),
            b"forged-mac"
            | b"to-one-through-everybody"
            | b"length-beyond-end"
            | b"length-too-short"
            | b"udp-length-wrong"
            | b"header-too-long"
            | b"header-too-short"
            | b"wrong-version" => self.udp(HERE, THERE),
            _ => return None,
        };
        let ip = HEADER + ETHERNET;
        match kind {
            b"forged-mac" => frame.bytes[HEADER + 11] ^= 1,
            b"length-beyond-end" => frame.put(ip + 2, 1400),
            b"length-too-short" => frame.put(ip + 2, 10),
            b"udp-length-wrong" => frame.put(ip + IPV4 + 4, 3),
            b"header-too-long" => frame.bytes[ip] = 0x4f,
            b"header-too-short" => frame.bytes[ip] = 0x41,
            b"wrong-version" => frame.bytes[ip] = 0x75,
            b"to-multicast" => {
                frame.bytes[HEADER..HEADER + 6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 251]);
            }
            b"to-everybody" | b"to-one-through-everybody" => {
                frame.bytes[HEADER..HEADER + 6].copy_from_slice(&EVERYBODY)
            }
            _ => return Some(frame),
        }
        frame.sum_header();
        Some(frame)
    }

    /// A datagram with these ports.
    pub fn udp(&self, from: u16, to: u16) -> Frame {
        self.udp_between(self.own, self.peer, [from, to])
    }

    fn datagram(&self, from: [u8; 4], to: [u8; 4]) -> Frame {
        self.udp_between(from, to, [HERE, THERE])
    }

    fn udp_between(&self, from: [u8; 4], to: [u8; 4], ports: [u16; 2]) -> Frame {
        const PAYLOAD: usize = 18;
        let mut frame = self.ipv4(from, to, UDP_PROTOCOL, UDP + PAYLOAD);
        let at = HEADER + ETHERNET + IPV4;
        frame.put(at, ports[0]);
        frame.put(at + 2, ports[1]);
        frame.put(at + 4, (UDP + PAYLOAD) as u16);
        frame
    }

    /// The first segment of a connection.
    fn tcp(&self, from: u16, to: u16) -> Frame {
        let mut frame = self.ipv4(self.own, self.peer, TCP_PROTOCOL, TCP);
        frame.put_tcp(from, to, 0x02);
        frame
    }

    fn echo(&self) -> Frame {
        let mut frame = self.ipv4(self.own, self.peer, ICMP, 8 + 18);
        let at = HEADER + ETHERNET + IPV4;
        frame.bytes[at] = 8;
        frame.put(at + 4, 77);
        let sum = checksum(&frame.bytes[at..at + 8 + 18]);
        frame.put(at + 2, sum);
        frame
    }

    /// Asks for the gateway's address (RFC 826).
    fn arp(&self, sender: [u8; 6], sender_ip: [u8; 4]) -> Frame {
        let mut frame = self.ethernet(EVERYBODY, ETHER_ARP);
        let at = HEADER + ETHERNET;
        frame.bytes[at..at + 8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
        frame.bytes[at + 8..at + 14].copy_from_slice(&sender);
        frame.bytes[at + 14..at + 18].copy_from_slice(&sender_ip);
        frame.bytes[at + 24..at + 28].copy_from_slice(&self.peer);
        frame
    }

    /// The card's address of the link, made from its hardware address (RFC 4291, appendix A).
    fn link_local(&self) -> [u8; 16] {
        let [a, b, c, d, e, f] = self.mac;
        let made = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
        let mut address = [0; 16];
        (address[0], address[1]) = (0xfe, 0x80);
        address[8..].copy_from_slice(&made);
        address
    }

    /// Says that the gateway's address of the link is this card's (RFC 4861, 4.4).
    fn neighbour(&self, from: [u8; 16]) -> Frame {
        const ADVERTISEMENT: usize = 32;
        let mut frame = self.ethernet([0x33, 0x33, 0, 0, 0, 1], ETHER_IPV6);
        let at = HEADER + ETHERNET;
        frame.bytes[at] = 0x60;
        frame.put(at + 4, ADVERTISEMENT as u16);
        frame.bytes[at + 6..at + 8].copy_from_slice(&[ICMP6, 255]);
        frame.bytes[at + 8..at + 24].copy_from_slice(&from);
        let mut all = [0; 16];
        (all[0], all[1], all[15]) = (0xff, 0x02, 1);
        frame.bytes[at + 24..at + 40].copy_from_slice(&all);
        let body = at + IPV6;
        frame.bytes[body] = 136;
        frame.bytes[body + 4] = 0x20;
        frame.bytes[body + 8..body + 24].copy_from_slice(&GATEWAY_OF_LINK);
        frame.bytes[body + 24..body + 26].copy_from_slice(&[2, 1]);
        frame.bytes[body + 26..body + 32].copy_from_slice(&self.mac);
        frame.len = body + ADVERTISEMENT;
        frame
    }

    fn ipv4(&self, from: [u8; 4], to: [u8; 4], protocol: u8, payload: usize) -> Frame {
        let mut frame = self.ethernet(GATEWAY, ETHER_IPV4);
        let at = HEADER + ETHERNET;
        frame.bytes[at] = 0x45;
        frame.put(at + 2, (IPV4 + payload) as u16);
        frame.bytes[at + 8..at + 10].copy_from_slice(&[64, protocol]);
        frame.bytes[at + 12..at + 16].copy_from_slice(&from);
        frame.bytes[at + 16..at + 20].copy_from_slice(&to);
        frame.len = frame.len.max(at + IPV4 + payload);
        frame.sum_header();
        frame
    }

    fn ethernet(&self, to: [u8; 6], ethertype: u16) -> Frame {
        let mut frame = Frame {
            bytes: [0; ROOM],
            len: HEADER + SHORTEST,
        };
        frame.bytes[HEADER..HEADER + 6].copy_from_slice(&to);
        frame.bytes[HEADER + 6..HEADER + 12].copy_from_slice(&self.mac);
        frame.put(HEADER + 12, ethertype);
        frame
    }

    /// An honest datagram of `bytes` bytes on the wire.
    pub fn datagram_of(&self, bytes: usize) -> Frame {
        let mut frame = self.udp(HERE, THERE);
        let ip = bytes - ETHERNET;
        frame.put(HEADER + ETHERNET + 2, ip as u16);
        frame.put(HEADER + ETHERNET + IPV4 + 4, (ip - IPV4) as u16);
        frame.sum_header();
        frame.len = HEADER + ETHERNET + IPV4 + UDP;
        frame
    }

    /// An honest frame of `bytes` bytes that is to be cut into segments of TCP.
    pub fn segments_of(&self, bytes: usize) -> Frame {
        let mut frame = self.tcp(HERE, THERE);
        frame.put(HEADER + ETHERNET + 2, (bytes - ETHERNET) as u16);
        frame.sum_header();
        frame.put_tcp(HERE, THERE, 0x10);
        let header = &mut frame.bytes[..HEADER];
        (header[0], header[1]) = (NEEDS_CSUM, GSO_TCPV4);
        for (at, word) in [
            (2, (ETHERNET + IPV4 + TCP) as u16),
            (4, SEGMENT),
            (6, (ETHERNET + IPV4) as u16),
            (8, 16),
        ] {
            header[at..at + 2].copy_from_slice(&word.to_le_bytes());
        }
        frame.len = HEADER + ETHERNET + IPV4 + TCP;
        frame
    }
}

impl Frame {
    /// All of it, with the card's header.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Bytes of a frame of so many and of the card's header.
    pub fn with_header(bytes: usize) -> u32 {
        (HEADER + bytes) as u32
    }

    fn put(&mut self, at: usize, word: u16) {
        self.bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
    }

    fn put_tcp(&mut self, from: u16, to: u16, flags: u8) {
        let at = HEADER + ETHERNET + IPV4;
        self.put(at, from);
        self.put(at + 2, to);
        (self.bytes[at + 12], self.bytes[at + 13]) = (0x50, flags);
        self.put(at + 14, 0xffff);
    }

    fn sum_header(&mut self) {
        let at = HEADER + ETHERNET;
        self.put(at + 10, 0);
        let sum = checksum(&self.bytes[at..at + IPV4]);
        self.put(at + 10, sum);
    }
}

/// The Internet's checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}
