//! Packets of a guest and of others, translated both ways: what comes out is what would have been
//! sent from the other port, bit for bit.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const NOW: Nanos = Nanos(1);
const SYN: u8 = 2;
const IP_AT: usize = 14;

fn range() -> PortRange {
    PortRange::new(20_000, 20_999).unwrap()
}

fn map() -> PortMap {
    PortMap::new(range(), &[(GUEST, 24)], 7)
}

/// What is in a packet.
#[derive(Debug, Clone)]
struct Made {
    protocol: u8,
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    /// Words of IPv4 options.
    options: usize,
    /// A UDP datagram without a checksum.
    unsummed: bool,
    flags: u8,
    payload: Vec<u8>,
}

impl Made {
    fn udp(from: u16, to: (Ipv4Addr, u16)) -> Self {
        Self {
            protocol: UDP,
            from: (GUEST, from),
            to,
            options: 0,
            unsummed: false,
            flags: SYN,
            payload: b"hello".to_vec(),
        }
    }

    fn reversed(&self) -> Self {
        Self {
            from: self.to,
            to: self.from,
            ..self.clone()
        }
    }

    /// The frame. An ICMP question has the sender's port as its identifier; an answer, which is
    /// what comes from outside, the receiver's.
    fn frame(&self) -> Vec<u8> {
        let is_answer = self.to.0 == GUEST;
        let mut transport = match self.protocol {
            TCP => {
                let mut header = vec![0; 20];
                (header[12], header[13]) = (0x50, self.flags);
                header
            }
            UDP => {
                let mut header = vec![0; 8];
                let length = 8 + self.payload.len() as u16;
                header[4..6].copy_from_slice(&length.to_be_bytes());
                header
            }
            _ => vec![if is_answer { 0 } else { 8 }, 0, 0, 0, 0, 0, 0, 1],
        };
        if self.protocol == ICMP {
            let id = if is_answer { self.to.1 } else { self.from.1 };
            transport[4..6].copy_from_slice(&id.to_be_bytes());
        } else {
            transport[..2].copy_from_slice(&self.from.1.to_be_bytes());
            transport[2..4].copy_from_slice(&self.to.1.to_be_bytes());
        }
        transport.extend(&self.payload);
        let mut frame = ip(
            self.from.0,
            self.to.0,
            self.protocol,
            self.options,
            &transport,
        );
        if !self.unsummed {
            finish(&mut frame);
        }
        frame
    }
}

/// A frame with an IPv4 packet, whose transport checksum is not filled in.
fn ip(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, options: usize, transport: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([8, 0]);
    let header = 20 + 4 * options;
    let length = (header + transport.len()) as u16;
    frame.extend([0x40 | (header / 4) as u8, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
    frame.extend(from.octets());
    frame.extend(to.octets());
    frame.extend(vec![1; 4 * options]);
    let sum = !sum(&frame[IP_AT..]);
    frame[IP_AT + 10..IP_AT + 12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(transport);
    frame
}

fn transport_at(frame: &[u8]) -> usize {
    IP_AT + usize::from(frame[IP_AT] & 0x0f) * 4
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

/// The sum over all that a transport checksum covers: all ones, if the checksum is right.
fn transport_sum(frame: &[u8]) -> u16 {
    let at = transport_at(frame);
    let length = usize::from(u16::from_be_bytes([frame[IP_AT + 2], frame[IP_AT + 3]]));
    let transport = &frame[at..IP_AT + length];
    let mut covered = Vec::new();
    if frame[IP_AT + 9] != ICMP {
        covered.extend(&frame[IP_AT + 12..IP_AT + 20]);
        covered.extend([0, frame[IP_AT + 9]]);
        covered.extend((transport.len() as u16).to_be_bytes());
    }
    covered.extend(transport);
    sum(&covered)
}

/// Fills the transport checksum in.
fn finish(frame: &mut [u8]) {
    let at = transport_at(frame);
    let (offset, optional) = match frame[IP_AT + 9] {
        TCP => (16, false),
        UDP => (6, true),
        _ => (2, false),
    };
    let sum = match !transport_sum(frame) {
        0 if optional => u16::MAX,
        sum => sum,
    };
    frame[at + offset..at + offset + 2].copy_from_slice(&sum.to_be_bytes());
}

/// An ICMP error that quotes a packet's header and so many bytes behind it.
fn error(from: Ipv4Addr, to: Ipv4Addr, about: &[u8], bytes: usize) -> Vec<u8> {
    let end = about.len().min(transport_at(about) + bytes);
    let mut transport = vec![3, 3, 0, 0, 0, 0, 0, 0];
    transport.extend(&about[IP_AT..end]);
    let mut frame = ip(from, to, ICMP, 0, &transport);
    finish(&mut frame);
    frame
}

fn out(map: &mut PortMap, frame: &mut [u8]) -> Result<Option<u16>, PortsFull> {
    let packet = Packet::parse(frame, frame.len());
    map.outgoing(frame, &packet, false, NOW)
}

fn back(map: &mut PortMap, frame: &mut [u8]) -> bool {
    let packet = Packet::parse(frame, frame.len());
    map.incoming(frame, &packet, false, NOW)
}

fn packets() -> impl Strategy<Value = Made> {
    let what = (
        prop::sample::select(vec![TCP, UDP, ICMP]),
        0..=10_usize,
        any::<bool>(),
        0..64_u8,
    );
    // A guest sends nothing from or to port 0: the guard sees to that.
    let ports = (1..=u16::MAX, 1..=u16::MAX);
    let payload = prop::collection::vec(any::<u8>(), 0..80);
    (what, ports, payload).prop_map(
        |((protocol, options, unsummed, flags), ports, payload)| Made {
            protocol,
            from: (GUEST, ports.0),
            to: (FAR, ports.1),
            options,
            unsummed: unsummed && protocol == UDP,
            flags,
            payload,
        },
    )
}

proptest! {
    #[test]
    fn a_packet_goes_out_as_if_sent_from_another_port_and_its_answer_comes_back(made in packets()) {
        let mut map = map();
        let mut frame = made.frame();
        let port = out(&mut map, &mut frame).unwrap().unwrap();
        prop_assert!(range().contains(port));
        let elsewhere = Made { from: (GUEST, port), ..made.clone() };
        prop_assert_eq!(&frame, &elsewhere.frame());
        prop_assert!(made.unsummed || transport_sum(&frame) == u16::MAX);

        let mut answer = elsewhere.reversed().frame();
        prop_assert!(back(&mut map, &mut answer));
        prop_assert_eq!(&answer, &made.reversed().frame());

        let mut again = made.frame();
        prop_assert_eq!(out(&mut map, &mut again), Ok(Some(port)));
        prop_assert_eq!(again, frame);
    }

    #[test]
    fn an_error_quotes_what_its_reader_has_sent(
        made in packets(),
        // Not half of a TCP checksum, which cannot be mended.
        quoted in prop_oneof![8..17_usize, 18..100_usize],
        padding in 0..20_usize,
    ) {
        let mut map = map();
        let mut seen = made.frame();
        out(&mut map, &mut seen).unwrap();
        let router = Ipv4Addr::new(198, 51, 100, 1);
        let padded = |mut frame: Vec<u8>| {
            frame.extend(vec![0xee; padding]);
            frame
        };

        let mut incoming = padded(error(router, GUEST, &seen, quoted));
        prop_assert!(back(&mut map, &mut incoming));
        let wanted = padded(error(router, GUEST, &made.frame(), quoted));
        prop_assert_eq!(incoming, wanted);

        // The guest's word on an answer that it did not want.
        let port = map.table(made.protocol).known(Inside { address: GUEST, port: made.from.1 }, NOW);
        let answer = made.reversed();
        let sent = Made { to: (GUEST, port.unwrap()), ..answer.clone() };
        let mut outgoing = padded(error(GUEST, FAR, &answer.frame(), quoted));
        prop_assert_eq!(out(&mut map, &mut outgoing), Ok(None));
        prop_assert_eq!(outgoing, padded(error(GUEST, FAR, &sent.frame(), quoted)));
    }

    #[test]
    fn a_checksum_that_others_finish_is_right_when_they_have(
        made in packets().prop_filter("ICMP is never left to others", |made| made.protocol != ICMP),
    ) {
        let mut map = map();
        let mut whole = made.frame();
        out(&mut map, &mut whole).unwrap();
        let mut partial = made.frame();
        let at = transport_at(&partial) + if made.protocol == TCP { 16 } else { 6 };
        partial[at..at + 2].copy_from_slice(&[0x12, 0x34]);
        let packet = Packet::parse(&partial, partial.len());
        map.outgoing(&mut partial, &packet, true, NOW).unwrap();
        prop_assert_eq!(&partial[at..at + 2], &[0x12, 0x34]);
        partial[at..at + 2].copy_from_slice(&[0, 0]);
        if !made.unsummed {
            finish(&mut partial);
        }
        prop_assert_eq!(partial, whole);
    }

    #[test]
    fn no_bytes_make_it_panic_or_touch_what_is_no_port(
        mut bytes in prop::collection::vec(any::<u8>(), 0..256),
        header in any::<bool>(),
        partial in any::<bool>(),
    ) {
        if header && bytes.len() >= 34 {
            bytes[12..15].copy_from_slice(&[8, 0, 0x45]);
            bytes[23] = [TCP, UDP, ICMP, 47][usize::from(bytes[23] % 4)];
        }
        let mut map = map();
        let before = bytes.clone();
        let packet = Packet::parse(&bytes, bytes.len());
        let _ = map.outgoing(&mut bytes, &packet, partial, NOW);
        let _ = map.incoming(&mut bytes, &packet, partial, NOW);
        prop_assert_eq!(bytes.len(), before.len());
        prop_assert_eq!(&bytes[..before.len().min(34)], &before[..before.len().min(34)]);
    }
}

#[test]
fn one_port_inside_is_one_port_outside_whomever_it_speaks_with() {
    let mut map = map();
    let mut port = |to: Ipv4Addr, far: u16| {
        let mut frame = Made::udp(5000, (to, far)).frame();
        out(&mut map, &mut frame).unwrap().unwrap()
    };
    let first = port(FAR, 53);
    assert_eq!(port(FAR, 54), first);
    assert_eq!(port(Ipv4Addr::new(203, 0, 113, 1), 53), first);
    assert_eq!(map.in_use(NOW), [0, 1, 0]);
}

#[test]
fn protocols_have_ports_of_their_own() {
    let mut map = map();
    for protocol in [TCP, UDP, ICMP] {
        let mut made = Made::udp(20_005, (FAR, 53));
        made.protocol = protocol;
        assert_eq!(out(&mut map, &mut made.frame()), Ok(Some(20_005)));
    }
    assert_eq!(map.in_use(NOW), [1, 1, 1]);
}

#[test]
fn traffic_with_the_card_s_own_network_goes_as_it_is() {
    let mut map = map();
    let made = Made::udp(80, (GATEWAY, 4711));
    let mut frame = made.frame();
    assert_eq!(out(&mut map, &mut frame), Ok(None));
    assert_eq!(frame, made.frame());
    // Somebody far has port 20080 of the guest outside; the host asks for 20080 inside.
    let mut other = Made::udp(20_080, (FAR, 53)).frame();
    assert_eq!(out(&mut map, &mut other), Ok(Some(20_080)));
    let request = Made::udp(20_080, (GATEWAY, 4711)).reversed();
    let mut frame = request.frame();
    assert!(!back(&mut map, &mut frame));
    assert_eq!(frame, request.frame());
}

#[test]
fn who_asks_for_an_address_asks_from_the_port_that_is_known_for_it() {
    let mut map = map();
    for to in [Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 251)] {
        let made = Made::udp(68, (to, 67));
        let mut frame = made.frame();
        assert_eq!(out(&mut map, &mut frame), Ok(None));
        assert_eq!(frame, made.frame());
    }
}

#[test]
fn what_comes_to_a_port_that_nobody_has_is_left_alone() {
    let mut map = map();
    let request = Made::udp(20_080, (FAR, 4711)).reversed();
    let mut frame = request.frame();
    assert!(!back(&mut map, &mut frame));
    assert_eq!(frame, request.frame());
    // An answer to another card's address is nobody's either.
    let mut frame = Made::udp(20_080, (FAR, 53)).frame();
    out(&mut map, &mut frame).unwrap();
    let mut elsewhere = request;
    elsewhere.to.0 = Ipv4Addr::new(10, 0, 3, 15);
    assert!(!back(&mut map, &mut elsewhere.frame()));
}

#[test]
fn an_answer_of_the_guest_to_a_ping_has_no_port() {
    let mut map = map();
    let mut made = Made::udp(77, (FAR, 0));
    made.protocol = ICMP;
    let mut frame = made.frame();
    let kind = transport_at(&frame);
    frame[kind] = 0;
    let before = frame.clone();
    assert_eq!(out(&mut map, &mut frame), Ok(None));
    assert_eq!(frame, before);
}

#[test]
fn when_all_ports_are_taken_a_packet_has_none_and_is_told_so() {
    let mut map = PortMap::new(PortRange::new(20_000, 20_015).unwrap(), &[], 7);
    for port in 1..=16 {
        let mut frame = Made::udp(port, (FAR, 53)).frame();
        assert!(out(&mut map, &mut frame).unwrap().is_some());
    }
    let mut frame = Made::udp(17, (FAR, 53)).frame();
    assert_eq!(out(&mut map, &mut frame), Err(PortsFull));
    assert_eq!(frame, Made::udp(17, (FAR, 53)).frame());
    let mut known = Made::udp(16, (FAR, 53)).frame();
    assert!(out(&mut map, &mut known).unwrap().is_some());
}
