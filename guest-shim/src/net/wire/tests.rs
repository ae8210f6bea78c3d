use std::net::SocketAddr;

use super::*;

/// A TCP segment, checksums included.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) sequence: u32,
    pub(crate) flags: u8,
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Segment {
    pub(crate) fn new(from: &str, to: &str) -> Self {
        Self {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            sequence: 1000,
            flags: flag::ACK,
            options: Vec::new(),
            payload: Vec::new(),
        }
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut tcp = Vec::new();
        tcp.extend(self.from.port().to_be_bytes());
        tcp.extend(self.to.port().to_be_bytes());
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(77u32.to_be_bytes());
        tcp.extend([(((20 + self.options.len()) / 4) << 4) as u8, self.flags]);
        tcp.extend([0x20, 0, 0, 0, 0, 0]);
        tcp.extend(&self.options);
        tcp.extend(&self.payload);
        packet(self.from, self.to, PROTOCOL_TCP, tcp, 16)
    }
}

/// A UDP datagram, checksums included.
pub(crate) fn datagram(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let mut udp = Vec::new();
    udp.extend(from.port().to_be_bytes());
    udp.extend(to.port().to_be_bytes());
    udp.extend((8 + payload.len() as u16).to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    packet(from, to, PROTOCOL_UDP, udp, 6)
}

fn packet(
    from: SocketAddr,
    to: SocketAddr,
    protocol: u8,
    mut transport: Vec<u8>,
    checksum: usize,
) -> Vec<u8> {
    let length = transport.len() as u16;
    let mut pseudo = Vec::new();
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend(TYPE_IPV4.to_be_bytes());
            let mut header = vec![0x45, 0];
            header.extend((20 + length).to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = slow_checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend(header);
            pseudo.extend(from.octets());
            pseudo.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend(TYPE_IPV6.to_be_bytes());
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend(from.octets());
            frame.extend(to.octets());
            pseudo.extend(from.octets());
            pseudo.extend(to.octets());
        }
        _ => panic!("two families"),
    }
    pseudo.extend([0, protocol]);
    pseudo.extend(length.to_be_bytes());
    pseudo.extend(&transport);
    let sum = slow_checksum(&pseudo);
    transport[checksum..checksum + 2].copy_from_slice(&sum.to_be_bytes());
    frame.extend(transport);
    frame
}

/// The Internet checksum, as RFC 1071 says it, a byte at a time.
pub(crate) fn slow_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for (index, &byte) in bytes.iter().enumerate() {
        sum += u32::from(byte) << if index % 2 == 0 { 8 } else { 0 };
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !sum as u16
}

const V4: (&str, &str) = ("192.0.2.1:1000", "192.0.2.2:80");
const V6: (&str, &str) = ("[2001:db8::1]:1000", "[2001:db8::2]:80");

#[test]
fn checksums_of_whole_frames_are_right_and_of_harmed_ones_wrong() {
    for (from, to) in [V4, V6] {
        for length in [0, 1, 2, 3, 4, 5, 1459] {
            let payload: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let mut segment = Segment::new(from, to);
            segment.payload = payload.clone();
            for mut frame in [segment.frame(), datagram(from, to, &payload)] {
                let layout = Layout::of(&frame).unwrap();
                assert!(layout.checksum_is_right(&frame));
                // Padding is not covered.
                frame.extend([0; 10]);
                assert_eq!(Layout::of(&frame), Some(layout));
                assert!(layout.checksum_is_right(&frame));
                frame[layout.transport] ^= 1;
                assert!(!layout.checksum_is_right(&frame));
            }
        }
    }
}

#[test]
fn udp_over_ipv4_may_have_no_checksum() {
    let mut frame = datagram(V4.0, V4.1, b"x");
    let layout = Layout::of(&frame).unwrap();
    frame[layout.transport + 6..][..2].fill(0);
    assert!(layout.checksum_is_right(&frame));
    let mut frame = datagram(V6.0, V6.1, b"x");
    let layout = Layout::of(&frame).unwrap();
    frame[layout.transport + 6..][..2].fill(0);
    assert!(!layout.checksum_is_right(&frame));
}

#[test]
fn a_syn_is_one_without_ack_and_reset() {
    let is_syn = |flags| {
        let mut segment = Segment::new(V6.0, V6.1);
        segment.flags = flags;
        let frame = segment.frame();
        let layout = Layout::of(&frame).unwrap();
        assert_eq!(layout.ends(&frame), (segment.from, segment.to));
        layout.is_syn(&frame)
    };
    assert!(is_syn(flag::SYN));
    assert!(is_syn(flag::SYN | flag::PSH));
    assert!(!is_syn(flag::SYN | flag::ACK));
    assert!(!is_syn(flag::SYN | flag::RST));
    assert!(!is_syn(flag::ACK));
}

#[test]
fn what_a_device_goes_on_from_becomes_the_checksum() {
    for (from, to) in [V4, V6] {
        let mut segment = Segment::new(from, to);
        segment.payload = vec![7; 33];
        let whole = segment.frame();
        let mut frame = whole.clone();
        let layout = Layout::of(&frame).unwrap();
        layout.begin_checksum(&mut frame);
        assert_ne!(frame, whole);
        let at = layout.transport + layout.checksum_offset();
        let sum = slow_checksum(&frame[layout.transport..]);
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(frame, whole);
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_looked_at_without_harm(mut frame in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..3) {
            if let (Some(at), 1..) = (frame.get_mut(12..15), kind) {
                at.copy_from_slice(if kind == 1 { &[8, 0, 0x45] } else { &[0x86, 0xdd, 0x60] });
            }
            if let Some(layout) = Layout::of(&frame) {
                prop_assert!(layout.end <= frame.len());
                layout.is_syn(&frame);
                layout.ends(&frame);
                layout.checksum_is_right(&frame);
                layout.begin_checksum(&mut frame);
            }
        }

        #[test]
        fn a_sum_is_that_of_the_words(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let slow = !slow_checksum(&bytes);
            // 0 and 0xffff are the same number to ones' complement.
            prop_assert_eq!(fold(sum(&bytes)) % 0xffff, slow % 0xffff);
        }
    }
}
