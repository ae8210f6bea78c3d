//! Limits of the network, kept by real slivers: what is counted outside is never more than rate and
//! burst allow for all the time in which the sliver was there.

use std::thread;
use std::time::{Duration, Instant};

use integration::egress::{Card, run};
use integration::needs_kvm;
use integration::sliver::{Sliver, until};
use integration::taps;
use serde_json::{Value, json};
use vmm::control::proto::{NetStatus, Op};
use vmm::exit::ExitKind;

/// A rate in kbit/s, and a burst in KiB.
const RATE: u64 = 8000;
const BURST: u64 = 64;

/// What has to get through before a sliver is ended.
const ENOUGH: u64 = 1 << 20;

fn limits() -> Value {
    json!({ "net_max_rate": RATE, "net_burst": BURST })
}

/// Bytes that may have gone by now, at most: the last frame may be in debt.
fn most(since: Instant, last: u64) -> u64 {
    BURST * 1024 + since.elapsed().as_millis() as u64 * RATE / 8 + last
}

fn traffic(sliver: &integration::sliver::Running) -> NetStatus {
    sliver.control().status().net.expect("it has a card")
}

/// Floods with such frames, until enough has gone; bytes on the wire that were heard.
fn flood(protocol: &str, bytes: u64, on_wire: u64) {
    let since = Instant::now();
    let guest = Sliver::bare("egress").args(["egress-flood", protocol, &bytes.to_string()]);
    let (ended, outside) = run(&[(Card::of(2), guest)], &limits(), |slivers| {
        until("enough has gone", || {
            (traffic(&slivers[0]).tx_bytes >= ENOUGH).then_some(())
        });
        let reason = "test".to_owned();
        slivers[0]
            .control()
            .ask(Op::Stop { reason })
            .expect("it stops");
    })
    .pop()
    .expect("there is one guest");
    ended.assert_end(ExitKind::Stopped, 143);
    assert!(outside.forbidden().is_empty());
    let gone = outside.frames.len() as u64 * on_wire;
    assert!(outside.frames.iter().all(|frame| frame.len as u64 == bytes));
    let most = most(since, on_wire);
    assert!((ENOUGH..=most).contains(&gone), "{gone} of {most}");
}

#[test]
fn no_more_leaves_than_rate_and_burst_allow() {
    needs_kvm!();
    flood("udp", 60, 60);
    flood("udp", 1514, 1514);
}

#[test]
fn bundles_of_segments_count_with_the_headers_of_each() {
    needs_kvm!();
    flood("tcp", 54 + 44 * 1448, 44 * (54 + 1448));
}

#[test]
fn waits_far_below_a_millisecond_do_not_stall_a_card() {
    needs_kvm!();
    // At this rate a frame of 60 bytes takes half a microsecond.
    let limits = json!({ "net_max_rate": 1_000_000, "net_burst": 2 });
    let guest = Sliver::bare("egress");
    let guest = guest.args(["egress", "10.0.0.2", "10.0.0.1", "20000", "honest-udp"]);
    let (ended, outside) = run(&[(Card::of(2), guest)], &limits, |_| {})
        .pop()
        .expect("there is one guest");
    ended.assert_exited(0);
    assert_eq!(outside.frames.len(), 20_000);
}

#[test]
fn what_comes_too_fast_is_left_to_the_tap() {
    needs_kvm!();
    let since = Instant::now();
    let tap = taps::make(1).pop().expect("a tap is made");
    let sliver = Sliver::bare("egress-listen")
        .field("nets", json!([Card::of(2).spec()]))
        .field("net_rx_max_rate", RATE)
        .field("net_rx_burst", BURST)
        .tap(0, tap.fd)
        .spawn_running();
    let got = until("enough has come", || {
        for _ in 0..200 {
            tap.host.send(1514);
        }
        thread::sleep(Duration::from_millis(1));
        let traffic = traffic(&sliver);
        (traffic.rx_bytes >= ENOUGH).then_some(traffic)
    });
    // How long a frame is shows when it has been taken.
    let most = most(since, 2 * 1514);
    assert!(got.rx_bytes <= most, "{} of {most}", got.rx_bytes);
    assert!(got.rx_waits > 0);
    sliver.assert_well();
}
