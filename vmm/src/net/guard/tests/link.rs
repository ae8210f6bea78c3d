//! Leases, duplicate addresses, and what an unmodified guest must do before it can talk at all.

use super::*;

/// A DHCP server's message of this kind, for the card.
fn offer(kind: u8, server: [u8; 4], address: [u8; 4], options: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[0] = 2;
    message[16..20].copy_from_slice(&address);
    message[28..34].copy_from_slice(&MAC);
    message[236..240].copy_from_slice(&[99, 130, 83, 99]);
    message.extend([53, 1, kind]);
    message.extend(options);
    message.push(255);
    let mut payload = udp(67, 68);
    payload[4..6].copy_from_slice(&(8 + message.len() as u16).to_be_bytes());
    payload.extend(message);
    ip4(server, address, protocol::UDP, &payload)
}

const SERVER: [u8; 4] = [10, 0, 2, 1];
/// A mask of 24 bits, and the gateway behind an option that nobody reads.
const OPTIONS: &[u8] = &[
    1, 4, 255, 255, 255, 0, 58, 4, 0, 0, 0, 9, 0, 3, 4, 10, 0, 2, 2,
];

pub(super) fn learn(guard: &mut Guard, answer: &[u8]) {
    let packet = Packet::parse(answer, answer.len());
    assert_eq!(guard.incoming(0, &packet), Verdict::Pass);
    guard.learn(0, &packet, answer);
}

fn ask() -> Vec<u8> {
    ip4([0; 4], [255; 4], protocol::UDP, &udp(68, 67))
}

#[test]
fn a_lease_tells_address_subnet_and_gateway() {
    let guard = &mut guard("", r#","dhcp":true"#);
    assert_eq!(judged(guard, &datagram(PUBLIC)), Some(Reason::ForgedIp));
    assert_eq!(judged(guard, &ask()), None);
    learn(guard, &offer(2, SERVER, ME, OPTIONS));
    assert_eq!(judged(guard, &datagram(PUBLIC)), Some(Reason::ForgedIp));
    learn(guard, &offer(5, SERVER, ME, OPTIONS));
    for destination in [PUBLIC, [10, 0, 2, 2], [10, 0, 2, 99]] {
        assert_eq!(judged(guard, &datagram(destination)), None);
    }
    let beyond = datagram([10, 0, 3, 1]);
    assert_eq!(judged(guard, &beyond), Some(Reason::Bogon));
    // It renews by asking the server itself, and gets another address.
    let renewal = ip4(ME, SERVER, protocol::UDP, &udp(68, 67));
    assert_eq!(judged(guard, &renewal), None);
    learn(guard, &offer(5, SERVER, [10, 0, 2, 77], OPTIONS));
    assert_eq!(judged(guard, &datagram(PUBLIC)), Some(Reason::ForgedIp));
}

#[test]
fn nobody_outside_gives_a_guest_an_address_to_forge() {
    let guard = &mut guard("", r#","dhcp":true"#);
    let victim = [198, 51, 100, 7];
    // Not asked for.
    learn(guard, &offer(5, SERVER, victim, OPTIONS));
    assert_eq!(judged(guard, &ask()), None);
    learn(guard, &offer(5, SERVER, ME, OPTIONS));
    // Asked for, but from elsewhere.
    assert_eq!(judged(guard, &ask()), None);
    learn(guard, &offer(5, PUBLIC, victim, OPTIONS));
    let forged = ip4(victim, PUBLIC, protocol::UDP, &udp(1, 2));
    assert_eq!(judged(guard, &forged), Some(Reason::ForgedIp));
    assert_eq!(judged(guard, &datagram(PUBLIC)), None);
    // For another card.
    assert_eq!(judged(guard, &ask()), None);
    let mut other = offer(5, SERVER, [10, 0, 2, 9], OPTIONS);
    other[14 + 20 + 8 + 28] ^= 4;
    learn(guard, &other);
    assert_eq!(judged(guard, &datagram(PUBLIC)), None);
}

#[test]
fn asking_for_a_lease_is_no_way_out() {
    let guard = &mut guard("", r#","dhcp":true,"ipv6":"fd00::15/64""#);
    let far = ip4([0; 4], PUBLIC, protocol::UDP, &udp(68, 67));
    assert_eq!(judged(guard, &far), Some(Reason::ForgedIp));
    // Who has an address does not ask unless its spec says so.
    let fixed = &mut usual("");
    assert_eq!(judged(fixed, &ask()), Some(Reason::ForgedIp));
}

#[test]
fn without_any_address_only_the_other_rules_hold() {
    let guard = &mut guard("", "");
    for frame in [
        ask(),
        ip4([203, 0, 113, 5], PUBLIC, protocol::UDP, &udp(1, 2)),
        ip6("2a00::5", "2606:4700::1", protocol::UDP, &udp(1, 2)),
    ] {
        assert_eq!(judged(guard, &frame), None, "{frame:x?}");
    }
    let zero = ip4(ME, PUBLIC, protocol::UDP, &udp(1, 0));
    assert_eq!(judged(guard, &zero), Some(Reason::PortZero));
    let from_nowhere = ip4([0; 4], PUBLIC, protocol::UDP, &udp(1, 2));
    assert_eq!(judged(guard, &from_nowhere), Some(Reason::ForgedIp));
}

fn arp(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1];
    arp.extend(MAC);
    arp.extend(sender);
    arp.extend([0; 6]);
    arp.extend(target);
    frame(0x0806, &arp)
}

#[test]
fn an_address_may_be_probed_for_and_announced_but_not_taken() {
    let guard = &mut usual("");
    assert_eq!(judged(guard, &arp([0; 4], ME)), None);
    // Whether another's address is free is no business of its.
    let probe = judged(guard, &arp([0; 4], [10, 0, 2, 77]));
    assert_eq!(probe, Some(Reason::ForgedArp));
    assert_eq!(judged(guard, &arp(ME, ME)), None);
    let taken = arp([10, 0, 2, 2], [10, 0, 2, 2]);
    assert_eq!(judged(guard, &taken), Some(Reason::ForgedArp));
    let mut other = arp(ME, ME);
    other[14 + 8] ^= 4;
    assert_eq!(judged(guard, &other), Some(Reason::ForgedArp));
}

/// Neighbour discovery of this type about an address.
fn discovery(kind: u8, source: &str, destination: &str, target: &str) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.parse::<Ipv6Addr>().unwrap().octets());
    ip6(source, destination, protocol::ICMP6, &message)
}

#[test]
fn discovery_stays_on_the_link_and_speaks_for_oneself() {
    let guard = &mut guard("", r#","ipv6":"fd00::15/64","gateway6":"fd00::2""#);
    for frame in [
        discovery(135, "::", "ff02::1:ff00:15", "fd00::15"),
        discovery(135, "fd00::15", "fd00::2", "fd00::2"),
        discovery(136, "fd00::15", "fd00::2", "fd00::15"),
        discovery(136, "fe80::7", "ff02::1", "fe80::7"),
        ip6(
            "fe80::7",
            "ff02::2",
            protocol::ICMP6,
            &[133, 0, 0, 0, 0, 0, 0, 0],
        ),
        ip6(
            "::",
            "ff02::16",
            protocol::ICMP6,
            &[143, 0, 0, 0, 0, 0, 0, 0],
        ),
    ] {
        assert_eq!(judged(guard, &frame), None, "{frame:x?}");
    }
    for (kind, target) in [(136, "fd00::2"), (134, "::"), (137, "fd00::15")] {
        let forged = discovery(kind, "fd00::15", "ff02::1", target);
        assert_eq!(judged(guard, &forged), Some(Reason::ForgedNeighbour));
    }
    // With the type of discovery, nothing gets further than with another.
    guard.set_blocks(&["2606:4700::/32".parse().unwrap()]);
    let far = discovery(135, "fd00::15", "2606:4700::1", "fd00::15");
    assert_eq!(judged(guard, &far), Some(Reason::Blocked));
    let group = ip6(
        "fe80::7",
        "ff0e::5",
        protocol::ICMP6,
        &[143, 0, 0, 0, 0, 0, 0, 0],
    );
    assert_eq!(judged(guard, &group), Some(Reason::Multicast));
    let unspecified = ip6("::", "2620:fe::fe", protocol::UDP, &udp(1, 2));
    assert_eq!(judged(guard, &unspecified), Some(Reason::ForgedIp));
}
