use super::*;
use crate::spec::{Most, NetChange};

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;
/// Some midnight.
const MIDNIGHT: u64 = 20_000 * DAY;

fn limits(change: NetChange) -> NetLimits {
    change.apply(&NetLimits::default()).unwrap()
}

fn at_rate(kbit: u64) -> NetLimits {
    limits(NetChange {
        net_max_rate: Some(Most::Number(kbit)),
        ..NetChange::default()
    })
}

/// Sends frames of `bytes` as soon as that is allowed, from `from` to `to`; how many bytes.
fn flood(shaper: &mut Shaper, bytes: u64, exempt: bool, from: u64, to: u64) -> u64 {
    let (mut now, mut sent) = (Nanos(from), 0);
    while now.0 < to {
        match shaper.check(bytes, kind(exempt), now) {
            Ok(()) => {
                shaper.charge_sent(bytes, kind(exempt), now);
                sent += bytes;
                now = now + Nanos(100);
            }
            Err(until) => {
                assert!(until > now);
                now = until;
            }
        }
    }
    sent
}

fn kind(exempt: bool) -> Traffic {
    match exempt {
        true => Traffic::Exempt,
        false => Traffic::Plain,
    }
}

#[test]
fn a_rate_is_kept_with_frames_of_any_size() {
    for (kbit, bytes) in [
        (1_000, 60),
        (10_000, 1514),
        (100_000, 66_616),
        (5_000_000, 1514),
    ] {
        let mut shaper = Shaper::new(&at_rate(kbit), UsedToday::default(), Nanos(0), Nanos(0));
        let burst = at_rate(kbit).burst_bytes(kbit);
        let sent = flood(&mut shaper, bytes, false, 0, 2 * SECOND);
        let due = 2 * kbit * KBIT + burst;
        assert!(
            sent.abs_diff(due) <= bytes + due / 200,
            "{kbit} {bytes}: {sent}, {due}"
        );
        let counters = shaper.counters();
        assert_eq!(counters.tx_bytes, sent);
        assert!(counters.tx_waits > 0 && counters.tx_waited.0 > SECOND);
    }
}

#[test]
fn who_waits_is_woken_for_many_frames_unless_the_burst_is_too_small() {
    let waits = |change: NetChange, bytes: u64| {
        let limits = limits(change);
        let mut shaper = Shaper::new(&limits, UsedToday::default(), Nanos(0), Nanos(0));
        flood(&mut shaper, bytes, false, 0, SECOND);
        shaper.counters().tx_waits
    };
    let fast = NetChange {
        net_max_rate: Some(Most::Number(1_000_000)),
        ..NetChange::default()
    };
    assert!((3_000..=5_000).contains(&waits(fast.clone(), 60)));
    let tight = NetChange {
        net_burst: Some(Most::Number(2)),
        ..fast
    };
    // Each frame but the first is waited for, if two do not fit.
    assert!((82_000..=82_600).contains(&waits(tight, 1514)));
}

#[test]
fn without_limits_nothing_waits() {
    let none = NetLimits::default();
    let mut shaper = Shaper::new(&none, UsedToday::default(), Nanos(0), Nanos(0));
    assert_eq!(shaper.check(u64::MAX / 2, Traffic::Plain, Nanos(5)), Ok(()));
    assert_eq!(shaper.may_receive(Nanos(5)), Ok(()));
    assert_eq!(shaper.kbit(), None);
}

#[test]
fn what_is_received_is_paid_for_before_more_is_taken() {
    let limits = limits(NetChange {
        net_rx_max_rate: Some(Most::Number(512)),
        net_rx_burst: Some(Most::Number(2)),
        ..NetChange::default()
    });
    let mut shaper = Shaper::new(&limits, UsedToday::default(), Nanos(0), Nanos(0));
    let (mut now, mut received) = (Nanos(0), 0_u64);
    while now.0 < 10 * SECOND {
        match shaper.may_receive(now) {
            Ok(()) => {
                shaper.charge_received(1514);
                received += 1514;
            }
            Err(until) => now = until,
        }
    }
    let due = 10 * 512 * KBIT + 2048;
    assert!(received.abs_diff(due) <= 2 * 1514, "{received}, {due}");
}

#[test]
fn exempt_traffic_has_limits_of_its_own() {
    let limits = limits(NetChange {
        net_max_rate: Some(Most::Number(1000)),
        net_exempt: Some(vec!["10.0.0.0/8".to_owned()]),
        net_exempt_max_rate: Some(Most::Number(4000)),
        ..NetChange::default()
    });
    let mut shaper = Shaper::new(&limits, UsedToday::default(), Nanos(0), Nanos(0));
    assert!(shaper.is_exempt([10, 0, 0, 1].into()));
    assert!(!shaper.is_exempt([11, 0, 0, 1].into()));
    let plain = flood(&mut shaper, 1514, false, 0, SECOND);
    let exempt = flood(&mut shaper, 1514, true, SECOND, 2 * SECOND);
    assert!(plain.abs_diff(1000 * KBIT + (32 << 10)) < 4000, "{plain}");
    assert!(exempt.abs_diff(4000 * KBIT + (32 << 10)) < 4000, "{exempt}");
}

#[test]
fn a_minimum_holds_whatever_the_uplink_has() {
    let limits = limits(NetChange {
        net_min_rate: Some(500),
        net_max_rate: Some(Most::Number(5000)),
        ..NetChange::default()
    });
    let mut shaper = Shaper::new(&limits, UsedToday::default(), Nanos(0), Nanos(0));
    shaper.set_uplink_rate(Some(2000), Nanos(0));
    assert_eq!(shaper.kbit(), Some(2000));
    shaper.set_uplink_rate(Some(100), Nanos(0));
    assert_eq!(shaper.kbit(), Some(500));
    shaper.set_uplink_rate(None, Nanos(0));
    assert_eq!(shaper.kbit(), Some(5000));
}

fn with_allowance(min: u64) -> NetLimits {
    // 1 GiB a day, from 0.9 GiB spread.
    limits(NetChange {
        net_min_rate: Some(min),
        net_max_rate: Some(Most::Number(1_000_000)),
        net_max_kbyte: Some(Most::Number(1 << 20)),
        net_thresh_kbyte: Some(Most::Number(943_718)),
        ..NetChange::default()
    })
}

#[test]
fn a_day_ends_with_no_more_than_its_allowance() {
    let limits = with_allowance(0);
    let mut shaper = Shaper::new(&limits, UsedToday::default(), Nanos(0), Nanos(MIDNIGHT));
    let sent = flood(&mut shaper, 15_140, false, 0, DAY - SECOND);
    let most = 1u64 << 30;
    assert!(sent <= most, "{sent}");
    assert!(sent >= most - most / 100, "{sent}");
    // In the first minute most of it went at full speed.
    assert_eq!(shaper.used_today().day, 20_000);
    let next = flood(&mut shaper, 15_140, false, DAY, DAY + SECOND);
    assert!(next > 120_000_000, "{next}");
}

#[test]
fn beginning_again_does_not_begin_the_day_again() {
    let limits = with_allowance(0);
    let mut shaper = Shaper::new(&limits, UsedToday::default(), Nanos(0), Nanos(MIDNIGHT));
    let hour = 3600 * SECOND;
    let mut sent = flood(&mut shaper, 15_140, false, 0, hour);
    let mut shaper = Shaper::new(&limits, shaper.used_today(), Nanos(hour), Nanos(MIDNIGHT));
    sent += flood(&mut shaper, 15_140, false, hour, DAY - SECOND);
    assert!(sent <= (1 << 30) + (1 << 30) / 200, "{sent}");
    // A clock that is set back gives nothing either.
    shaper.set_epoch(Nanos(MIDNIGHT - DAY));
    let more = flood(&mut shaper, 15_140, false, DAY, DAY + 60 * SECOND);
    assert!(more < 100_000, "{more}");
}

#[test]
fn behind_the_allowance_the_minimum_is_left() {
    let used = UsedToday {
        day: 20_000,
        bytes: 2 << 30,
        exempt_bytes: 0,
    };
    let shaper = Shaper::new(&with_allowance(64), used, Nanos(0), Nanos(MIDNIGHT));
    assert_eq!(shaper.kbit(), Some(64));
    assert_eq!(shaper.left_today(), Some(0));
}

#[test]
fn an_allowance_is_not_exceeded_however_small_it_is_and_wherever_its_threshold_is() {
    for (kbyte, thresh, bytes) in [
        (100, Most::None, 1514),
        (100, Most::Number(100), 1514),
        (1000, Most::Number(1), 65_000),
        (1, Most::None, 60),
    ] {
        let limits = limits(NetChange {
            net_max_rate: Some(Most::Number(1_000_000)),
            net_max_kbyte: Some(Most::Number(kbyte)),
            net_thresh_kbyte: Some(thresh),
            ..NetChange::default()
        });
        let hour = 3600 * SECOND;
        let late = Nanos(MIDNIGHT + DAY - hour);
        let mut shaper = Shaper::new(&limits, UsedToday::default(), Nanos(0), late);
        let sent = flood(&mut shaper, bytes, false, 0, hour - SECOND);
        let most = kbyte << 10;
        assert!(sent <= most, "{kbyte} {thresh}: {sent}");
        assert!(
            sent + bytes + most / 100 >= most,
            "{kbyte} {thresh}: {sent}"
        );
        assert!(shaper.left_today().unwrap() < bytes + most / 100);
    }
}

#[test]
fn a_clock_that_was_far_ahead_silences_nobody_once_it_is_right() {
    let limits = with_allowance(0);
    let ahead = Nanos(MIDNIGHT + 10_000 * DAY);
    let mut shaper = Shaper::new(&limits, UsedToday::default(), Nanos(0), ahead);
    flood(&mut shaper, 15_140, false, 0, 60 * SECOND);
    shaper.set_epoch(Nanos(MIDNIGHT));
    let rest = flood(&mut shaper, 15_140, false, 60 * SECOND, 3600 * SECOND);
    assert!(rest > 0, "{rest}");
    let next = flood(&mut shaper, 15_140, false, DAY, DAY + SECOND);
    assert!(next > 120_000_000, "{next}");
}

#[test]
fn exempt_or_not_the_uplink_has_no_more_for_the_sliver() {
    let limits = limits(NetChange {
        net_exempt: Some(vec!["10.0.0.0/8".to_owned()]),
        ..NetChange::default()
    });
    let mut shaper = Shaper::new(&limits, UsedToday::default(), Nanos(0), Nanos(0));
    shaper.set_uplink_rate(Some(8_000), Nanos(0));
    let (mut now, mut sent, mut exempt) = (Nanos(0), 0_u64, false);
    while now.0 < 2 * SECOND {
        match shaper.check(1514, kind(exempt), now) {
            Ok(()) => {
                shaper.charge_sent(1514, kind(exempt), now);
                sent += 1514;
                exempt = !exempt;
            }
            Err(until) => now = until,
        }
    }
    let due = 2 * 8_000 * KBIT + (32 << 10);
    assert!(sent.abs_diff(due) <= 2 * 1514, "{sent}, {due}");
}
