//! A ping every two seconds for two weeks, as somebody once forgot one: a real guest's frame, as it
//! was heard outside, goes through the gate with stretched time.

use integration::egress::{Card, run};
use integration::needs_kvm;
use integration::sliver::Sliver;
use serde_json::json;
use vmm::nanos::Nanos;
use vmm::net::gate::{Gate, Judged, Segments};
use vmm::spec::SliverSpec;

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400;

/// Where it goes. Reserved for documentation, which is why the guard has to be told.
const PEER: &str = "198.51.100.7";

/// A frame of ICMP echo from a guest on the card.
fn ping_of(card: Card) -> Vec<u8> {
    let guest = Sliver::bare("egress");
    let own = card.ip.to_string();
    let guest = guest.args(["egress", &own, PEER, "1", "honest-icmp"]);
    let (ended, outside) = run(
        &[(card, guest)],
        &json!({ "guard": { "mode": "off" } }),
        |_| {},
    )
    .pop()
    .expect("there is one guest");
    ended.assert_exited(0);
    assert_eq!(outside.frames.len(), 1);
    outside.frames[0].head.clone()
}

/// When a ping passed, and when it was told that there are too many, in seconds.
fn two_weeks(card: Card, frame: &[u8], opt_in: &[&str]) -> (Vec<u64>, Vec<u64>) {
    let spec = json!({
        "version": 1, "name": "ping", "slice": "test_ping", "owner": "Integration Test",
        "contact": "test@example.org", "image": "/image", "nets": [card.spec()],
        "guard": { "reachable": [PEER], "opt_in": opt_in },
    });
    let spec = SliverSpec::parse(spec.to_string().as_bytes()).expect("it is a spec");
    let mut gate = Gate::new(&spec, 7, Nanos::ZERO, Nanos::ZERO);
    let (mut passed, mut told, mut seen) = (Vec::new(), Vec::new(), 0);
    for second in (0..14 * DAY).step_by(2) {
        let (now, mut head) = (Nanos(second * SECOND), frame.to_vec());
        let judged = gate.judge(0, &mut head, frame.len(), Segments::default(), now);
        if let Judged::Pass(admitted) = judged {
            gate.admit(&admitted, now).expect("nothing limits it");
            gate.sent(&admitted, &head, now);
            passed.push(second);
        }
        let events = gate.events_after(seen, now).events;
        seen = events.last().map_or(seen, |event| event.seq);
        for event in events.iter().filter(|event| event.kind == "long_probe") {
            assert!(event.detail.starts_with(PEER), "{}", event.detail);
            told.push(second);
        }
        // Somebody takes the records.
        let batch = gate.take_flows(0, 1000, now);
        gate.take_flows(batch.first + batch.records.len() as u64, 0, now);
    }
    (passed, told)
}

#[test]
fn a_forgotten_ping_is_told_after_a_day_and_slowed_after_two() {
    needs_kvm!();
    let card = Card::of(2);
    let frame = ping_of(card);
    let (passed, told) = two_weeks(card, &frame, &[]);
    assert_eq!(told.len(), 1);
    // It is looked for once in a while, and told when the next packet comes.
    assert!((DAY..=DAY + 2).contains(&told[0]), "{}", told[0]);
    let free = passed.iter().filter(|second| **second < 2 * DAY).count();
    assert_eq!(free as u64, DAY, "all of the first two days");
    let slowed: Vec<_> = passed.iter().filter(|second| **second >= 2 * DAY).collect();
    assert!(slowed.windows(2).all(|pair| pair[1] - pair[0] >= 60));
    assert!(
        (12 * 1440 - 1..=12 * 1440 + 1).contains(&slowed.len()),
        "{}",
        slowed.len()
    );
    let (passed, told) = two_weeks(card, &frame, &[PEER]);
    assert_eq!((passed.len() as u64, told.len()), (7 * DAY, 1));
}
