//! The uplink of a node, shared by real slivers through their ledger. Its counter here is that of the
//! loopback interface, over which nothing goes that counts: the node itself is silent.

use std::sync::Arc;

use integration::egress::Card;
use integration::needs_kvm;
use integration::sliver::{Running, Sliver, new_place, until};
use integration::taps;
use serde_json::{Value, json};
use tempfile::TempDir;
use vmm::control::proto::{NetStatus, Op};

/// What it carries, in kbit/s, and what slivers use of that together.
const RATE: u64 = 10_000;
const SHARED: u64 = 9_900;

/// A node with a ledger of its own.
struct Node {
    place: Arc<TempDir>,
    memory: TempDir,
    taps: Vec<taps::Tap>,
    slivers: usize,
}

impl Node {
    fn new() -> Self {
        Self {
            place: Arc::new(new_place()),
            memory: TempDir::with_prefix_in("slicevisor-test-", "/dev/shm")
                .expect("a temporary directory is made"),
            taps: taps::make(5),
            slivers: 0,
        }
    }

    /// A sliver of `slice` that sends all it can.
    fn hog(&mut self, slice: &str, limits: Value) -> Sliver {
        self.slivers += 1;
        let tap = self.taps.pop().expect("a tap is left");
        let mut hog = Sliver::bare("egress")
            .args(["egress-flood", "udp", "1514"])
            .in_place(&self.place)
            .ledger(self.memory.path().join("ledger"))
            .field("name", format!("hog-{}", self.slivers))
            .field("slice", format!("test_{slice}"))
            .field("nets", json!([Card::of(2).spec()]))
            .field("uplink", json!({ "interface": "lo", "rate": RATE }))
            .field("net_max_kbyte", "none")
            .tap(0, tap.fd);
        for (name, value) in limits.as_object().expect("an object") {
            hog = hog.field(name, value.clone());
        }
        hog
    }
}

fn traffic(sliver: &Running) -> NetStatus {
    sliver.control().status().net.expect("it has a card")
}

/// Waits until slivers may send about so much, in kbit/s.
fn settle(slivers: &[&Running], due: &[u64]) {
    until(&format!("they may send {due:?}"), || {
        let mut rates = slivers.iter().map(|sliver| traffic(sliver).tx_kbit);
        let mut due = due.iter();
        due.all(|due| {
            let rate = rates.next().flatten().unwrap_or(0);
            rate.abs_diff(*due) <= due / 20
        })
        .then_some(())
    });
}

#[test]
fn an_uplink_goes_to_those_who_send_by_their_shares() {
    needs_kvm!();
    let mut node = Node::new();
    let one = node.hog("one", json!({ "net_share": 1 })).spawn_running();
    settle(&[&one], &[SHARED]);
    let three = node.hog("three", json!({ "net_share": 3 })).spawn_running();
    settle(&[&one, &three], &[SHARED / 4, SHARED * 3 / 4]);
    let kept = node.hog("kept", json!({ "net_min_rate": 2000 }));
    let kept = kept.spawn_running();
    // Whoever has a reserve has its part of the rest, too.
    let rest = SHARED - 2000;
    settle(
        &[&one, &three, &kept],
        &[rest / 5, rest * 3 / 5, 2000 + rest / 5],
    );
    kept.assert_well();
    three.assert_well();
    settle(&[&one], &[SHARED]);
    one.assert_well();
}

#[test]
fn who_wants_less_than_its_part_leaves_the_rest() {
    needs_kvm!();
    let mut node = Node::new();
    let modest = node.hog("modest", json!({ "net_max_rate": 1000 }));
    let modest = modest.spawn_running();
    let hog = node.hog("hog", json!({})).spawn_running();
    settle(&[&hog], &[SHARED - 1000]);
    hog.assert_well();
    modest.assert_well();
}

#[test]
fn no_more_is_guaranteed_than_the_uplink_carries() {
    needs_kvm!();
    let mut node = Node::new();
    let most = || json!({ "net_min_rate": 2500 });
    let first = node.hog("first", most()).spawn_running();
    let again = node.hog("first", json!({ "net_min_rate": 1 })).run();
    assert_eq!(again.status.code(), Some(125), "{again:#?}");
    for told in ["1 kbit/s", "2500"] {
        assert!(again.errors.contains(told), "{again:#?}");
    }
    // A sliver that was refused has taken nothing.
    let others = ["second", "third", "fourth"].map(|slice| node.hog(slice, most()).spawn_running());
    node.taps.extend(taps::make(1));
    let fifth = node.hog("fifth", json!({ "net_min_rate": 100 })).run();
    assert_eq!(fifth.status.code(), Some(125), "{fifth:#?}");
    for told in ["100 kbit/s", "10000"] {
        assert!(fifth.errors.contains(told), "{fifth:#?}");
    }
    for sliver in others {
        sliver.assert_well();
    }
    first.assert_well();
}

#[test]
fn an_uplink_that_is_not_there_is_told_by_its_name() {
    needs_kvm!();
    let mut node = Node::new();
    let lost = node.hog("lost", json!({}));
    let uplink = json!({ "interface": "nowhere0", "rate": RATE });
    let ended = lost.field("uplink", uplink).run();
    assert_eq!(ended.status.code(), Some(125), "{ended:#?}");
    for told in ["uplink.interface", "nowhere0", "No such file"] {
        assert!(ended.errors.contains(told), "{ended:#?}");
    }
}

#[test]
fn a_change_that_the_uplink_cannot_keep_is_refused_whole() {
    needs_kvm!();
    let mut node = Node::new();
    let first = node.hog("first", json!({ "net_min_rate": 2000 }));
    let first = first.spawn_running();
    let second = node.hog("first", json!({})).spawn_running();
    let set = |sliver: &Running, min: u64| {
        let change = json!({ "cpu": { "cpu_share": 7 }, "net": { "net_min_rate": min } });
        let change = serde_json::from_value(change).expect("it is a change");
        sliver.control().ask(Op::SetLimits(change))
    };
    let told = set(&second, 501).expect_err("it is refused");
    for word in ["501", "2000", "2500"] {
        assert!(told.contains(word), "{told}");
    }
    let status = second.control().status();
    assert_eq!(status.cpu.limits.share(), 1);
    assert_eq!(traffic(&second).limits.plain().min_kbit, 0);
    set(&second, 500).expect("there is room for that");
    assert_eq!(traffic(&second).limits.plain().min_kbit, 500);
    // What one gives up another can have.
    set(&first, 0).expect("it claims less");
    set(&second, 2500).expect("there is room for it now");
    second.assert_well();
    first.assert_well();
}
