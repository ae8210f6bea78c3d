use super::*;
use crate::spec::SliverSpec;

const MS: u64 = 1_000_000;

/// Quotas as a spec has them.
fn limits(fields: &str) -> CpuLimits {
    let spec = format!(
        r#"{{"version":1,"name":"a","slice":"a_b","owner":"o","contact":"c","image":"/i",
            "vcpus":4{fields}}}"#
    );
    *SliverSpec::parse(spec.as_bytes()).unwrap().cpu()
}

/// A governor of a native sliver with a cap of 20 %, of which one vCPU runs.
fn capped() -> Governor {
    let governor = Governor::new(limits(r#","cpu_cap":20"#), 4, false, Nanos(0));
    governor.busy(Nanos(0));
    governor
}

#[test]
fn what_came_before_the_first_look_is_not_charged() {
    let governor = capped();
    let looked = governor.look(Nanos(1000), Nanos(700 * MS));
    assert_eq!(looked.hold, None);
    assert_eq!(looked.grant.consumed, Nanos::ZERO);
    assert_eq!(governor.provisioning(), Some(Nanos(700 * MS)));
    assert_eq!(governor.status(Nanos(701 * MS)).consumed_us, 1000);
}

#[test]
fn the_next_look_is_due_when_the_budget_can_be_used_up() {
    let governor = capped();
    governor.look(Nanos(0), Nanos(0));
    assert_eq!(governor.next_look(), Nanos(2 * MS));
    // A second vCPU after 1 ms: what is left of the 2 ms goes twice as fast.
    governor.busy(Nanos(MS));
    assert_eq!(governor.next_look(), Nanos(MS + MS / 2));
    // The devices' thread, too.
    governor.serving(true, Nanos(MS + MS / 4));
    assert_eq!(governor.next_look(), Nanos(MS + MS / 4 + MS / 6));
}

#[test]
fn who_has_used_its_budget_is_held_until_the_next_and_stopped_once() {
    let governor = capped();
    governor.look(Nanos(0), Nanos(0));
    let looked = governor.look(Nanos(2 * MS), Nanos(2 * MS));
    assert_eq!(looked.hold, Some(Nanos(10 * MS)));
    assert!(looked.stopped);
    assert!(governor.is_due(Nanos(2 * MS)));
    assert!(!governor.look(Nanos(3 * MS), Nanos(2 * MS)).stopped);
    let looked = governor.look(Nanos(10 * MS), Nanos(2 * MS));
    assert_eq!(looked.hold, None);
    assert!(!governor.is_due(Nanos(10 * MS)));
    assert_eq!(governor.status(Nanos(2 * MS)).throttled_us, 8000);
}

#[test]
fn a_sliver_that_sleeps_is_not_looked_at() {
    let governor = capped();
    governor.look(Nanos(0), Nanos(0));
    governor.idle(Nanos(MS));
    assert_eq!(governor.next_look(), Nanos::NEVER);
    // It wakes in a later period.
    governor.busy(Nanos(95 * MS));
    assert!(governor.is_due(Nanos(95 * MS)));
    assert_eq!(governor.look(Nanos(95 * MS), Nanos(MS)).hold, None);
}

#[test]
fn a_pause_does_not_let_a_sliver_off_its_cap() {
    let governor = capped();
    governor.look(Nanos(0), Nanos(0));
    governor.look(Nanos(2 * MS), Nanos(2 * MS));
    governor.idle(Nanos(3 * MS));
    governor.busy(Nanos(4 * MS));
    assert!(governor.is_due(Nanos(4 * MS)));
    let looked = governor.look(Nanos(4 * MS), Nanos(2 * MS));
    assert_eq!(looked.hold, Some(Nanos(10 * MS)));
}

#[test]
fn however_little_is_left_a_stay_is_long_enough_to_get_somewhere() {
    let governor = capped();
    governor.look(Nanos(0), Nanos(0));
    let now = Nanos(2 * MS - 1000);
    assert_eq!(governor.look(now, now).hold, None);
    assert_eq!(governor.next_look(), now + SHORTEST);
}

#[test]
fn without_a_cap_the_quota_page_is_still_brought_up_to_date() {
    let governor = Governor::new(CpuLimits::default(), 1, false, Nanos(0));
    governor.busy(Nanos(0));
    let looked = governor.look(Nanos(0), Nanos(0));
    assert_eq!(looked.grant.budget, None);
    assert_eq!(governor.next_look(), LONGEST);
}

#[test]
fn a_legacy_sliver_that_sleeps_inside_kvm_is_seldom_looked_at() {
    let governor = Governor::new(limits(r#","cpu_cap":20"#), 1, true, Nanos(0));
    governor.busy(Nanos(0));
    governor.look(Nanos(0), Nanos(0));
    governor.look(Nanos(2 * MS), Nanos(0));
    assert_eq!(governor.next_look(), Nanos(2 * MS) + UNSEEN_SLEEP);
    // Busy again, it is stopped in time again.
    governor.look(Nanos(12 * MS), Nanos(MS));
    assert!(governor.next_look() <= Nanos(14 * MS));
}

#[test]
fn a_legacy_sliver_that_was_held_has_not_slept() {
    let governor = Governor::new(limits(r#","cpu_cap":50"#), 1, true, Nanos(0));
    governor.busy(Nanos(0));
    governor.look(Nanos(0), Nanos(0));
    assert_eq!(
        governor.look(Nanos(5 * MS), Nanos(5 * MS)).hold,
        Some(Nanos(10 * MS))
    );
    assert_eq!(governor.look(Nanos(10 * MS), Nanos(5 * MS)).hold, None);
    assert_eq!(governor.next_look(), Nanos(15 * MS));
}

#[test]
fn a_quota_that_waking_up_takes_whole_still_lets_the_guest_in() {
    let governor = Governor::new(
        limits(r#","cpu_cap":0.1,"cpu_period":1"#),
        1,
        false,
        Nanos(0),
    );
    governor.busy(Nanos(0));
    governor.look(Nanos(0), Nanos(0));
    let until = governor
        .look(Nanos(1000), Nanos(1500))
        .hold
        .expect("a wait");
    assert_eq!(governor.look(until, Nanos(6500)).hold, None);
    assert_eq!(governor.next_look(), until + SHORTEST);
    // Another thread that is late does not take that back.
    assert!(governor.look_if_due(until, Nanos(8000), None).is_none());
    // What was used to wake up is owed all the same.
    let next = governor
        .look(until + SHORTEST, Nanos(156_500))
        .hold
        .expect("a wait");
    assert!(next > until + Nanos(150 * MS));
}

#[test]
fn other_quotas_are_in_force_at_the_next_look() {
    let governor = capped();
    governor.look(Nanos(0), Nanos(0));
    governor.look(Nanos(2 * MS), Nanos(2 * MS));
    governor.set_limits(limits(""), Nanos(3 * MS)).unwrap();
    assert!(governor.is_due(Nanos(3 * MS)));
    assert_eq!(governor.look(Nanos(3 * MS), Nanos(2 * MS)).hold, None);
    governor
        .set_limits(limits(r#","cpu_cap":10,"cpu_period":100"#), Nanos(4 * MS))
        .unwrap();
    governor.look(Nanos(4 * MS), Nanos(3 * MS));
    assert!(governor.next_look() <= Nanos(14 * MS));
}

#[test]
fn who_is_woken_does_not_wait() {
    let governor = capped();
    let ticket = governor.ticket();
    governor.wake();
    governor.wait(&ticket, Nanos::NEVER);
}

#[test]
fn rivals_see_a_sliver_once_it_has_its_place_among_them() {
    let place = tempfile::TempDir::with_prefix_in("ledger-", "/dev/shm").unwrap();
    let path = place.path().join("ledger");
    let join = |name| {
        let claim = Claim::of(&CpuLimits::default(), 1, 2);
        Ledger::join(&path, name, 2, claim).unwrap().0
    };
    let (rival, mut seen) = (join("rival"), Vec::new());
    let governor = Governor::new(CpuLimits::default(), 1, false, Nanos(0));
    governor.join(Some(join("own")));
    let now = Nanos(5_000 * MS);
    governor.busy(now);
    rival.rivals(now, &mut seen);
    assert!(seen.is_empty(), "{seen:?}");
    governor.look(now, Nanos(MS));
    rival.rivals(now, &mut seen);
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].demand, seen[0].vtime), (1, now.0));
    // After a long sleep it is out of place again.
    governor.idle(now);
    governor.busy(now + Nanos(10 * MS));
    rival.rivals(now + Nanos(10 * MS), &mut seen);
    assert!(seen.is_empty(), "{seen:?}");
}
