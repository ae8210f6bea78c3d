mod hostile;
mod ipv6;
mod link;
mod long_probes;

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::spec::SliverSpec;

const SECOND: u64 = 1_000_000_000;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

fn guard(guard: &str, card: &str) -> Guard {
    let spec = format!(
        r#"{{"version":1,"name":"a","slice":"a_b","owner":"o","contact":"c","image":"/i",
            "guard":{{{guard}}},"nets":[{{"mac":"02:00:00:00:00:07"{card}}}]}}"#
    );
    let spec = SliverSpec::parse(spec.as_bytes()).unwrap();
    let cards = spec.nets().iter().map(Card::new).collect();
    Guard::new(spec.guard(), cards)
}

/// A guard of a card with addresses, and a gateway.
fn usual(fields: &str) -> Guard {
    guard(
        fields,
        r#","ipv4":"10.0.2.15/24","gateway4":"10.0.2.2","ipv6":"fd00::15/64","gateway6":"fd00::2""#,
    )
}

fn frame(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1];
    frame.extend(MAC);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

fn ip4(source: [u8; 4], destination: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x45, 0];
    ip.extend((20 + payload.len() as u16).to_be_bytes());
    ip.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
    ip.extend(source);
    ip.extend(destination);
    ip.extend(payload);
    frame(0x0800, &ip)
}

fn ip6(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x60, 0, 0, 0, 0, payload.len() as u8, protocol, 64];
    ip.extend(source.parse::<Ipv6Addr>().unwrap().octets());
    ip.extend(destination.parse::<Ipv6Addr>().unwrap().octets());
    ip.extend(payload);
    frame(0x86dd, &ip)
}

fn udp(source: u16, destination: u16) -> Vec<u8> {
    let words = [source, destination, 8, 0];
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

const ME: [u8; 4] = [10, 0, 2, 15];
const PUBLIC: [u8; 4] = [8, 8, 8, 8];

fn datagram(destination: [u8; 4]) -> Vec<u8> {
    ip4(ME, destination, protocol::UDP, &udp(5000, 53))
}

fn judged_at(guard: &mut Guard, frame: &[u8], known: bool, now: u64) -> Option<Reason> {
    let flow = match known {
        true => Acquaintance::Answered,
        false => Acquaintance::New,
    };
    judged_of(guard, frame, flow, now)
}

fn judged_of(guard: &mut Guard, frame: &[u8], flow: Acquaintance, now: u64) -> Option<Reason> {
    let packet = Packet::parse(frame, frame.len());
    match guard.outgoing(0, &packet, flow, Nanos(now)) {
        Verdict::Pass => None,
        Verdict::Drop(reason) => Some(reason),
    }
}

fn judged(guard: &mut Guard, frame: &[u8]) -> Option<Reason> {
    judged_at(guard, frame, false, SECOND)
}

#[test]
fn what_a_well_behaved_guest_sends_passes() {
    let guard = &mut usual("");
    let arp = [
        0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 7, 10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2,
    ];
    let mut solicitation = vec![135, 0, 0, 0, 0, 0, 0, 0];
    solicitation.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    for frame in [
        datagram(PUBLIC),
        datagram([10, 0, 2, 77]),
        frame(0x0806, &arp),
        ip6("fd00::15", "2606:4700::1111", protocol::UDP, &udp(1, 2)),
        ip6("fe80::9", "fe80::1", protocol::UDP, &udp(1, 2)),
        ip6("::", "ff02::1:ff00:9", protocol::ICMP6, &solicitation),
        ip6(
            "fe80::9",
            "ff02::16",
            protocol::ICMP6,
            &[143, 0, 0, 0, 0, 0, 0, 0],
        ),
        ip6(
            "fe80::9",
            "ff02::2",
            protocol::ICMP6,
            &[133, 0, 0, 0, 0, 0, 0, 0],
        ),
        ip4(ME, [224, 0, 0, 22], 2, &[0x22, 0, 0, 0, 0, 0, 0, 0]),
    ] {
        assert_eq!(judged(guard, &frame), None, "{frame:x?}");
    }
}

#[test]
fn what_hurts_others_is_dropped_with_its_reason() {
    let guard = &mut usual(r#""deny":["9.9.9.0/24"],"do_not_contact":["1.2.3.4"]"#);
    let mut other_mac = datagram(PUBLIC);
    other_mac[11] = 9;
    let arp = [
        0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 7, 10, 0, 2, 2, 0, 0, 0, 0, 0, 0, 10, 0, 2, 9,
    ];
    let mut advertisement = vec![136, 0, 0, 0, 0, 0, 0, 0];
    advertisement.extend("fd00::2".parse::<Ipv6Addr>().unwrap().octets());
    let mut short = datagram(PUBLIC);
    short.truncate(36);
    for (expected, frame) in [
        (Reason::ForgedMac, other_mac),
        (
            Reason::ForgedIp,
            ip4([10, 0, 2, 16], PUBLIC, 17, &udp(1, 2)),
        ),
        (Reason::ForgedIp, ip4([0; 4], PUBLIC, 17, &udp(1, 2))),
        (
            Reason::ForgedIp,
            ip6("2001:db8::1", "2606:4700::1", 17, &udp(1, 2)),
        ),
        (Reason::ForgedArp, frame(0x0806, &arp)),
        (
            Reason::ForgedNeighbour,
            ip6("fe80::9", "ff02::1", protocol::ICMP6, &advertisement),
        ),
        (
            Reason::ForgedNeighbour,
            ip6(
                "fe80::9",
                "ff02::1",
                protocol::ICMP6,
                &[134, 0, 0, 0, 0, 0, 0, 0],
            ),
        ),
        (Reason::PortZero, ip4(ME, PUBLIC, 17, &udp(5000, 0))),
        (Reason::PortZero, ip4(ME, PUBLIC, 17, &udp(0, 53))),
        (Reason::Bogon, datagram([0, 0, 0, 0])),
        (Reason::Bogon, datagram([192, 168, 1, 1])),
        (Reason::Bogon, datagram([10, 0, 3, 1])),
        (Reason::Multicast, datagram([239, 1, 1, 1])),
        (Reason::Broadcast, datagram([255, 255, 255, 255])),
        (Reason::Broadcast, datagram([10, 0, 2, 255])),
        (Reason::BadLength, short),
        (Reason::Ethertype, frame(0x88b5, &[0; 46])),
        (Reason::SiteDenied, datagram([9, 9, 9, 9])),
        (Reason::DoNotContact, datagram([1, 2, 3, 4])),
    ] {
        assert_eq!(judged(guard, &frame), Some(expected), "{frame:x?}");
    }
    assert_eq!(guard.drops().map(|(_, count)| count).sum::<u64>(), 19);
}

#[test]
fn what_the_spec_allows_passes() {
    let guard = &mut usual(
        r#""broadcast":true,"multicast":["239.0.0.0/8"],"reachable":["192.168.1.0/24"]"#,
    );
    for destination in [[255; 4], [10, 0, 2, 255], [239, 1, 1, 1], [192, 168, 1, 1]] {
        assert_eq!(judged(guard, &datagram(destination)), None);
    }
    let guard = &mut usual(r#""allow":["8.8.0.0/16"]"#);
    assert_eq!(judged(guard, &datagram(PUBLIC)), None);
    assert_eq!(judged(guard, &datagram([10, 0, 2, 2])), None);
    assert_eq!(
        judged(guard, &datagram([9, 9, 9, 9])),
        Some(Reason::NotAllowed)
    );
}

#[test]
fn a_report_drops_nothing_and_counts_all() {
    let guard = &mut usual(r#""mode":"report""#);
    assert_eq!(judged(guard, &datagram([192, 168, 1, 1])), None);
    assert!(guard.would_drop().any(|count| count == ("bogon", 1)));
    assert_eq!(guard.drops().map(|(_, count)| count).sum::<u64>(), 0);
}

#[test]
fn blocks_hold_at_once_and_end() {
    let guard = &mut usual("");
    guard.set_blocks(&["8.8.8.0/24".parse().unwrap()]);
    assert_eq!(judged(guard, &datagram(PUBLIC)), Some(Reason::Blocked));
    // Also for a flow that there is.
    let known = judged_at(guard, &datagram(PUBLIC), true, SECOND);
    assert_eq!(known, Some(Reason::Blocked));
    guard.set_blocks(&[]);
    assert_eq!(judged(guard, &datagram(PUBLIC)), None);
}

#[test]
fn blocks_hold_from_the_start_and_in_any_mode() {
    for mode in ["enforce", "report", "off"] {
        let fields = format!(r#""mode":"{mode}","blocked":["8.8.8.0/24"]"#);
        let guard = &mut usual(&fields);
        assert_eq!(judged(guard, &datagram(PUBLIC)), Some(Reason::Blocked));
        assert!(guard.drops().any(|count| count == ("blocked", 1)));
        // What is blocked later comes in place of that.
        guard.set_blocks(&["9.9.9.9".parse().unwrap()]);
        assert_eq!(judged(guard, &datagram(PUBLIC)), None, "{mode}");
    }
}

#[test]
fn slivers_of_a_node_meet_only_if_both_agree() {
    let node = r#""node_prefixes":["10.7.0.0/16"]"#;
    let agreed = r#""node_prefixes":["10.7.0.0/16"],"peers":["10.7.1.0/24"]"#;
    let to = datagram([10, 7, 1, 9]);
    let from = ip4([10, 7, 1, 9], ME, 17, &udp(1, 2));
    let from = Packet::parse(&from, from.len());
    let closed = &mut usual(&format!("{node},\"reachable\":[\"10.7.0.0/16\"]"));
    assert_eq!(judged(closed, &to), Some(Reason::OtherSliver));
    let verdict = closed.incoming(0, &from);
    assert_eq!(verdict, Verdict::Drop(Reason::OtherSliver));
    let open = &mut usual(agreed);
    assert_eq!(judged(open, &to), None);
    assert_eq!(open.incoming(0, &from), Verdict::Pass);
}

#[test]
fn probing_all_pairs_is_held_to_the_rate_of_new_flows() {
    // 64 slivers of different nodes, each at 1000 packets a second to all addresses there are.
    let rates = r#""flows_per_second":10,"flows_burst":20,"destinations_per_hour":50"#;
    for _ in 0..64 {
        let guard = &mut usual(rates);
        let passed = |guard: &mut Guard, seconds: std::ops::Range<u32>| {
            let probes = (seconds.start * 1000..seconds.end * 1000).filter(|packet| {
                let [_, a, b, c] = packet.to_be_bytes();
                let now = u64::from(*packet) * SECOND / 1000;
                judged_at(guard, &datagram([8, a, b, c]), false, now).is_none()
            });
            probes.count()
        };
        let in_two = passed(guard, 0..2);
        assert!((39..=40).contains(&in_two), "{in_two}");
        assert_eq!(in_two + passed(guard, 2..5), 50);
    }
}

#[test]
fn slivers_of_one_node_that_probe_all_pairs_reach_nobody() {
    let node = r#""node_prefixes":["10.0.2.0/24"]"#;
    for sliver in 3..67u8 {
        let card = format!(r#","ipv4":"10.0.2.{sliver}/24","gateway4":"10.0.2.2""#);
        let guard = &mut guard(node, &card);
        for other in (3..67u8).filter(|other| *other != sliver) {
            let probe = ip4([10, 0, 2, sliver], [10, 0, 2, other], 17, &udp(1, 2));
            assert_eq!(judged(guard, &probe), Some(Reason::OtherSliver));
        }
        let gateway = ip4([10, 0, 2, sliver], [10, 0, 2, 2], 17, &udp(1, 2));
        assert_eq!(judged(guard, &gateway), None);
    }
}

#[test]
fn icmp_has_a_rate() {
    let guard = &mut usual(r#""icmp_per_second":5,"flows_per_second":1000"#);
    let echo = ip4(ME, PUBLIC, protocol::ICMP, &[8, 0, 0, 0, 0, 1, 0, 1]);
    let passed =
        (0..10_000u64).filter(|n| judged_at(guard, &echo, true, n * SECOND / 1000).is_none());
    // Ten seconds at 5 a second, and the burst.
    assert!((95..=101).contains(&passed.count()));
}

#[test]
fn the_guest_is_told_and_errors_are_not_answered() {
    let guard = &mut usual("");
    let dropped = datagram([192, 168, 1, 1]);
    let packet = Packet::parse(&dropped, dropped.len());
    let mut out = [0; 160];
    let len = guard
        .answer(0, &dropped, &packet, Nanos(0), &mut out)
        .unwrap();
    let answer = &out[..len];
    assert_eq!(answer[..6], MAC);
    let told = Packet::parse(answer, len);
    let Kind::Ip(about) = told.kind else {
        panic!("{told:?}")
    };
    assert_eq!(about.source, IpAddr::from([10, 0, 2, 2]));
    assert_eq!(about.destination, IpAddr::from(ME));
    let expected = Transport::Icmp {
        kind: 3,
        code: 13,
        id: 0,
    };
    assert_eq!(about.transport, expected);
    assert_eq!(answer[42..70], dropped[14..42]);

    let error = ip4(
        ME,
        [192, 168, 1, 1],
        protocol::ICMP,
        &[3, 1, 0, 0, 0, 0, 0, 0],
    );
    let packet = Packet::parse(&error, error.len());
    assert_eq!(guard.answer(0, &error, &packet, Nanos(0), &mut out), None);
    let dropped = ip6("fd00::15", "2001:db8::1", 17, &udp(1, 2));
    let packet = Packet::parse(&dropped, dropped.len());
    let len = guard
        .answer(0, &dropped, &packet, Nanos(0), &mut out)
        .unwrap();
    let told = Packet::parse(&out[..len], len);
    assert!(matches!(
        told.kind,
        Kind::Ip(Datagram {
            transport: Transport::Icmp6 {
                kind: 1,
                code: 1,
                ..
            },
            ..
        })
    ));
    // And not without end.
    let answered = (0..1000).filter(|_| {
        let answer = guard.answer(0, &dropped, &packet, Nanos(0), &mut out);
        answer.is_some()
    });
    assert!(answered.count() <= 100);
}

#[test]
fn errors_are_told_only_of_what_came() {
    let guard = &mut usual("");
    let quote = |to: [u8; 4]| {
        let mut error = vec![3, 4, 0, 0, 0, 0, 0, 68];
        error.extend(&ip4(PUBLIC, to, protocol::UDP, &udp(53, 5000))[14..]);
        ip4(ME, PUBLIC, protocol::ICMP, &error)
    };
    assert_eq!(judged(guard, &quote(ME)), None);
    let forged = Some(Reason::ForgedError);
    assert_eq!(judged(guard, &quote([9, 9, 9, 9])), forged);
    let nothing = ip4(ME, PUBLIC, protocol::ICMP, &[3, 3, 0, 0, 0, 0, 0, 0]);
    assert_eq!(judged(guard, &nothing), forged);
    let quote6 = |to: &str| {
        let mut error = vec![2, 0, 0, 0, 0, 0, 5, 0];
        error.extend(&ip6("2620:fe::fe", to, protocol::UDP, &udp(53, 5000))[14..]);
        ip6("fd00::15", "2620:fe::fe", protocol::ICMP6, &error)
    };
    assert_eq!(judged(guard, &quote6("fd00::15")), None);
    assert_eq!(judged(guard, &quote6("2620:fe::1")), forged);
}

#[test]
fn a_link_is_not_flooded_with_what_keeps_it_going() {
    let guard = &mut usual("");
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 7, 10, 0, 2, 15];
    arp.extend([0, 0, 0, 0, 0, 0, 10, 0, 2, 2]);
    let arp = frame(0x0806, &arp);
    let passed = (0..5000).filter(|_| judged(guard, &arp).is_none()).count();
    assert_eq!(passed as u64, UPKEEP * BURST_SECONDS);
    assert_eq!(judged(guard, &arp), Some(Reason::UpkeepRate));
    assert_eq!(judged_at(guard, &arp, false, 2 * SECOND), None);
}

#[test]
fn ports_of_other_transports_are_ports() {
    let guard = &mut usual("");
    for transport in [protocol::DCCP, protocol::SCTP, protocol::UDP_LITE] {
        let sent = ip4(ME, PUBLIC, transport, &udp(5000, 0));
        assert_eq!(judged(guard, &sent), Some(Reason::PortZero));
        let sent = ip4(ME, PUBLIC, transport, &udp(5000, 80));
        assert_eq!(judged(guard, &sent), None);
    }
}
