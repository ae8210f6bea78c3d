//! Slivers on an uplink: who sees whom, which guarantees are given, and entries that lie.

use proptest::prelude::*;

use super::*;
use crate::net::uplink::{Kbit, Membership, NameHash, NetClaim, NetRival};
use crate::spec::MAX_SHARE;

const RATE: Kbit = Kbit(10_000);

fn on(interface: &str, slice: &str, min: u32) -> Membership {
    Membership {
        uplink: NameHash::of(interface),
        slice: NameHash::of(slice),
        rate: RATE,
        claim: NetClaim {
            share: 3,
            min: Kbit(min),
            max: Kbit(9000),
        },
    }
}

fn net_rivals(ledger: &Ledger, now: Nanos) -> Vec<NetRival> {
    let mut out = Vec::new();
    ledger.net_rivals(now, &mut out);
    out
}

#[test]
fn slivers_on_the_same_uplink_see_each_other() {
    let place = Place::new();
    let (one, two, three) = (place.join("one"), place.join("two"), place.join("three"));
    two.publish_net(NOW, Kbit(5), 7);
    assert!(net_rivals(&one, NOW).is_empty(), "nobody is on an uplink");
    one.set_net(&on("eth0", "a", 0)).expect("taken");
    two.set_net(&on("eth0", "b", 100)).expect("taken");
    three.set_net(&on("eth1", "c", 0)).expect("taken");
    assert!(net_rivals(&one, NOW).is_empty(), "nobody has said anything");
    two.publish_net(NOW, Kbit(5), 7);
    three.publish_net(NOW, Kbit(5), 7);
    let seen = NetRival {
        slot: two.slot(),
        claim: on("eth0", "b", 100).claim,
        demand: Kbit(5),
        tx_bytes: 7,
    };
    assert_eq!(net_rivals(&one, NOW), [seen]);
    assert!(net_rivals(&two, NOW).is_empty());
    // Another claim leaves what was said.
    two.set_net(&on("eth0", "b", 50)).expect("changed");
    assert_eq!(net_rivals(&one, NOW)[0].tx_bytes, 7);
    assert_eq!(net_rivals(&one, NOW)[0].claim.min, Kbit(50));
    // What was said long ago is not heard, nor what was said by those who have left.
    assert!(net_rivals(&one, NOW + layout::STALE + Nanos(1)).is_empty());
    two.leave_net();
    assert!(net_rivals(&one, NOW).is_empty());
    assert!(one.is_current() && two.is_current());
}

#[test]
fn people_see_who_is_on_an_uplink() {
    let place = Place::new();
    let (_one, two) = (place.join("one"), place.join("two"));
    two.set_net(&on("eth0", "b", 100)).expect("taken");
    two.publish_net(NOW, Kbit(5), 7);
    let view = LedgerView::open(&place.path()).expect("it is sound");
    let seen: Vec<_> = view
        .entries(NOW)
        .into_iter()
        .map(|entry| entry.net)
        .collect();
    let [None, Some(net)] = seen[..] else {
        panic!("{seen:?}");
    };
    assert_eq!(
        (net.uplink, net.slice),
        (NameHash::of("eth0"), NameHash::of("b"))
    );
    assert_eq!(net.claim, on("eth0", "b", 100).claim);
    assert_eq!((net.demand, net.tx_bytes, net.updated), (Kbit(5), 7, NOW));
}

#[test]
fn what_is_said_of_traffic_leaves_what_is_said_of_processors() {
    let place = Place::new();
    let (one, two) = (place.join("one"), place.join("two"));
    two.publish(NOW, busy(5));
    let before = rivals(&one, NOW);
    two.set_net(&on("eth0", "b", 100)).expect("taken");
    two.publish_net(NOW, Kbit(5), 7);
    assert_eq!(rivals(&one, NOW), before);
}

#[test]
fn an_uplink_is_promised_once() {
    let place = Place::new();
    let ledgers: Vec<Ledger> = (0..5).map(|_| place.join("a")).collect();
    for (i, ledger) in ledgers.iter().take(4).enumerate() {
        let slice = format!("slice{i}");
        ledger.set_net(&on("eth0", &slice, 2400)).expect("taken");
    }
    let refused = ledgers[4]
        .set_net(&on("eth0", "late", 401))
        .expect_err("full");
    assert!(refused.is_refusal());
    assert_eq!(
        refused.to_string(),
        "net_min_rate: 401 kbit/s cannot be guaranteed: with the 9600 that others have, the sum is \
         10001, and of this uplink's 10000 kbit/s at most 10000 can be guaranteed; 400 are left"
    );
    ledgers[4].set_net(&on("eth0", "late", 400)).expect("fits");
    ledgers[4]
        .set_net(&on("eth1", "late", 2500))
        .expect("another uplink");
}

#[test]
fn a_slice_has_a_quarter_of_the_uplink_at_most() {
    let place = Place::new();
    let (one, two) = (place.join("one"), place.join("two"));
    assert!(one.set_net(&on("eth0", "a", 2501)).is_err());
    one.set_net(&on("eth0", "a", 2000)).expect("fits");
    let refused = two.set_net(&on("eth0", "a", 501)).expect_err("too much");
    assert_eq!(
        refused.to_string(),
        "net_min_rate: 501 kbit/s cannot be guaranteed: with the 2000 that its other slivers have, \
         the sum is 2501, and of this uplink's 10000 kbit/s at most 2500 can be guaranteed to one \
         slice; 500 are left"
    );
    two.set_net(&on("eth0", "b", 501)).expect("another slice");
    two.set_net(&on("eth0", "a", 500)).expect("fits");
}

#[test]
fn a_dead_slivers_guarantee_is_free() {
    let place = Place::new();
    let (one, two) = (place.join("one"), place.join("two"));
    one.set_net(&on("eth0", "a", 2500)).expect("fits");
    assert!(two.set_net(&on("eth0", "a", 1)).is_err());
    kill(one);
    two.set_net(&on("eth0", "a", 2500)).expect("fits");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_give_sane_rivals_on_the_uplink(
        words in proptest::collection::vec(prop_oneof![0u32..4, any::<u32>()], 16),
        fresh in any::<bool>(),
    ) {
        let place = Place::new();
        let (one, two) = (place.join("one"), place.join("two"));
        one.set_net(&on("eth0", "a", 100)).expect("taken");
        two.set_net(&on("eth0", "b", 100)).expect("taken");
        two.publish_net(NOW, Kbit(5), 7);
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        // At rest, on this uplink, and of the present: only then is it looked at closely.
        bytes[0] &= !1;
        bytes[24..32].copy_from_slice(&NameHash::of("eth0").0.to_ne_bytes());
        if fresh {
            bytes[48..56].copy_from_slice(&NOW.0.to_ne_bytes());
        }
        let at = layout::page_offset(two.slot()) + layout::entry_offset(two.slot()) + 128;
        let file = File::options().write(true).open(place.path()).expect("opened");
        file.write_all_at(&bytes, at as u64).expect("written");
        for rival in net_rivals(&one, NOW) {
            prop_assert!((1..=MAX_SHARE).contains(&rival.claim.share));
            prop_assert!(rival.claim.min <= RATE && rival.claim.max <= RATE);
            prop_assert!(rival.demand <= RATE);
        }
        // It can take away what may be reserved, and nothing else.
        let _ = one.set_net(&on("eth0", "a", 200));
        two.publish_net(NOW, Kbit(5), 7);
        prop_assert_eq!(net_rivals(&one, NOW).len(), 1);
    }
}
