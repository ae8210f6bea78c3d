//! Limits of network and disks that change while a sliver runs: the new ones hold at once, all of
//! them or none.

use std::fs::File;
use std::time::Instant;

use integration::egress::Card;
use integration::needs_kvm;
use integration::sliver::{Running, Sliver, new_place, until};
use integration::taps;
use serde_json::{Value, json};
use vmm::control::proto::{Answer, NetStatus, Op};
use vmm::spec::Limits;

/// A rate in kbit/s, and a burst in KiB.
const RATE: u64 = 8000;
const BURST: u64 = 64;

/// Bytes that are enough to tell a rate.
const ENOUGH: u64 = 1 << 20;

/// Requests in a second, those that may follow at once, and those under way at the same time.
const IOPS: u64 = 100;
const IO_BURST: u64 = IOPS / 20;
const DEPTH: u64 = 2;

/// Changes limits; what is then in force, or why nothing was changed.
fn set(sliver: &Running, change: Value) -> Result<Limits, String> {
    let change = serde_json::from_value(change).expect("it is a change");
    match sliver.control().ask(Op::SetLimits(change))? {
        Answer::Limits(limits) => Ok(*limits),
        other => panic!("asked for limits, got {other:?}"),
    }
}

fn traffic(sliver: &Running) -> NetStatus {
    sliver.control().status().net.expect("it has a card")
}

fn flood() -> (Running, taps::HostEnd) {
    let tap = taps::make(1).pop().expect("a tap is made");
    let sliver = Sliver::bare("egress")
        .args(["egress-flood", "udp", "1514"])
        .field("nets", json!([Card::of(2).spec()]))
        .tap(0, tap.fd)
        .spawn_running();
    (sliver, tap.host)
}

#[test]
fn a_new_limit_holds_for_a_sliver_that_sends_until_it_is_taken_away() {
    needs_kvm!();
    let (sliver, _host) = flood();
    until("it floods", || {
        (traffic(&sliver).tx_bytes >= 20 * ENOUGH).then_some(())
    });
    let since = Instant::now();
    let change = json!({ "net": { "net_max_rate": RATE, "net_burst": BURST } });
    let limits = set(&sliver, change).expect("it is set");
    assert_eq!(limits.net.as_ref(), Some(&traffic(&sliver).limits));
    let before = traffic(&sliver).tx_bytes;
    let gone = until("more has gone", || {
        let gone = traffic(&sliver).tx_bytes - before;
        (gone >= ENOUGH).then_some(gone)
    });
    // The last frame may be in debt.
    let most = BURST * 1024 + since.elapsed().as_millis() as u64 * RATE / 8 + 1514;
    assert!(gone <= most, "{gone} of {most}");

    set(
        &sliver,
        json!({ "net": { "net_max_rate": 1, "net_burst": 2 } }),
    )
    .expect("it is set");
    set(&sliver, json!({ "net": { "net_max_rate": "none" } })).expect("it is set");
    let before = traffic(&sliver).tx_bytes;
    until("it floods again", || {
        (traffic(&sliver).tx_bytes - before >= 20 * ENOUGH).then_some(())
    });
    sliver.assert_well();
}

#[test]
fn a_new_limit_holds_for_a_sliver_that_writes_to_its_disk() {
    needs_kvm!();
    let place = new_place();
    let path = place.path().join("disk.img");
    let file = File::create(&path).and_then(|file| file.set_len(16 << 20));
    file.expect("the disk is made");
    let depth = DEPTH.to_string();
    let sliver = Sliver::example("blast")
        .field("disks", json!([{ "path": path }]))
        .args([
            "--disk",
            "disk0",
            "--seconds",
            "60",
            "--write",
            "--depth",
            depth.as_str(),
        ])
        .spawn_running();
    let writes = || {
        let devices = sliver.control().status().devices;
        let disk = devices.into_iter().find(|device| device.tag == "disk0");
        disk.and_then(|disk| disk.counters.get("writes").copied())
            .expect("it has a disk that counts")
    };
    until("it writes", || (writes() >= 20 * IOPS).then_some(()));
    let since = Instant::now();
    let limits = set(&sliver, json!({ "disk": { "disk_iops": IOPS } })).expect("it is set");
    assert_eq!(limits.disk, sliver.control().status().disk);
    let before = writes();
    let done = until("more is written", || {
        let done = writes() - before;
        (done >= IOPS).then_some(done)
    });
    let allowed = since.elapsed().as_micros() as u64 * IOPS / 1_000_000 + IO_BURST + 1;
    assert!(done <= allowed + DEPTH, "{done} of {allowed}");

    set(&sliver, json!({ "disk": { "disk_iops": "none" } })).expect("it is set");
    let before = writes();
    until("it writes again", || {
        (writes() - before >= 20 * IOPS).then_some(())
    });
    sliver.assert_well();
}

#[test]
fn a_change_that_is_wrong_in_part_changes_nothing() {
    needs_kvm!();
    let (sliver, _host) = flood();
    let before = sliver.control().status();
    let told = set(
        &sliver,
        json!({
            "cpu": { "cpu_cap": 50 },
            "net": { "net_max_rate": 1000, "net_min_rate": 2000 },
            "disk": { "disk_iops": 10 },
        }),
    );
    let told = told.expect_err("it is refused");
    for words in [
        "net_min_rate: is 2000, more than net_max_rate: allowed are 0 to 1000",
        "disk: the sliver has no disk",
    ] {
        assert!(told.contains(words), "{told}");
    }
    let after = sliver.control().status();
    assert_eq!(after.cpu.limits, before.cpu.limits);
    assert_eq!(
        after.net.map(|net| net.limits),
        before.net.map(|net| net.limits)
    );
    sliver.assert_well();
}
