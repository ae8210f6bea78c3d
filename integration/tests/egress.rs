//! What leaves a node: guests send what nobody may, and the outside hears every frame.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use integration::client::Client;
use integration::egress::{Card, Frame, GATEWAY, Outside, run, run_on_node};
use integration::needs_kvm;
use integration::sliver::{Sliver, until};
use serde_json::{Value, json};
use vmm::control::proto::{NetStatus, Op};
use vmm::exit::ExitKind;
use vmm::nanos::Nanos;
use vmm::net::flows::Acquaintance;
use vmm::net::guard::{self, Guard, Verdict};
use vmm::net::packet::Packet;
use vmm::spec::SliverSpec;

/// Frames of each kind.
const COUNT: usize = 5;

/// As what a guard counts them, and how many of the kinds below.
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
        let forbidden: Vec<_> = outside.forbidden().into_keys().collect();
        assert_eq!(forbidden, ["an address that nobody has", "port zero"]);
        let flows = outside.destinations();
        let allowed = flows.iter().filter(|(to, port)| to[0] != 0 && *port != 0);
        // Every other frame is of a flow of its own.
        assert_eq!(allowed.count(), outside.allowed());
        assert!(outside.allowed() > 0);
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

/// Sends frames of each kind, waits until `count` of them were counted as `counted` tells, and has
/// the sliver end. What came out, and the counts.
fn counted(
    kinds: &[&str],
    fields: &Value,
    counted: fn(&NetStatus) -> &BTreeMap<String, u64>,
    count: usize,
) -> (Outside, BTreeMap<String, u64>) {
    let card = Card::of(2);
    let each = COUNT.to_string();
    let [own, peer] = [card.ip, GATEWAY].map(|address| address.to_string());
    let args = [
        &["egress", &own, &peer, &each][..],
        &HONEST,
        kinds,
        &["stay"],
    ]
    .concat();
    let guest = Sliver::bare("egress").args(args);
    let mut counts = BTreeMap::new();
    let (ended, outside) = run(&[(card, guest)], fields, |slivers| {
        let mut control = slivers[0].control();
        counts = until("all frames were judged", || {
            let traffic = control.status().net?;
            let counts = counted(&traffic).clone();
            (counts.values().sum::<u64>() >= count as u64).then_some(counts)
        });
        let reason = "test".to_owned();
        control.ask(Op::Stop { reason }).expect("it stops");
    })
    .pop()
    .expect("there is one guest");
    ended.assert_end(ExitKind::Stopped, 143);
    (outside, counts)
}

#[test]
fn a_guard_lets_nothing_out_that_is_forbidden_and_counts_it_by_reason() {
    needs_kvm!();
    let kinds: Vec<_> = WRONG.iter().map(|(kind, _)| *kind).collect();
    let (outside, dropped) = counted(
        &kinds,
        &guard(json!({})),
        |traffic| &traffic.dropped,
        WRONG.len() * COUNT,
    );
    assert_eq!(outside.forbidden(), BTreeMap::new());
    assert_eq!(outside.allowed(), HONEST.len() * COUNT);
    assert_eq!(dropped, of_reasons(REASONS));
}

#[test]
fn a_guard_that_reports_drops_nothing_and_tells_what_it_would_have() {
    needs_kvm!();
    let kinds: Vec<_> = WRONG.iter().map(|(kind, _)| *kind).collect();
    let (outside, would_drop) = counted(
        &kinds,
        &guard(json!({ "mode": "report" })),
        |traffic| &traffic.would_drop,
        WRONG.len() * COUNT,
    );
    assert_eq!(outside.forbidden(), expected(WRONG));
    assert_eq!(outside.allowed(), HONEST.len() * COUNT);
    assert_eq!(would_drop, of_reasons(REASONS));
}

/// What a guest is told of that sends it.
const TOLD: [&str; 7] = [
    "udp-to-port-zero",
    "tcp-to-port-zero",
    "tcp-from-port-zero",
    "to-unset",
    "to-this-network",
    "to-loopback",
    "to-reserved",
];

#[test]
fn a_guest_is_told_that_what_it_sent_is_prohibited() {
    needs_kvm!();
    for kind in TOLD {
        let guest = Sliver::bare("egress-told");
        let guest = guest.args(["egress-told", "10.0.0.2", "10.0.0.1", kind]);
        let (ended, outside) = run(&[(Card::of(2), guest)], &guard(json!({})), |_| {})
            .pop()
            .expect("there is one guest");
        ended.assert_exited(0);
        assert!(outside.frames.is_empty(), "{kind}");
    }
}

/// Slivers that probe all others, for how long, and new flows that each may begin in a second.
const PROBERS: u8 = 64;
const NEW_FLOWS: u64 = 20;

#[test]
fn slivers_that_probe_all_pairs_begin_no_more_flows_than_they_may() {
    needs_kvm!();
    let guests = probers(PROBERS);
    let since = Instant::now();
    let all = run_on_node(
        &guests,
        &guard(json!({ "flows_per_second": NEW_FLOWS, "flows_burst": NEW_FLOWS })),
    );
    let seconds = since.elapsed().as_secs() + 1;
    for (ended, outside) in all {
        ended.assert_exited(0);
        assert_eq!(outside.forbidden(), BTreeMap::new());
        let flows = outside.destinations().len();
        // Every frame is of a flow of its own.
        assert_eq!(flows, outside.frames.len());
        // A second's worth may come at once.
        let most = (seconds + 1) * NEW_FLOWS;
        assert!((1..=most as usize).contains(&flows), "{flows} of {most}");
    }
}

#[test]
fn a_block_holds_within_a_second_for_a_sliver_that_runs() {
    needs_kvm!();
    let card = Card::of(2);
    let blocked = [10, 0, 0, 5];
    let guest = Sliver::bare("egress").args(["egress-pairs", "10.0.0.2", "600000"]);
    let mut from = Duration::MAX;
    let fields = guard(json!({ "flows_per_second": 100_000 }));
    let (ended, outside) = run(&[(card, guest)], &fields, |slivers| {
        let mut control = slivers[0].control();
        let mut sent = |more: u64| {
            let traffic = |control: &mut Client| control.status().net.expect("it has a card");
            let before = traffic(&mut control).tx_bytes;
            until("it has sent more", || {
                (traffic(&mut control).tx_bytes >= before + more).then_some(())
            });
        };
        sent(1 << 16);
        let prefixes = vec!["10.0.0.5/32".to_owned()];
        let mut other = slivers[0].control();
        other
            .ask(Op::SetBlocks { prefixes })
            .expect("it is blocked");
        from = unix_now() + Duration::from_secs(1);
        thread::sleep(Duration::from_secs(1));
        sent(1 << 18);
        let reason = "test".to_owned();
        other.ask(Op::Stop { reason }).expect("it stops");
    })
    .pop()
    .expect("there is one guest");
    ended.assert_end(ExitKind::Stopped, 143);
    let to_blocked = |frame: &&Frame| frame.destination().is_some_and(|(to, _)| to == blocked);
    let (before, after): (Vec<_>, Vec<_>) =
        outside.frames.iter().partition(|frame| frame.at < from);
    assert!(before.iter().copied().any(|frame| to_blocked(&frame)));
    assert!(!after.is_empty());
    assert_eq!(after.iter().copied().filter(to_blocked).count(), 0);
}

fn unix_now() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("it is later than 1970")
}

#[test]
fn slivers_of_a_node_reach_only_those_they_have_agreed_to_talk_to() {
    needs_kvm!();
    let fields = guard(json!({
        "node_prefixes": ["10.0.0.0/24"], "peers": ["10.0.0.3"], "flows_per_second": 100_000,
    }));
    for (ended, outside) in run_on_node(&probers(4), &fields) {
        ended.assert_exited(0);
        let reached: BTreeSet<_> = outside.destinations().iter().map(|(to, _)| *to).collect();
        assert!(
            reached.is_subset(&BTreeSet::from([[10, 0, 0, 3]])),
            "{reached:?}"
        );
    }
}
