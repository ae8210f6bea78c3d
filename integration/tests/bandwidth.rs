//! Limits of the network, kept by real slivers: what is counted outside is never more than rate and
//! burst allow for all the time in which the sliver was there.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use integration::egress::{Card, Outside, run};
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

/// Floods 10.0.0.1 with such frames, under these limits, until that is enough: the figures after the
/// last frame, what was heard, and since when it could have been sent.
fn flood_until(
    limits: &Value,
    [protocol, bytes]: [&str; 2],
    mut enough: impl FnMut(&NetStatus) -> bool,
) -> (NetStatus, Outside, Instant) {
    let since = Instant::now();
    let guest = Sliver::bare("egress").args(["egress-flood", protocol, bytes]);
    let mut figures = None;
    let (ended, outside) = run(&[(Card::of(2), guest)], limits, |slivers| {
        let mut control = slivers[0].control();
        until("enough has gone", || {
            let net = control.status().net;
            enough(&net.expect("it has a card")).then_some(())
        });
        // What is sent from here on is nothing.
        control.ask(Op::Pause).expect("it pauses");
        figures = control.status().net;
        let reason = "test".to_owned();
        control.ask(Op::Stop { reason }).expect("it stops");
    })
    .pop()
    .expect("there is one guest");
    ended.assert_end(ExitKind::Stopped, 143);
    assert!(outside.forbidden().is_empty());
    (figures.expect("it has a card"), outside, since)
}

/// Floods with such frames; bytes on the wire that were heard are what was allowed and counted.
fn flood(protocol: &str, bytes: u64, on_wire: u64) {
    let enough = |net: &NetStatus| net.tx_bytes >= ENOUGH;
    let (net, outside, since) = flood_until(&limits(), [protocol, &bytes.to_string()], enough);
    let gone = outside.frames.len() as u64 * on_wire;
    assert!(outside.frames.iter().all(|frame| frame.len as u64 == bytes));
    // One frame may be charged that the tap has not taken.
    assert!(
        (gone..=gone + on_wire).contains(&net.tx_bytes),
        "{gone} of {}",
        net.tx_bytes
    );
    let most = most(since, on_wire);
    assert!(
        (ENOUGH - on_wire..=most).contains(&gone),
        "{gone} of {most}"
    );
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
    let devices = sliver.control().status().devices;
    let card = devices.iter().find(|device| device.tag == "net0");
    let counters = &card.expect("it has a card").counters;
    // More than it took was there for it.
    assert!(counters["rx_dropped_host"] > 0, "{counters:?}");
    sliver.assert_well();
}

/// A day's allowance in KiB, and what of it is sent at full rate.
const ALLOWANCE: u64 = 2048;
const THRESHOLD: u64 = 1024;

/// Days since 1970 that were begun between these moments, and seconds until the last of them ends.
fn days(figures: &NetStatus) -> (u64, u64) {
    const DAY: u64 = 86_400;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("it is later than 1970").as_secs();
    (now / DAY - figures.day + 1, DAY - now % DAY)
}

#[test]
fn what_an_allowance_leaves_after_its_threshold_has_to_last_for_the_day() {
    needs_kvm!();
    let limits = json!({
        "net_max_rate": 1_000_000, "net_burst": BURST,
        "net_max_kbyte": ALLOWANCE, "net_thresh_kbyte": THRESHOLD,
    });
    let (mut first, mut crossed) = (None, None);
    let (net, outside, since) = flood_until(&limits, ["udp", "1514"], |net| {
        first.get_or_insert_with(|| net.clone());
        if net.tx_bytes >= THRESHOLD << 10 {
            crossed.get_or_insert_with(Instant::now);
        }
        // Long enough to see that it does not go on as before.
        crossed.is_some_and(|crossed| crossed.elapsed() > Duration::from_millis(500))
    });
    let first = first.expect("it was looked at");
    let (days, left) = days(&first);
    let gone = outside.frames.len() as u64 * 1514;
    assert!(gone <= (days * ALLOWANCE) << 10, "{gone}");
    assert!(net.tx_bytes >= THRESHOLD << 10);
    if days == 1 {
        assert_eq!(net.used_today, net.tx_bytes);
        let rest = (ALLOWANCE - THRESHOLD) << 10;
        // What was saved up, the frame that crossed the threshold, and the last.
        let most = (THRESHOLD + BURST) * 1024 + 2 * 1514;
        let since_then = rest * (since.elapsed().as_secs() + 1) / left;
        assert!(gone <= most + since_then, "{gone}");
    }
}

#[test]
fn who_has_a_minimum_keeps_it_when_the_allowance_is_gone_and_no_more() {
    needs_kvm!();
    let limits = json!({
        "uplink": { "interface": "lo", "rate": 8 * RATE },
        "net_min_rate": RATE, "net_burst": BURST,
        "net_max_kbyte": 256, "net_thresh_kbyte": 1,
    });
    let enough = |net: &NetStatus| net.tx_bytes >= ENOUGH;
    let (net, outside, since) = flood_until(&limits, ["udp", "1514"], enough);
    let gone = outside.frames.len() as u64 * 1514;
    assert!(gone + 1514 >= net.tx_bytes);
    // From the first KiB on, its allowance makes for less than its minimum.
    let most = most(since, 1514) + 1024;
    assert!(gone <= most, "{gone} of {most}");
}

#[test]
fn exempt_destinations_have_limits_and_an_account_of_their_own() {
    needs_kvm!();
    let limits = json!({
        "net_max_rate": 1_000, "net_max_kbyte": 16, "net_burst": BURST,
        "net_exempt": ["10.0.0.1/32"], "net_exempt_max_rate": RATE,
        "net_exempt_max_kbyte": "none",
    });
    let enough = |net: &NetStatus| net.tx_bytes >= ENOUGH;
    let (net, outside, since) = flood_until(&limits, ["udp", "1514"], enough);
    let gone = outside.frames.len() as u64 * 1514;
    let most = most(since, 1514);
    assert!((ENOUGH - 1514..=most).contains(&gone), "{gone} of {most}");
    assert_eq!(net.used_today, 0);
    assert!(net.exempt_used_today > 0);
}

#[test]
fn who_is_not_exempt_has_the_plain_allowance_and_no_more() {
    needs_kvm!();
    let limits = json!({
        "net_max_kbyte": 64, "net_thresh_kbyte": 64, "net_burst": BURST,
        "net_exempt": ["10.0.0.3/32"], "net_exempt_max_rate": RATE,
    });
    let mut first = None;
    let (net, outside, _) = flood_until(&limits, ["udp", "1514"], |net| {
        first.get_or_insert_with(|| net.clone());
        // Nothing more goes; the next frame waits.
        net.tx_bytes + 1514 > 64 << 10 && net.tx_waits > 0
    });
    let (days, _) = days(&first.expect("it was looked at"));
    let gone = outside.frames.len() as u64 * 1514;
    assert!(gone <= (days * 64) << 10, "{gone}");
    assert_eq!(net.exempt_used_today, 0);
}
