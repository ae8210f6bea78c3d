//! Ways around the rules, and any bytes at all.

use proptest::prelude::*;

use super::*;

#[test]
fn a_source_route_hides_no_destination() {
    let guard = &mut usual("");
    for option in [131, 137] {
        let mut routed = datagram(PUBLIC);
        let route = [option, 7, 4, 1, 2, 3, 4, 0];
        routed.splice(34..34, route);
        routed[14] = 0x47;
        routed[17] += 8;
        assert_eq!(judged(guard, &routed), Some(Reason::SourceRouted));
        // Behind an option that does no harm.
        routed.splice(34..34, [148, 4, 0, 0]);
        routed[14] = 0x48;
        routed[17] += 4;
        assert_eq!(judged(guard, &routed), Some(Reason::SourceRouted));
    }
    let mut payload = vec![17, 0, 0, 0, 0, 0, 0, 0];
    payload.extend(udp(1, 2));
    let routed = ip6("fd00::15", "2606:4700::1", 43, &payload);
    assert_eq!(judged(guard, &routed), Some(Reason::SourceRouted));
}

#[test]
fn a_datagram_to_one_in_a_frame_to_all_is_one_to_all() {
    let guard = &mut usual("");
    let mut frame = datagram(PUBLIC);
    frame[..6].fill(0xff);
    assert_eq!(judged(guard, &frame), Some(Reason::Broadcast));
    let first = datagram([10, 0, 2, 0]);
    assert_eq!(judged(guard, &first), Some(Reason::Broadcast));
}

#[test]
fn a_translator_is_no_way_around_a_block() {
    let guard = &mut usual(r#""do_not_contact":["8.8.8.8"]"#);
    let to = |destination| ip6("fd00::15", destination, protocol::UDP, &udp(1, 2));
    let blocked = judged(guard, &to("64:ff9b::808:808"));
    assert_eq!(blocked, Some(Reason::DoNotContact));
    let private = judged(guard, &to("64:ff9b::a00:301"));
    assert_eq!(private, Some(Reason::Bogon));
    assert_eq!(judged(guard, &to("64:ff9b::909:909")), None);
}

#[test]
fn a_gateway_is_not_impersonated_and_routes_are_not_redirected() {
    let link_local = r#","ipv6":"fe80::15/64","gateway6":"fe80::1""#;
    let guard = &mut guard("", &format!(r#"{link_local},"ipv4":"10.0.2.15/24""#));
    let own = ip6("fe80::1", "2606:4700::1", protocol::UDP, &udp(1, 2));
    assert_eq!(judged(guard, &own), Some(Reason::ForgedIp));
    let redirect = ip4(ME, [10, 0, 2, 9], protocol::ICMP, &[5, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(judged(guard, &redirect), Some(Reason::ForgedNeighbour));
}

#[test]
fn a_datagram_longer_than_its_packet_is_dropped() {
    let guard = &mut usual("");
    let mut long = datagram(PUBLIC);
    long[14 + 20 + 5] = 9;
    assert_eq!(judged(guard, &long), Some(Reason::BadLength));
    // Of the first of some fragments the rest is still to come.
    long[14 + 6] = 0x20;
    assert_eq!(judged(guard, &long), None);
}

#[test]
fn a_flood_from_outside_does_not_use_up_what_a_sliver_may_contact() {
    let guard = &mut usual(r#""destinations_per_hour":10,"icmp_per_second":100000"#);
    let unreachable = |to| {
        let mut error = vec![3, 3, 0, 0, 0, 0, 0, 0];
        error.extend(&ip4(to, ME, protocol::UDP, &udp(9, 9))[14..]);
        ip4(ME, to, protocol::ICMP, &error)
    };
    for stranger in 0..10_000u32 {
        let [_, _, c, d] = stranger.to_be_bytes();
        let from = [7, 7, c, d];
        let knock = ip4(from, ME, protocol::UDP, &udp(9, 9));
        assert_eq!(
            guard.incoming(0, &Packet::parse(&knock, knock.len())),
            Verdict::Pass
        );
        assert_eq!(judged(guard, &unreachable(from)), None);
    }
    assert_eq!(judged(guard, &datagram(PUBLIC)), None);
    // But errors to whoever was never heard of are contacts like others.
    let told = (0..100).filter(|n| judged(guard, &unreachable([6, 6, 6, *n])).is_none());
    assert_eq!(told.count(), 9);
}

#[test]
fn a_name_server_may_be_asked_for_ever() {
    let guard = &mut guard("", r#","ipv4":"10.0.2.15/24","dns":["8.8.8.8"]"#);
    for second in (0..4 * 86_400).step_by(5) {
        let judged = judged_at(guard, &datagram(PUBLIC), false, second * SECOND);
        assert_eq!(judged, None, "after {second} s");
    }
}

#[test]
fn many_blocks_are_looked_up_and_all_hold() {
    let guard = &mut usual(r#""destinations_per_hour":100000,"flows_per_second":1000000"#);
    let blocks: Vec<Prefix> = (0..10_000u32)
        .map(|n| Prefix::holding(Ipv4Addr::from_bits(0x5000_0000 + n * 512).into(), 24))
        .collect();
    guard.set_blocks(&blocks);
    for n in 0..10_000u32 {
        let [a, b, c, _] = (0x5000_0000 + n * 512).to_be_bytes();
        let blocked = judged(guard, &datagram([a, b, c, 9]));
        assert_eq!(blocked, Some(Reason::Blocked));
        assert_eq!(judged(guard, &datagram([a, b, c + 1, 9])), None);
    }
}

proptest! {
    #[test]
    fn what_passes_is_the_slivers_own(
        mut head in proptest::collection::vec(any::<u8>(), 14..200),
        shape in 0usize..5,
        source in any::<bool>(),
        more in 0usize..2000,
    ) {
        let ethertypes = [[8, 0], [0x86, 0xdd], [8, 6]];
        head[6..12].copy_from_slice(&MAC);
        if let Some(ethertype) = ethertypes.get(shape) {
            head[12..14].copy_from_slice(ethertype);
        }
        if let (0, Some(ip)) = (shape, head.get_mut(14..34)) {
            (ip[0], ip[9]) = (0x45, [1, 2, 6, 17, 50][usize::from(ip[9]) % 5]);
            ip[2..4].copy_from_slice(&[0, 60]);
            (ip[6], ip[7]) = (0, 0);
            if source {
                ip[12..16].copy_from_slice(&ME);
            }
        }
        let packet = Packet::parse(&head, head.len() + more);
        let guard = &mut usual("");
        if guard.outgoing(0, &packet, Acquaintance::New, Nanos(0)) == Verdict::Pass {
            match packet.kind {
                Kind::Ip(datagram) => {
                    let own = match datagram.source {
                        IpAddr::V4(four) => four == Ipv4Addr::from(ME) || datagram.protocol == 2,
                        IpAddr::V6(six) => {
                            six.is_unspecified()
                                || six.is_unicast_link_local()
                                || six == "fd00::15".parse::<Ipv6Addr>().unwrap()
                        }
                    };
                    prop_assert!(own && judge_ports(&datagram.transport).is_ok());
                    prop_assert!(!datagram.destination.is_unspecified());
                }
                Kind::Arp(arp) => prop_assert_eq!(arp.sender_mac, MAC),
                other => prop_assert!(false, "{:?}", other),
            }
        }
        let mut out = [0; 160];
        if let Some(len) = guard.answer(0, &head, &packet, Nanos(0), &mut out) {
            let told = Packet::parse(&out[..len], len);
            prop_assert!(matches!(told.kind, Kind::Ip(_)), "{:?}", told);
        }
        guard.incoming(0, &packet);
        guard.learn(0, &packet, &head);
    }
}
