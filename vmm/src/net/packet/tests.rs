use proptest::prelude::*;

use super::*;

/// A frame of IPv4 with this protocol and payload.
fn frame4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 7, 8, 0];
    let total = (20 + payload.len()) as u16;
    frame.extend([0x45, 0]);
    frame.extend(total.to_be_bytes());
    frame.extend([
        0, 1, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2,
    ]);
    frame.extend(payload);
    frame
}

fn datagram(frame: &[u8]) -> Datagram {
    match Packet::parse(frame, frame.len()).kind {
        Kind::Ip(datagram) => datagram,
        other => panic!("{other:?}"),
    }
}

fn flaw(frame: &[u8]) -> Option<Flaw> {
    match Packet::parse(frame, frame.len()).kind {
        Kind::Malformed(flaw) => Some(flaw),
        _ => None,
    }
}

fn udp(source: u16, destination: u16) -> Vec<u8> {
    [source, destination, 8, 0]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect()
}

#[test]
fn addresses_and_ports_are_read() {
    let frame = frame4(protocol::UDP, &udp(5000, 53));
    let packet = Packet::parse(&frame, frame.len());
    assert_eq!(packet.source_mac, [2, 0, 0, 0, 0, 7]);
    assert_eq!(packet.destination_mac, [2, 0, 0, 0, 0, 1]);
    let tuple = packet.tuple().unwrap();
    assert_eq!(tuple.source, IpAddr::from([192, 0, 2, 1]));
    assert_eq!(tuple.destination, IpAddr::from([198, 51, 100, 2]));
    assert_eq!((tuple.source_port, tuple.destination_port), (5000, 53));
    assert_eq!(tuple.reversed().reversed(), tuple);
    assert_eq!(datagram(&frame).header_bytes, 14 + 20 + 8);

    let mut tcp = vec![0; 24];
    (tcp[0], tcp[3], tcp[12], tcp[13]) = (1, 80, 6 << 4, 2);
    let read = datagram(&frame4(protocol::TCP, &tcp));
    let expected = Transport::Tcp {
        source: 256,
        destination: 80,
        flags: 2,
    };
    assert_eq!(
        (read.transport, read.header_bytes),
        (expected, 14 + 20 + 24)
    );
}

#[test]
fn an_echo_and_its_answer_are_one_flow() {
    let asked = frame4(protocol::ICMP, &[8, 0, 0, 0, 0x12, 0x34, 0, 1]);
    let tuple = Packet::parse(&asked, asked.len()).tuple().unwrap();
    let mut answered = frame4(protocol::ICMP, &[0, 0, 0, 0, 0x12, 0x34, 0, 1]);
    answered[26..34].rotate_left(4);
    let answer = Packet::parse(&answered, answered.len()).tuple().unwrap();
    assert_eq!(answer.reversed(), tuple);
}

#[test]
fn later_fragments_have_no_ports() {
    let mut frame = frame4(protocol::UDP, &udp(1, 2));
    frame[21] = 1;
    assert_eq!(datagram(&frame).transport, Transport::Fragment);
}

#[test]
fn lengths_that_contradict_each_other_are_found() {
    let good = frame4(protocol::UDP, &udp(1, 2));
    assert_eq!(flaw(&good), None);
    assert_eq!(flaw(&good[..13]), Some(Flaw::Short));
    assert_eq!(flaw(&good[..30]), Some(Flaw::Length));
    for (at, value, expected) in [
        (14, 0x44, Flaw::Length),
        (14, 0x65, Flaw::Field),
        (17, 19, Flaw::Length),
        (17, 200, Flaw::Length),
        (17, 27, Flaw::Length),
        (39, 7, Flaw::Length),
    ] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(flaw(&bad), Some(expected), "byte {at} is {value}");
    }
    let mut short = vec![0; 20];
    short[12] = 4 << 4;
    assert_eq!(flaw(&frame4(protocol::TCP, &short)), Some(Flaw::Length));
}

#[test]
fn extension_headers_are_followed() {
    let mut frame = vec![0; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8 + 8 + 8, 0, 64]);
    frame.extend(Ipv6Addr::LOCALHOST.octets());
    frame.extend(Ipv6Addr::LOCALHOST.octets());
    frame.extend([44, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend([protocol::UDP, 0, 0, 1, 0, 0, 0, 9]);
    frame.extend(udp(7, 9));
    let expected = Transport::Udp {
        source: 7,
        destination: 9,
    };
    assert_eq!(datagram(&frame).transport, expected);
    frame[14 + 40 + 8 + 3] = 0x08;
    assert_eq!(datagram(&frame).transport, Transport::Fragment);
    // A chain that goes nowhere.
    frame[14 + 40] = 0;
    frame[14 + 41] = 200;
    assert_eq!(flaw(&frame), Some(Flaw::Length));
}

#[test]
fn arp_is_read() {
    let mut frame = vec![0; 12];
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    frame.extend([2, 0, 0, 0, 0, 7, 10, 0, 0, 2]);
    frame.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
    let expected = Arp {
        is_reply: true,
        sender_mac: [2, 0, 0, 0, 0, 7],
        sender: Ipv4Addr::new(10, 0, 0, 2),
        target: Ipv4Addr::new(10, 0, 0, 1),
    };
    let read = Packet::parse(&frame, frame.len()).kind;
    assert_eq!(read, Kind::Arp(expected));
    assert_eq!(flaw(&frame[..41]), Some(Flaw::Short));
    frame[21] = 3;
    assert_eq!(flaw(&frame), Some(Flaw::Field));
}

proptest! {
    #[test]
    fn any_bytes_are_read(
        mut head in proptest::collection::vec(any::<u8>(), 0..=HEAD_BYTES),
        kind in 0usize..4,
        more in 0usize..70_000,
    ) {
        let ethertypes = [[8, 0], [0x86, 0xdd], [8, 6]];
        if let (Some(ethertype), Some(at)) = (ethertypes.get(kind), head.get_mut(12..14)) {
            at.copy_from_slice(ethertype);
        }
        if let Some(version) = head.get_mut(14) {
            *version = if kind == 0 { 0x45 } else { 0x60 };
        }
        let packet = Packet::parse(&head, head.len() + more);
        if let Kind::Ip(datagram) = packet.kind {
            prop_assert!(datagram.header_bytes <= packet.frame_bytes);
            prop_assert!(datagram.transport_at >= 34);
        }
    }
}
