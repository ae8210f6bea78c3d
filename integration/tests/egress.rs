//! What leaves a node: guests send what nobody may, and the outside hears every frame.

use std::collections::BTreeMap;
use std::time::Duration;

use integration::egress::{Card, GATEWAY, Outside, run, run_on_node};
use integration::needs_kvm;
use integration::sliver::Sliver;
use serde_json::{Value, json};
use vmm::nanos::Nanos;
use vmm::net::flows::Acquaintance;
use vmm::net::guard::{self, Guard, Verdict};
use vmm::net::packet::Packet;
use vmm::spec::SliverSpec;

/// Frames of each kind.
const COUNT: usize = 5;

/// As what a guard counts them, and how many of the kinds above.
const REASONS: &[(&str, u64)] = &[
    ("port_zero", 4),
    ("bogon", 4),
    ("forged_ip", 5),
    ("multicast", 1),
    ("broadcast", 2),
    ("forged_arp", 2),
    ("forged_neighbour", 1),
    ("bad_length", 5),
    ("malformed", 1),
    ("ethertype", 1),
];

/// For how long guests probe each other.
const PROBING: Duration = Duration::from_secs(3);

/// What may leave.
const HONEST: [&str; 4] = ["honest-udp", "honest-tcp", "honest-icmp", "honest-arp"];

/// What may not, and why not.
const WRONG: &[(&str, &str)] = &[
    ("udp-to-port-zero", "port zero"),
    ("udp-from-port-zero", "port zero"),
    ("tcp-to-port-zero", "port zero"),
    ("tcp-from-port-zero", "port zero"),
    ("to-unset", "an address that nobody has"),
    ("to-this-network", "an address that nobody has"),
    ("to-loopback", "an address that nobody has"),
    ("to-reserved", "an address that nobody has"),
    ("from-unset", "a forged address"),
    ("from-loopback", "a forged address"),
    ("forged-ip", "a forged address"),
    ("forged-far-ip", "a forged address"),
    ("to-multicast", "a packet to many"),
    ("to-everybody", "a packet to many"),
    ("to-one-through-everybody", "a packet to many"),
    ("forged-arp", "a forged address in ARP"),
    ("forged-arp-mac", "a forged address in ARP"),
    ("forged-neighbour", "a forged neighbour"),
    ("from-gateway-of-link", "a forged neighbour"),
    ("length-beyond-end", "a wrong length"),
    ("length-too-short", "a wrong length"),
    ("udp-length-wrong", "a wrong length"),
    ("header-too-long", "a wrong length"),
    ("header-too-short", "a wrong length"),
    ("wrong-version", "a wrong length"),
    ("other-ethertype", "another protocol"),
];

/// Sends so many frames of each kind, and then of the honest kinds.
fn outside_of(kinds: &[&str], fields: Value) -> Outside {
    let card = Card::of(2);
    let count = COUNT.to_string();
    let [own, peer] = [card.ip, GATEWAY].map(|address| address.to_string());
    let first = ["egress", &own, &peer, &count];
    let args = [&first[..], kinds, &HONEST].concat();
    let guest = Sliver::bare("egress").args(args);
    let (ended, outside) = run(&[(card, guest)], &fields, |_| {})
        .pop()
        .expect("there is one guest");
    ended.assert_exited(0);
    outside
}

/// How often each reason occurs among frames of these kinds.
fn expected(kinds: &[(&'static str, &'static str)]) -> BTreeMap<&'static str, usize> {
    let mut expected = BTreeMap::new();
    for (_, why) in kinds {
        *expected.entry(*why).or_default() += COUNT;
    }
    expected
}

#[test]
fn without_a_guard_everything_leaves_but_forged_hardware_addresses() {
    needs_kvm!();
    let mut kinds: Vec<_> = WRONG.iter().map(|(kind, _)| *kind).collect();
    kinds.push("forged-mac");
    let outside = outside_of(&kinds, guard(json!({ "mode": "off" })));
    assert_eq!(outside.forbidden(), expected(WRONG));
    assert_eq!(outside.allowed(), HONEST.len() * COUNT);
}

#[test]
fn without_a_guard_probes_of_all_pairs_leave_the_node() {
    needs_kvm!();
    let guests = probers(4);
    for (ended, outside) in run_on_node(&guests, &guard(json!({ "mode": "off" }))) {
        ended.assert_exited(0);
        assert_eq!(outside.forbidden(), BTreeMap::new());
        // Every frame is of a flow of its own.
        let flows = outside.destinations().len();
        assert_eq!(flows, outside.frames.len());
        assert!(flows > 0);
    }
}

/// So many guests, each of which probes all others.
fn probers(count: u8) -> Vec<(Card, Sliver)> {
    (2..2 + count)
        .map(|number| {
            let card = Card::of(number);
            let time = PROBING.as_millis().to_string();
            let args = ["egress-pairs", &card.ip.to_string(), &time];
            (card, Sliver::bare("egress").args(args).memory_mib(16))
        })
        .collect()
}

/// A guard with these members.
fn guard(members: Value) -> Value {
    json!({ "guard": members })
}

/// Counts, of each reason, frames of so many kinds.
fn of_reasons(kinds: &[(&str, u64)]) -> BTreeMap<String, u64> {
    let counts = kinds.iter();
    counts
        .map(|(reason, kinds)| ((*reason).to_owned(), kinds * COUNT as u64))
        .collect()
}

#[test]
fn a_guard_and_the_outside_agree_on_every_frame_of_a_real_guest() {
    needs_kvm!();
    let kinds: Vec<_> = WRONG.iter().map(|(kind, _)| *kind).collect();
    let outside = outside_of(&kinds, guard(json!({ "mode": "off" })));
    let card = Card::of(2);
    let spec = json!({
        "version": 1, "name": "guarded", "slice": "test_guarded", "owner": "Integration Test",
        "contact": "test@example.org", "image": "/image", "nets": [card.spec()],
        "guard": {},
    });
    let spec = SliverSpec::parse(spec.to_string().as_bytes()).expect("it is a spec");
    let cards = spec.nets().iter().map(guard::Card::new).collect();
    let mut guard = Guard::new(spec.guard(), cards);
    let mut wrong = Vec::new();
    for frame in &outside.frames {
        let packet = Packet::parse(&frame.head, frame.len);
        let verdict = guard.outgoing(0, &packet, Acquaintance::New, Nanos(1));
        let forbidden = card.forbids(&frame.head, frame.len);
        if (verdict != Verdict::Pass) != forbidden.is_some() {
            wrong.push((verdict, forbidden, packet));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let drops = guard.drops().filter(|(_, count)| *count > 0);
    let drops: BTreeMap<_, _> = drops
        .map(|(reason, count)| (reason.to_owned(), count))
        .collect();
    assert_eq!(drops, of_reasons(REASONS));
}
