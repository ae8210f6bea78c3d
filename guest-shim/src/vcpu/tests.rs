use super::*;
use crate::sync::Mutex;
use crate::time;
use core::time::Duration;

/// vCPUs are of the process: one test at a time counts on them.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn slots_are_given_from_below_once_each() {
    let slots = Slots::new();
    assert_eq!(slots.claim(1), None);
    assert_eq!(slots.claim(3), Some(1));
    assert_eq!(slots.claim(3), Some(2));
    assert_eq!(slots.claim(3), None);
    slots.release(1);
    assert_eq!(slots.claim(3), Some(1));
    for _ in 3..MAX_VCPUS {
        assert!(slots.claim(100).is_some());
    }
    assert_eq!(slots.claim(100), None);
}

#[test]
fn a_result_that_is_there_is_not_waited_for() {
    let packet = Packet::new();
    assert_eq!(packet.complete(5), None);
    assert_eq!(packet.wait(0, || panic!("waited")), 5);
}

#[test]
fn the_maker_of_a_result_learns_who_waits() {
    let packet = Packet::new();
    let woken = std::cell::Cell::new(None);
    let value = packet.wait(3, || woken.set(packet.complete("done")));
    assert_eq!((value, woken.get()), ("done", Some(3)));
}

#[test]
fn a_result_nobody_takes_is_dropped() {
    let value = Arc::new(());
    let packet = Packet::new();
    packet.complete(Arc::clone(&value));
    drop(packet);
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
fn after_a_join_the_vcpu_is_free_again() {
    let _alone = ALONE.lock();
    if count() < 2 {
        return;
    }
    for round in 0..2000 {
        let works: Vec<_> = (1..count())
            .map(|_| spawn(move || (current(), round)).expect("all are free"))
            .collect();
        let mut seen = std::collections::BTreeSet::new();
        for work in works {
            let (vcpu, result) = work.join();
            assert_eq!(result, round);
            assert!(vcpu > 0 && vcpu < count());
            seen.insert(vcpu);
        }
        assert!(!seen.is_empty());
    }
}

#[test]
fn every_vcpu_does_its_part_and_the_results_keep_their_order() {
    let _alone = ALONE.lock();
    let parts = on_all(|part| (part, current())).expect("all are free");
    assert!(parts.iter().map(|&(part, _)| part).eq(0..count()));
    assert_eq!(parts[0].1, current());
}

#[test]
fn when_all_are_busy_a_spawn_says_so() {
    let _alone = ALONE.lock();
    let go = Arc::new(AtomicPtr::new(ptr::null_mut::<u8>()));
    let works: Vec<_> = (1..count())
        .map(|_| {
            let go = Arc::clone(&go);
            spawn(move || {
                while go.load(Ordering::Acquire).is_null() {
                    time::sleep(Duration::from_millis(1));
                }
            })
            .expect("all are free")
        })
        .collect();
    let error = spawn(|| ()).unwrap_err();
    assert!(error.to_string().starts_with("no vCPU is free"));
    assert!(works.iter().all(|work| !work.is_finished()));
    go.store(ptr::dangling_mut(), Ordering::Release);
    works.into_iter().for_each(JoinHandle::join);
}
