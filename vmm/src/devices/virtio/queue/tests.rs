use super::*;
use slice_abi::info::Range;
use slice_abi::layout::RAM_BASE;

fn ram() -> GuestRam {
    let range = Range {
        start: RAM_BASE,
        len: 1 << 20,
    };
    GuestRam::new(&[range], &[], RAM_BASE + 0x1000).unwrap()
}

fn config() -> QueueConfig {
    QueueConfig {
        descriptors: RAM_BASE + 0x2000,
        available: RAM_BASE + 0x3000,
        used: RAM_BASE + 0x4000,
        ..QueueConfig::new(8)
    }
}

#[test]
fn a_good_configuration_starts_and_is_empty() {
    let ram = ram();
    let mut queue = config().start(&ram, 0).unwrap();
    assert!(!queue.pop(&ram, &mut Chain::default()).unwrap());
}

#[test]
fn bad_configurations_are_refused() {
    let ram = ram();
    let refuses = |config: QueueConfig| config.start(&ram, 0).unwrap_err();
    for size in [0, 3, 16, 0x1_0008, u32::MAX] {
        assert_eq!(
            refuses(QueueConfig { size, ..config() }),
            QueueError::Size { size, max: 8 }
        );
    }
    let misaligned = QueueConfig {
        descriptors: RAM_BASE + 0x2008,
        ..config()
    };
    assert!(matches!(refuses(misaligned), QueueError::Misaligned { .. }));
    for address in [0, RAM_BASE - 16, RAM_BASE + (1 << 20) - 16, u64::MAX - 15] {
        let outside = QueueConfig {
            descriptors: address,
            ..config()
        };
        assert!(matches!(refuses(outside), QueueError::Unreachable { .. }));
    }
    // The used ring is written by the device: it may not lie in text.
    let in_text = QueueConfig {
        used: RAM_BASE,
        ..config()
    };
    assert!(matches!(refuses(in_text), QueueError::Unreachable { .. }));
    let overlapping = QueueConfig {
        used: RAM_BASE + 0x2040,
        ..config()
    };
    assert_eq!(refuses(overlapping), QueueError::Overlap);
}

#[test]
fn an_available_index_that_jumps_is_refused() {
    let ram = ram();
    let mut queue = config().start(&ram, 0).unwrap();
    ram.write_any(&9u16.to_le_bytes(), RAM_BASE + 0x3002)
        .unwrap();
    assert_eq!(
        queue.pop(&ram, &mut Chain::default()),
        Err(QueueError::AvailableIndex)
    );
    ram.write_any(&0xffffu16.to_le_bytes(), RAM_BASE + 0x3002)
        .unwrap();
    assert_eq!(
        queue.pop(&ram, &mut Chain::default()),
        Err(QueueError::AvailableIndex)
    );
}

const AVAILABLE: u64 = RAM_BASE + 0x3000;
const USED: u64 = RAM_BASE + 0x4000;

fn put_word(ram: &GuestRam, at: u64, word: u16) {
    ram.write_any(&word.to_le_bytes(), at).unwrap();
}

fn used_index(ram: &GuestRam) -> u16 {
    ram.read_obj(GuestAddress(USED + 2)).unwrap()
}

/// Makes descriptor 0 available `count` times more.
fn offer(ram: &GuestRam, index: &mut u16, count: u16) {
    let mut descriptor = (RAM_BASE + 0x8000).to_le_bytes().to_vec();
    descriptor.extend(16u32.to_le_bytes());
    descriptor.extend([0; 4]);
    ram.write_any(&descriptor, RAM_BASE + 0x2000).unwrap();
    *index = index.wrapping_add(count);
    put_word(ram, AVAILABLE + 2, *index);
}

#[test]
fn what_is_staged_appears_together() {
    let ram = ram();
    let mut queue = config().start(&ram, 0).unwrap();
    let (mut chain, mut index) = (Chain::default(), 0);
    offer(&ram, &mut index, 3);
    for written in 0..3 {
        assert!(queue.pop(&ram, &mut chain).unwrap());
        queue.stage(&ram, chain.head, written).unwrap();
    }
    assert!(!queue.pop(&ram, &mut chain).unwrap());
    assert_eq!(used_index(&ram), 0);
    assert!(!queue.wants_notification(&ram).unwrap());
    queue.publish(&ram).unwrap();
    assert_eq!(used_index(&ram), 3);
    assert_eq!(
        ram.read_obj::<u32>(GuestAddress(USED + 4 + 2 * 8 + 4))
            .unwrap(),
        2
    );
    assert!(queue.wants_notification(&ram).unwrap());
    assert!(!queue.wants_notification(&ram).unwrap());
}

#[test]
fn chains_put_back_are_taken_again() {
    let ram = ram();
    let mut queue = config().start(&ram, 0).unwrap();
    let (mut chain, mut index) = (Chain::default(), 0);
    offer(&ram, &mut index, 2);
    while queue.pop(&ram, &mut chain).unwrap() {}
    queue.unpop(2);
    assert!(queue.pop(&ram, &mut chain).unwrap());
    assert!(queue.pop(&ram, &mut chain).unwrap());
    assert!(!queue.pop(&ram, &mut chain).unwrap());
}

#[test]
fn a_driver_without_event_index_is_left_alone_when_it_asks() {
    let ram = ram();
    let mut queue = config().start(&ram, 0).unwrap();
    let (mut chain, mut index) = (Chain::default(), 0);
    put_word(&ram, AVAILABLE, 1);
    offer(&ram, &mut index, 1);
    queue.pop(&ram, &mut chain).unwrap();
    queue.stage(&ram, chain.head, 0).unwrap();
    queue.publish(&ram).unwrap();
    assert!(!queue.wants_notification(&ram).unwrap());
}

#[test]
fn notifications_follow_the_event_index_across_its_wrap() {
    let ram = ram();
    let features = 1 << VIRTIO_RING_F_EVENT_IDX;
    let mut queue = config().start(&ram, features).unwrap();
    let (mut chain, mut index) = (Chain::default(), 0u16);
    let used_event = AVAILABLE + 4 + 2 * 8;
    for round in 0..70_000u32 {
        // The driver asks to be told when the element with this number is there.
        put_word(
            &ram,
            used_event,
            (round as u16).wrapping_add((round % 3 == 0).into()),
        );
        offer(&ram, &mut index, 1);
        assert!(queue.pop(&ram, &mut chain).unwrap());
        queue.stage(&ram, chain.head, 0).unwrap();
        queue.publish(&ram).unwrap();
        assert_eq!(
            queue.wants_notification(&ram).unwrap(),
            round % 3 != 0,
            "{round}"
        );
    }
}

#[test]
fn listening_tells_of_chains_that_came_before() {
    let ram = ram();
    let features = 1 << VIRTIO_RING_F_EVENT_IDX;
    let mut queue = config().start(&ram, features).unwrap();
    let (mut chain, mut index) = (Chain::default(), 0);
    assert!(!queue.listen(&ram).unwrap());
    offer(&ram, &mut index, 1);
    assert!(queue.listen(&ram).unwrap());
    queue.pop(&ram, &mut chain).unwrap();
    assert!(!queue.listen(&ram).unwrap());
    // avail_event, behind the used elements.
    assert_eq!(
        ram.read_obj::<u16>(GuestAddress(USED + 4 + 8 * 8)).unwrap(),
        1
    );
}
