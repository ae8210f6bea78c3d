use std::collections::{BTreeSet, VecDeque};

use super::*;
use crate::virtio::ring::MAX_SIZE;
use crate::virtio::simulated::SimulatedDevice;

const BOTH: u64 = F_EVENT_IDX | F_INDIRECT_DESC;

fn pair(size: u32, features: u64) -> (Queue, SimulatedDevice) {
    let ring = Parts::on_heap(size);
    let queue = Queue::new(ring, features);
    (queue, SimulatedDevice::new(ring, features))
}

fn add(queue: &mut Queue, chain: &[Buffer]) -> Result<u16, QueueFull> {
    // SAFETY: the simulated device looks at addresses, never at what is there.
    unsafe { queue.add(chain) }
}

fn read(address: u64) -> Buffer {
    Buffer {
        address,
        length: 10,
        device_writes: false,
    }
}

fn write(address: u64) -> Buffer {
    Buffer {
        address,
        length: 20,
        device_writes: true,
    }
}

#[test]
fn the_layout_is_that_of_the_specification() {
    for size in [1, 2, 16, 128, 256] {
        let ring = Parts::on_heap(size);
        let size = u64::from(size);
        let base = ring.descriptors_address();
        assert_eq!(base % 4096, 0);
        assert_eq!(ring.available_address(), base + 16 * size);
        assert_eq!(ring.used_address() % 4, 0);
        let end = ring.available_address() + 4 + 2 * size + 2;
        assert!((end..end + 4).contains(&ring.used_address()));
    }
    assert_eq!(Parts::on_heap(100).size(), 64);
    assert_eq!(Parts::on_heap(65_536).size(), MAX_SIZE);
}

#[test]
fn the_device_sees_a_chain_only_once_it_is_published() {
    for features in [0, BOTH] {
        let (mut queue, mut device) = pair(4, features);
        let head = add(&mut queue, &[read(1), write(2)]).unwrap();
        assert_eq!(device.take(), None);
        assert!(!queue.wants_doorbell());
        queue.publish();
        assert!(queue.wants_doorbell());
        assert_eq!(
            device.take(),
            Some((head, vec![(1, 10, false), (2, 20, true)]))
        );
        assert_eq!(device.take(), None);
        assert_eq!(queue.pop(), None);
        device.give_back(head.into(), 20);
        assert_eq!(queue.pop(), Some(Done { head, written: 20 }));
        assert_eq!(queue.pop(), None);
        assert!(queue.is_empty());
    }
}

#[test]
fn a_chain_needs_as_many_free_descriptors_as_it_has_buffers() {
    let (mut queue, mut device) = pair(4, 0);
    let head = add(&mut queue, &[read(1), read(2), read(3)]).unwrap();
    assert_eq!(add(&mut queue, &[read(4), write(5)]), Err(QueueFull));
    add(&mut queue, &[read(4)]).unwrap();
    assert_eq!(add(&mut queue, &[read(5)]), Err(QueueFull));
    queue.publish();
    device.give_back(head.into(), 0);
    queue.pop().unwrap();
    add(&mut queue, &[read(6), read(7), write(8)]).unwrap();
    assert_eq!(add(&mut queue, &[read(9)]), Err(QueueFull));
}

#[test]
fn a_chain_in_a_table_needs_one_descriptor() {
    let (mut queue, _) = pair(4, F_INDIRECT_DESC);
    for _ in 0..4 {
        add(&mut queue, &[read(1), read(2), write(3)]).unwrap();
    }
    assert_eq!(queue.room(), 0);
    // One too long for a table goes into the ring.
    let (mut queue, mut device) = pair(8, F_INDIRECT_DESC);
    add(&mut queue, &[read(1); TABLE_SIZE + 1]).unwrap();
    assert_eq!(usize::from(queue.room()), 8 - TABLE_SIZE - 1);
    queue.publish();
    assert_eq!(device.take().unwrap().1.len(), TABLE_SIZE + 1);
}

#[test]
fn a_device_that_polls_gets_no_doorbell() {
    let (mut queue, _) = pair(4, 0);
    queue.ring.used.flags.store(NO_NOTIFY, Ordering::Relaxed);
    add(&mut queue, &[read(1)]).unwrap();
    queue.publish();
    assert!(!queue.wants_doorbell());
    queue.ring.used.flags.store(0, Ordering::Relaxed);
    assert!(!queue.wants_doorbell(), "nothing is new");
    add(&mut queue, &[read(1)]).unwrap();
    queue.publish();
    assert!(queue.wants_doorbell());
}

#[test]
fn a_batch_has_one_doorbell_and_what_was_taken_meanwhile_none() {
    let (mut queue, mut device) = pair(8, BOTH);
    assert!(device.rest());
    for _ in 0..3 {
        add(&mut queue, &[read(1)]).unwrap();
        queue.publish();
    }
    assert!(queue.wants_doorbell());
    assert!(!queue.wants_doorbell());
    while device.take().is_some() {}
    assert!(device.rest());
    add(&mut queue, &[read(1)]).unwrap();
    queue.publish();
    assert!(device.take().is_some());
    assert!(device.rest());
    assert!(!queue.wants_doorbell(), "another doorbell did");
}

#[test]
fn the_device_tells_what_it_was_asked_to_and_no_more() {
    let (mut queue, mut device) = pair(8, BOTH);
    let heads: Vec<u32> = (0..8)
        .map(|i| add(&mut queue, &[read(i)]).unwrap().into())
        .collect();
    queue.publish();
    queue.ask(Tell::Never);
    assert!(!device.give_back(heads[0], 0));
    assert!(queue.ask(Tell::AT_NEXT), "it has given one back");
    queue.pop().unwrap();
    assert!(!queue.ask(Tell::AT_NEXT));
    assert!(device.give_back(heads[1], 0));
    assert!(!device.give_back(heads[2], 0), "told once");
    assert!(!queue.ask(Tell::After(3)), "two of three");
    assert!(device.give_back(heads[3], 0));
    assert!(!device.give_back(heads[4], 0));
    assert!(queue.ask(Tell::After(3)));
}

#[test]
fn without_indices_the_device_tells_always_or_never() {
    let (mut queue, mut device) = pair(4, 0);
    let head = add(&mut queue, &[read(1)]).unwrap();
    queue.publish();
    assert!(!queue.ask(Tell::Never));
    assert!(!device.give_back(head.into(), 0));
    queue.pop().unwrap();
    let head = add(&mut queue, &[read(1)]).unwrap();
    queue.publish();
    assert!(!queue.ask(Tell::AT_NEXT));
    assert!(device.give_back(head.into(), 0));
    assert!(queue.ask(Tell::AT_NEXT));
}

/// The rule of the specification against what it means, for every distance around the wrap.
#[test]
fn an_event_is_needed_when_the_index_passes_it() {
    for old in [0u16, 1, 100, 65_530, 65_535] {
        for distance in 0..300u16 {
            let new = old.wrapping_add(distance);
            let passed: BTreeSet<u16> = (0..distance).map(|i| old.wrapping_add(i)).collect();
            for offset in 0..600u16 {
                let event = old.wrapping_sub(300).wrapping_add(offset);
                assert_eq!(needs_event(event, new, old), passed.contains(&event));
            }
        }
    }
}

#[test]
fn a_driver_that_never_thought_of_doorbells_still_rings_when_needed() {
    let (mut queue, mut device) = pair(4, BOTH);
    // Rests were doorbells for as many chains as an index can count.
    for _ in 0..65_536 {
        let head = add(&mut queue, &[read(1)]).unwrap();
        queue.publish();
        device.take().unwrap();
        device.give_back(head.into(), 0);
        queue.pop().unwrap();
    }
    assert!(device.rest());
    add(&mut queue, &[read(1)]).unwrap();
    queue.publish();
    assert!(queue.wants_doorbell());
}

#[test]
fn what_the_device_claims_to_have_written_is_no_more_than_there_is_room_for() {
    for features in [0, BOTH] {
        let (mut queue, mut device) = pair(4, features);
        let head = add(&mut queue, &[read(1), write(2), write(3)]).unwrap();
        queue.publish();
        device.give_back(head.into(), 1 << 20);
        assert_eq!(queue.pop(), Some(Done { head, written: 40 }));
    }
}

/// Each of these breaks the queue, and then nothing comes back any more.
#[test]
fn a_device_that_gives_back_what_it_does_not_have_breaks_the_queue() {
    type Lie = fn(&mut SimulatedDevice, u32) -> bool;
    let lies: [Lie; 4] = [
        |device, _| device.give_back(4, 0),
        |device, _| device.give_back(u32::MAX, 0),
        |device, head| device.give_back(head ^ 1, 0),
        |device, _| {
            device.pretend(3);
            true
        },
    ];
    for lie in lies {
        let (mut queue, mut device) = pair(4, 0);
        let head: u32 = add(&mut queue, &[read(1)]).unwrap().into();
        queue.publish();
        lie(&mut device, head);
        assert_eq!(queue.pop(), None);
        assert!(queue.is_broken());
        device.give_back(head, 0);
        assert_eq!(queue.pop(), None);
    }
    let (mut queue, mut device) = pair(4, 0);
    let head: u32 = add(&mut queue, &[read(1)]).unwrap().into();
    add(&mut queue, &[read(1)]).unwrap();
    queue.publish();
    device.give_back(head, 0);
    device.give_back(head, 0);
    assert!(queue.pop().is_some());
    assert_eq!(queue.pop(), None, "the same twice");
    assert!(queue.is_broken());
}

/// More chains than an index can count, of changing length, given back out of order: every chain
/// arrives unharmed and comes back once, no descriptor is lost, and neither side rests while the
/// other has something for it.
fn survives_the_wrap(size: u32, features: u64) {
    let (mut queue, mut device) = pair(size, features);
    let mut expected = VecDeque::new();
    let mut held: Vec<u16> = Vec::new();
    let mut out = BTreeSet::new();
    let mut came_back = 0;
    let mut random = 1u32;
    let mut told = true;
    let mut rung = true;
    for round in 0..240_000u64 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let buffers = 1 + (random >> 16) as usize % 5;
        let chain: Vec<Buffer> = (0..buffers)
            .map(|i| {
                let address = round << 8 | i as u64;
                if i < 2 { read(address) } else { write(address) }
            })
            .collect();
        if let Ok(head) = add(&mut queue, &chain) {
            assert!(out.insert(head), "head {head} is in use twice");
            let seen = chain
                .iter()
                .map(|b| (b.address, b.length, b.device_writes))
                .collect::<Vec<_>>();
            expected.push_back((head, seen));
        }
        if random & 0x300 == 0 {
            queue.publish();
            rung |= queue.wants_doorbell();
        }
        if rung {
            while let Some(seen) = device.take() {
                assert_eq!(Some(&seen), expected.front());
                expected.pop_front();
                held.push(seen.0);
            }
            rung = !device.rest();
        }
        if random >> 31 == 0 && !held.is_empty() {
            let which = (random >> 8) as usize % held.len();
            let head = held.swap_remove(which);
            told |= device.give_back(head.into(), round as u32);
        }
        if told {
            while let Some(done) = queue.pop() {
                assert!(out.remove(&done.head), "head {} came back twice", done.head);
                came_back += 1;
            }
            told = queue.ask(Tell::AT_NEXT);
        }
    }
    queue.publish();
    while let Some((head, _)) = device.take() {
        held.push(head);
    }
    for head in held {
        device.give_back(head.into(), 0);
    }
    while let Some(done) = queue.pop() {
        assert!(out.remove(&done.head));
    }
    assert!(out.is_empty() && queue.is_empty() && !queue.is_broken());
    assert!(came_back > 65_536, "the indices did not wrap: {came_back}");
    assert_eq!(u32::from(queue.room()), size);
}

#[test]
fn chains_survive_the_wrap_of_the_indices_and_any_order() {
    for features in [0, F_EVENT_IDX, F_INDIRECT_DESC, BOTH] {
        survives_the_wrap(8, features);
    }
    survives_the_wrap(256, BOTH);
}

#[test]
fn a_queue_is_as_new_after_a_reset() {
    let (mut queue, _) = pair(4, BOTH);
    for _ in 0..3 {
        add(&mut queue, &[read(1)]).unwrap();
    }
    queue.publish();
    queue.ring.used.index.store(9, Ordering::Relaxed);
    assert_eq!(queue.pop(), None);
    queue.renew();
    assert!(queue.is_empty() && !queue.is_broken() && queue.room() == 4);
    assert_eq!(queue.ring.available.index.load(Ordering::Relaxed), 0);
    assert_eq!(queue.ring.used.index.load(Ordering::Relaxed), 0);
    assert_eq!(add(&mut queue, &[read(1)]), Ok(0));
}

/// A device on another thread: what it reads is complete when it sees it, and the other way round.
#[test]
fn a_device_on_another_processor_sees_whole_chains() {
    const CHAINS: u64 = 100_000;
    let (mut queue, mut device) = pair(4, F_EVENT_IDX);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for expected in 0..CHAINS {
                let (head, buffers) = loop {
                    match device.take() {
                        Some(seen) => break seen,
                        None => std::thread::yield_now(),
                    }
                };
                assert_eq!(buffers, [(expected, 10, false), (expected + 1, 20, true)]);
                device.give_back(head.into(), expected as u32 % 20);
            }
        });
        let mut added = 0;
        let mut popped = 0;
        while popped < CHAINS {
            if added < CHAINS && add(&mut queue, &[read(added), write(added + 1)]).is_ok() {
                added += 1;
                queue.publish();
            }
            match queue.pop() {
                Some(done) => {
                    assert_eq!(u64::from(done.written), popped % 20);
                    popped += 1;
                }
                None => std::thread::yield_now(),
            }
        }
    });
}
