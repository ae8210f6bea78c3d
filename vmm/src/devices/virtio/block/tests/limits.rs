//! Disks that are held to a rate: by a clock that is set, so that nothing depends on the host's.

use super::*;
use crate::devices::virtio::block::SharedBudget;
use crate::nanos::Nanos;
use crate::spec::{DiskChange, DiskLimits, Most};

const SECOND: Nanos = Nanos::from_millis(1000);

fn limits(kib: Option<u64>, iops: Option<u64>) -> DiskLimits {
    let change = DiskChange {
        disk_rate: kib.map(Most::Number),
        disk_iops: iops.map(Most::Number),
    };
    change.apply(&DiskLimits::default()).expect("sound")
}

/// Has each guest read `len` bytes again and again for ten seconds; what each has read. Nothing
/// but the moments that its device names wakes a guest.
fn read_for_ten_seconds(guests: &mut [Guest], len: u32) -> Vec<u64> {
    let start = guests[0].driver.now;
    let end = start + Nanos(10 * SECOND.0);
    let mut done = vec![0; guests.len()];
    let mut at = vec![start; guests.len()];
    loop {
        let next = (0..guests.len()).min_by_key(|i| at[*i]).expect("a guest");
        let now = at[next];
        if now >= end {
            return done;
        }
        let guest = &mut guests[next];
        guest.driver.now = now;
        guest.offer_read(0, len);
        let mut outcome = guest.driver.ring(0);
        // The host may take its time: until then the clock stands still.
        loop {
            assert_eq!(outcome.fault, None);
            let came = guest.driver.take_used(0).len() as u64;
            done[next] += came * u64::from(len);
            if came > 0 {
                break;
            }
            match outcome.again_at.filter(|_| !outcome.more) {
                Some(moment) => {
                    assert!(moment > guest.driver.now);
                    guest.driver.now = moment;
                    outcome = guest.driver.serve();
                }
                None => outcome = guest.driver.settle(),
            }
        }
        at[next] = guest.driver.now;
    }
}

fn assert_near(value: u64, expected: u64, percent: u64) {
    let error = value.abs_diff(expected);
    assert!(error * 100 <= expected * percent, "{value}, not {expected}");
}

#[test]
fn a_disk_keeps_its_rate_for_small_and_large_requests() {
    for len in [512, 4096, 16384] {
        let own = limits(Some(1024), None);
        let mut guests = [limited_guest(0, &own, &SharedBudget::default())];
        let read = read_for_ten_seconds(&mut guests, len);
        assert_near(read[0], 10 << 20, 2);
        assert!(guests[0].driver.counter("throttled") > 0);
    }
}

#[test]
fn a_disk_keeps_its_requests_per_second() {
    let own = limits(None, Some(1000));
    let mut guests = [limited_guest(0, &own, &SharedBudget::default())];
    let read = read_for_ten_seconds(&mut guests, 512);
    assert_near(read[0] / 512, 10_000, 2);
}

#[test]
fn all_disks_of_a_sliver_share_one_budget() {
    let shared = SharedBudget::new(&limits(Some(1024), Some(1_000_000)));
    let mut guests: Vec<Guest> = (0..3)
        .map(|disk| limited_guest(disk, &DiskLimits::default(), &shared))
        .collect();
    let read = read_for_ten_seconds(&mut guests, 4096);
    assert_near(read.iter().sum(), 10 << 20, 2);
    for read in read {
        assert!(read > 1 << 20, "nobody is left out: {read}");
    }
}

#[test]
fn a_request_that_waits_is_done_when_its_moment_comes() {
    let own = limits(Some(64), None);
    let mut guest = limited_guest(0, &own, &SharedBudget::default());
    guest.offer_read(0, 16384);
    guest.finish(1);
    let (head, room) = guest.offer_write(0, &text(512, 1));
    let outcome = guest.driver.ring(0);
    let moment = outcome.again_at.expect("it is told when");
    assert!(moment > guest.driver.now && !outcome.more);
    assert_eq!(guest.status(room), UNANSWERED);
    // A doorbell meanwhile changes nothing.
    assert_eq!(guest.driver.ring(0).again_at, Some(moment));
    assert_eq!(guest.driver.counter("throttled"), 1);
    while guest.status(room) == UNANSWERED {
        let outcome = guest.driver.settle();
        guest.driver.now = outcome.again_at.unwrap_or(guest.driver.now);
    }
    assert_eq!(guest.driver.take_used(0), [(head, 1)]);
    assert_eq!(guest.on_disk(0, 512), text(512, 1));
}

#[test]
fn a_reset_while_a_request_waits_leaves_nothing_behind() {
    let own = limits(Some(64), None);
    let mut guest = limited_guest(0, &own, &SharedBudget::default());
    guest.offer_read(0, 16384);
    guest.finish(1);
    let (_, room) = guest.offer_write(0, &text(512, 1));
    assert!(guest.driver.ring(0).again_at.is_some());
    guest.driver.bring_up(FEATURES);
    guest.driver.now = guest.driver.now + Nanos(10 * SECOND.0);
    assert_eq!(guest.driver.settle().again_at, None);
    assert!(guest.driver.take_used(0).is_empty());
    assert_eq!(guest.status(room), UNANSWERED);
    assert_eq!(guest.write(0, &text(512, 2)), 0);
    assert_eq!(guest.on_disk(0, 512), text(512, 2));
}

#[test]
fn other_limits_hold_for_who_waits_already() {
    let shared = SharedBudget::new(&limits(Some(1), None));
    let mut guest = limited_guest(0, &DiskLimits::default(), &shared);
    guest.offer_read(0, 16384);
    guest.finish(1);
    guest.offer_read(0, 512);
    let moment = guest.driver.ring(0).again_at.expect("it waits");
    // Sixteen seconds' worth is owed, and it looks again long before.
    assert!(moment <= guest.driver.now + Nanos::from_millis(50));
    shared.set_limits(&DiskLimits::default(), guest.driver.now);
    guest.driver.now = moment;
    while guest.driver.take_used(0).is_empty() {
        assert_eq!(guest.driver.settle().again_at, None);
    }
}
