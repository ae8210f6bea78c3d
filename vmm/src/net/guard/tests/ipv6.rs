//! What Linux sends of itself when its card comes up with IPv6, byte for byte, whatever its spec says;
//! and what nobody may say on a link but a router, a server, or whoever has the address.

use super::link::learn;
use super::*;

const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// The address of the link that Linux derives from the card's, and one that it makes of a secret.
const DERIVED: &str = "fe80::ff:fe00:7";
const SECRET: &str = "fe80::a1b2:c3d4:e5f6:1234";
const ROUTER: &str = "fe80::1";

fn octets(address: &str) -> [u8; 16] {
    address.parse::<Ipv6Addr>().unwrap().octets()
}

/// A message of ICMP for IPv6 with this type, about an address, with options.
fn message(kind: u8, target: &str, options: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(octets(target));
    message.extend(options);
    message
}

fn solicitation(source: &str, target: &str, options: &[u8]) -> Vec<u8> {
    let mut group = octets("ff02::1:ff00:0");
    group[13..].copy_from_slice(&octets(target)[13..]);
    let group = Ipv6Addr::from(group).to_string();
    ip6(
        source,
        &group,
        protocol::ICMP6,
        &message(135, target, options),
    )
}

fn advertisement(source: &str, target: &str, link: [u8; 6]) -> Vec<u8> {
    let options = [&[2, 1], &link[..]].concat();
    ip6(
        source,
        "ff02::1",
        protocol::ICMP6,
        &message(136, target, &options),
    )
}

fn router_solicitation(source: &str, options: &[u8]) -> Vec<u8> {
    let message = [&[133, 0, 0, 0, 0, 0, 0, 0], options].concat();
    ip6(source, "ff02::2", protocol::ICMP6, &message)
}

fn router_advertisement(source: &str) -> Vec<u8> {
    let lives = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut frame = ip6(source, "ff02::1", protocol::ICMP6, &lives);
    frame[14 + 7] = 255;
    frame
}

/// A report of groups behind the option that makes routers look at it (RFC 3810, 5.2).
fn report(source: &str, group: &str) -> Vec<u8> {
    let mut report = vec![protocol::ICMP6, 0, 5, 2, 0, 0, 1, 0];
    report.extend([143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0]);
    report.extend(octets(group));
    ip6(source, "ff02::16", 0, &report)
}

/// A guard of a card with these addresses.
fn card(fields: &str) -> Guard {
    guard("", fields)
}

const IPV4_ONLY: &str = r#","ipv4":"10.0.2.15/24","gateway4":"10.0.2.2""#;
const BOTH: &str = r#","ipv4":"10.0.2.15/24","ipv6":"fd00::15/64","gateway6":"fd00::2""#;
const LEASED: &str = r#","dhcp":true"#;

#[test]
fn what_linux_says_when_its_card_comes_up_passes_whatever_the_spec_says() {
    let nonce = [14, 1, 0xb6, 1, 0x5e, 0x7c, 0x20, 0x33];
    let own_link = [&[1, 1], &MAC[..]].concat();
    for fields in [IPV4_ONLY, BOTH, LEASED, ""] {
        let guard = &mut card(fields);
        for own in [DERIVED, SECRET] {
            for frame in [
                report("::", "ff02::1:ff00:7"),
                solicitation("::", own, &nonce),
                report(own, "ff02::1:ff00:7"),
                router_solicitation("::", &[]),
                router_solicitation(own, &own_link),
                advertisement(own, own, MAC),
                solicitation(own, ROUTER, &own_link),
                ip6(
                    own,
                    ROUTER,
                    protocol::ICMP6,
                    &message(135, ROUTER, &own_link),
                ),
                ip6(own, ROUTER, protocol::ICMP6, &[128, 0, 0, 0, 0, 7, 0, 1]),
            ] {
                assert_eq!(judged(guard, &frame), None, "{fields}: {frame:x?}");
            }
        }
        assert!(guard.drops().all(|(_, count)| count == 0));
    }
    let guard = &mut card(BOTH);
    assert_eq!(judged(guard, &solicitation("::", "fd00::15", &nonce)), None);
    assert_eq!(
        judged(guard, &advertisement("fd00::15", "fd00::15", MAC)),
        None
    );
}

#[test]
fn an_address_that_a_guest_makes_of_a_routers_prefix_is_not_its_own() {
    for fields in [IPV4_ONLY, BOTH, LEASED] {
        let guard = &mut card(fields);
        learn(guard, &router_advertisement(ROUTER));
        let made = ip6(
            "2606:4700::ff:fe00:7",
            "2606:4700::1111",
            protocol::UDP,
            &udp(1, 2),
        );
        assert_eq!(judged(guard, &made), Some(Reason::ForgedIp));
        // Nor does it keep anybody from it.
        let claimed = solicitation("::", "2606:4700::1111", &[]);
        assert_eq!(judged(guard, &claimed), Some(Reason::ForgedNeighbour));
    }
}

#[test]
fn nobody_but_a_router_speaks_as_one() {
    for fields in [IPV4_ONLY, BOTH, LEASED, ""] {
        let guard = &mut guard(r#""multicast":["ff00::/8"],"broadcast":true"#, fields);
        let advertised = router_advertisement(DERIVED);
        assert_eq!(judged(guard, &advertised), Some(Reason::ForgedNeighbour));
        let redirect = ip6(
            DERIVED,
            "fe80::9",
            protocol::ICMP6,
            &message(137, "fe80::9", &[]),
        );
        assert_eq!(judged(guard, &redirect), Some(Reason::ForgedNeighbour));
        // As two fragments, of which the first says what it is.
        let mut first = vec![protocol::ICMP6, 0, 0, 1, 0, 0, 0, 9];
        first.extend([134, 0, 0, 0, 64, 0, 7, 8]);
        let first = ip6(DERIVED, "ff02::1", 44, &first);
        assert!(judged(guard, &first).is_some());
        // And behind options.
        let mut behind = vec![protocol::ICMP6, 0, 1, 4, 0, 0, 0, 0];
        behind.extend([134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
        let behind = ip6(DERIVED, "ff02::1", 60, &behind);
        assert_eq!(judged(guard, &behind), Some(Reason::ForgedNeighbour));
    }
}

#[test]
fn the_address_of_a_router_that_was_heard_is_nobody_elses() {
    let guard = &mut card(BOTH);
    assert_eq!(judged(guard, &advertisement(DERIVED, DERIVED, MAC)), None);
    // From far away it could not be: its hop limit says so.
    let mut far = router_advertisement(DERIVED);
    far[14 + 7] = 254;
    learn(guard, &far);
    assert_eq!(judged(guard, &advertisement(DERIVED, DERIVED, MAC)), None);
    learn(guard, &router_advertisement(ROUTER));
    let forged = Some(Reason::ForgedNeighbour);
    assert_eq!(judged(guard, &advertisement(DERIVED, ROUTER, MAC)), forged);
    assert_eq!(judged(guard, &solicitation("::", ROUTER, &[])), forged);
    let as_router = ip6(ROUTER, "fe80::9", protocol::UDP, &udp(1, 2));
    assert_eq!(judged(guard, &as_router), Some(Reason::ForgedIp));
}

#[test]
fn no_address_is_said_to_be_at_anothers_card() {
    let guard = &mut card(BOTH);
    let forged = Some(Reason::ForgedNeighbour);
    assert_eq!(
        judged(guard, &advertisement("fd00::15", "fd00::15", OTHER)),
        forged
    );
    let others_link = [&[1, 1], &OTHER[..]].concat();
    assert_eq!(
        judged(guard, &solicitation("fd00::15", "fd00::9", &others_link)),
        forged
    );
    assert_eq!(
        judged(guard, &router_solicitation(DERIVED, &others_link)),
        forged
    );
    // The second of two options, or one that is longer than it needs to be.
    let two = [&[1, 1], &MAC[..], &[1, 1], &OTHER[..]].concat();
    assert_eq!(
        judged(guard, &solicitation("fd00::15", "fd00::9", &two)),
        forged
    );
    let long = [&[1, 2], &MAC[..], &[0; 8]].concat();
    assert_eq!(
        judged(guard, &solicitation("fd00::15", "fd00::9", &long)),
        forged
    );
    for wrong in [[1, 0, 0, 0, 0, 0, 0, 0], [1, 9, 0, 0, 0, 0, 0, 0]] {
        let frame = solicitation("fd00::15", "fd00::9", &wrong);
        assert_eq!(judged(guard, &frame), Some(Reason::BadLength));
    }
    // In fragments it is nobody's (RFC 6980).
    let mut first = vec![protocol::ICMP6, 0, 0, 1, 0, 0, 0, 9];
    first.extend(message(136, "fd00::15", &[]));
    let first = ip6("fd00::15", "ff02::1", 44, &first);
    assert_eq!(judged(guard, &first), Some(Reason::Malformed));
}

#[test]
fn a_guest_grants_no_leases() {
    for fields in [BOTH, ""] {
        let guard = &mut guard(r#""broadcast":true,"multicast":["ff00::/8"]"#, fields);
        let server = Some(Reason::ForgedServer);
        for to in [[255; 4], [10, 0, 2, 9], PUBLIC] {
            let offer = ip4(ME, to, protocol::UDP, &udp(67, 68));
            assert_eq!(judged(guard, &offer), server);
        }
        let advertised = ip6(DERIVED, "fe80::9", protocol::UDP, &udp(547, 546));
        assert_eq!(judged(guard, &advertised), server);
    }
}
