//! PlanetLab's examples, by slivers that look at each other's last word at different moments.

use super::*;
use crate::spec::SliverSpec;

const UPLINK: Kbit = Kbit(10_000);
const STEP_MS: u64 = 1;
const LOOK_MS: u64 = 40;

#[test]
fn a_membership_is_what_the_spec_says() {
    let spec = serde_json::json!({
        "version": 1, "name": "a", "slice": "local_demo", "owner": "Ada",
        "contact": "ada@example.org", "image": "hello",
        "uplink": { "interface": "eth0", "rate": 10_000 },
        "net_min_rate": 500, "net_share": 3, "net_max_rate": 4000,
    });
    let spec = SliverSpec::parse(spec.to_string().as_bytes()).expect("sound");
    let uplink = spec.uplink().expect("named");
    let membership = Membership::of(uplink, spec.slice(), spec.net_limits());
    let claim = NetClaim {
        share: 3,
        min: Kbit(500),
        max: Kbit(4000),
    };
    assert_eq!((membership.rate, membership.claim), (UPLINK, claim));
    assert_eq!(membership.uplink, NameHash::of("eth0"));
    assert_ne!(membership.uplink, NameHash::of("eth1"));
}

struct Sliver {
    claim: NetClaim,
    /// What it would send, in kbit/s.
    wants: u32,
    uplink: Uplink,
    rate: Kbit,
    tx_bytes: u64,
    waited: bool,
    published: NetRival,
}

/// Slivers and a node that takes what is left of the uplink, as far as it wants it.
struct Node {
    slivers: Vec<Sliver>,
    wants: u32,
    own_bytes: u64,
    carried: u64,
    now_ms: u64,
}

impl Node {
    fn new(wants: u32, claims: &[(u32, u32)]) -> Self {
        let sliver = |(slot, (share, min)): (usize, &(u32, u32))| {
            let claim = NetClaim {
                share: *share,
                min: Kbit(*min),
                max: UPLINK,
            };
            Sliver {
                claim,
                wants: 1_000_000,
                uplink: Uplink::new(UPLINK),
                rate: Kbit(0),
                tx_bytes: 0,
                waited: false,
                published: NetRival {
                    slot,
                    claim,
                    demand: Kbit(0),
                    tx_bytes: 0,
                },
            }
        };
        Self {
            slivers: claims.iter().enumerate().map(sliver).collect(),
            wants,
            own_bytes: 0,
            carried: 0,
            now_ms: 0,
        }
    }

    fn step(&mut self) {
        let bytes = |kbit: u32| u64::from(kbit) * 125 * STEP_MS / 1000;
        let mut left = bytes(UPLINK.0);
        for sliver in &mut self.slivers {
            let sends = bytes(sliver.wants.min(sliver.rate.0));
            sliver.waited |= sliver.wants > sliver.rate.0;
            sliver.tx_bytes += sends;
            // What does not find room is dropped by the host, and was sent all the same.
            let carried = sends.min(left);
            left -= carried;
            self.carried += carried;
        }
        let own = bytes(self.wants).min(left);
        self.own_bytes += own;
        self.carried += own;
        self.now_ms += STEP_MS;
        for slot in 0..self.slivers.len() {
            // Each at a moment of its own.
            if (self.now_ms + 7 * slot as u64).is_multiple_of(LOOK_MS) {
                self.look(slot);
            }
        }
    }

    fn look(&mut self, slot: usize) {
        let rivals: Vec<NetRival> = self
            .slivers
            .iter()
            .map(|sliver| sliver.published)
            .filter(|rival| rival.slot != slot)
            .collect();
        let carried = Some(self.carried);
        let sliver = &mut self.slivers[slot];
        let own = OwnTraffic {
            claim: sliver.claim,
            tx_bytes: sliver.tx_bytes,
            waited: std::mem::take(&mut sliver.waited),
        };
        let part = sliver
            .uplink
            .look(&own, &rivals, carried, Nanos::from_millis(self.now_ms));
        sliver.rate = part.rate;
        sliver.published.demand = part.demand;
        sliver.published.tx_bytes = sliver.tx_bytes;
    }

    /// Rates of the node and the slivers, in kbit/s, over the last ten of twenty seconds.
    fn rates(&mut self) -> (f64, Vec<f64>) {
        let run = |node: &mut Self| (0..10_000).for_each(|_| node.step());
        run(self);
        let own = self.own_bytes;
        let before: Vec<u64> = self.slivers.iter().map(|s| s.tx_bytes).collect();
        run(self);
        let kbit = |bytes: u64| bytes as f64 / 1250.0;
        let slivers = self.slivers.iter().zip(before);
        let rates = slivers.map(|(sliver, before)| kbit(sliver.tx_bytes - before));
        (kbit(self.own_bytes - own), rates.collect())
    }
}

fn assert_near(rates: &[f64], expected: &[f64]) {
    assert_eq!(rates.len(), expected.len());
    for (rate, expected) in rates.iter().zip(expected) {
        assert!(
            (rate / expected - 1.0).abs() <= 0.03,
            "{rates:?}, not {expected}"
        );
    }
}

#[test]
fn a_busy_node_gets_its_share_beside_five_slices() {
    let (node, slivers) = Node::new(1_000_000, &[(1, 0); 5]).rates();
    assert_near(&[node], &[5000.0]);
    assert_near(&slivers, &[1000.0; 5]);
}

#[test]
fn five_slices_share_what_an_idle_node_leaves() {
    let (node, slivers) = Node::new(0, &[(1, 0); 5]).rates();
    assert_eq!(node, 0.0);
    assert_near(&slivers, &[2000.0; 5]);
}

#[test]
fn a_guarantee_comes_before_shares() {
    let (_, slivers) = Node::new(0, &[(1, 2000), (1, 0)]).rates();
    assert_near(&slivers, &[6000.0, 4000.0]);
}

#[test]
fn a_node_that_wants_less_than_its_share_gets_that() {
    let (node, slivers) = Node::new(2000, &[(1, 0); 5]).rates();
    assert_near(&[node], &[2000.0]);
    let sum: f64 = slivers.iter().sum();
    assert!(sum > 7600.0 && sum <= 8000.0, "{sum}");
}

#[test]
fn what_a_sliver_does_not_want_goes_to_the_others() {
    let mut node = Node::new(0, &[(1, 0), (1, 0), (2, 0)]);
    node.slivers[2].wants = 500;
    let (_, slivers) = node.rates();
    assert_near(&slivers, &[4700.0, 4700.0, 500.0]);
    // And comes back when it wants more.
    node.slivers[2].wants = 1_000_000;
    let (_, slivers) = node.rates();
    assert_near(&slivers, &[2500.0, 2500.0, 5000.0]);
}

#[test]
fn without_the_interfaces_counter_only_slivers_count() {
    let mut uplink = Uplink::new(UPLINK);
    let claim = NetClaim {
        share: 1,
        min: Kbit(0),
        max: Kbit(4000),
    };
    for look in 0..10 {
        let own = OwnTraffic {
            claim,
            tx_bytes: look * 1000,
            waited: true,
        };
        let part = uplink.look(&own, &[], None, Nanos::from_millis(look * 40));
        assert_eq!((part.rate, part.demand), (Kbit(4000), Kbit(4000)));
    }
    assert_eq!(uplink.node(), Kbit(0));
}

#[test]
fn a_sliver_that_lies_about_its_bytes_does_not_spoil_the_arithmetic() {
    let mut uplink = Uplink::new(UPLINK);
    let claim = NetClaim {
        share: 1,
        min: Kbit(0),
        max: UPLINK,
    };
    for look in 0..20u64 {
        let own = OwnTraffic {
            claim,
            tx_bytes: look,
            waited: true,
        };
        let lies = match look % 2 {
            0 => u64::MAX,
            _ => 0,
        };
        let rival = NetRival {
            slot: 9,
            claim,
            demand: UPLINK,
            tx_bytes: lies,
        };
        let carried = Some(look * 50_000);
        let part = uplink.look(&own, &[rival], carried, Nanos::from_millis(look * 40));
        assert!(part.rate <= UPLINK && part.rate >= Kbit(1000), "{part:?}");
    }
}
