use std::cell::RefCell;

use super::*;
use crate::virtio::ring::Ring;

/// Writes down what is written.
#[derive(Default)]
struct Log(RefCell<Vec<(u64, u32)>>);

impl Window for &Log {
    fn write(&self, offset: u64, value: u32) {
        self.0.borrow_mut().push((offset, value));
    }
}

static RING: Ring<8> = Ring::new();

#[test]
fn a_device_comes_up_in_the_order_of_the_specification() {
    let log = Log::default();
    let mut setup = Setup::negotiate(&log, F_VERSION_1);
    setup.queue(1, RING.parts());
    let device = setup.start();
    device.notify(1);

    let halves = |register: u64, address: u64| {
        let mut writes = vec![(register, address as u32)];
        if address >> 32 != 0 {
            writes.push((register + 4, (address >> 32) as u32));
        }
        writes
    };
    let mut expected = vec![
        (0x70, 0b0011),
        (0x24, 1),
        (0x20, 1),
        (0x70, 0b1011),
        (0x30, 1),
        (0x38, 8),
    ];
    expected.extend(halves(0x80, RING.parts().descriptors_address()));
    expected.extend(halves(0x90, RING.parts().available_address()));
    expected.extend(halves(0xa0, RING.parts().used_address()));
    expected.extend([(0x44, 1), (0x70, 0b1111), (0x50, 1)]);
    assert_eq!(*log.0.borrow(), expected);
}

#[test]
fn low_features_need_no_selection_and_queue_0_neither() {
    let log = Log::default();
    let mut setup = Setup::negotiate(&log, F_VERSION_1 | 0x20);
    setup.queue(0, RING.parts());
    let writes = log.0.borrow();
    assert_eq!(writes[1..4], [(0x20, 0x20), (0x24, 1), (0x20, 1)]);
    assert!(writes.iter().all(|&(register, _)| register != 0x30));
}

#[test]
fn going_back_to_queue_0_selects_it() {
    let log = Log::default();
    let mut setup = Setup::negotiate(&log, F_VERSION_1);
    setup.queue(1, RING.parts());
    setup.queue(0, RING.parts());
    let selections: Vec<u32> = log
        .0
        .borrow()
        .iter()
        .filter(|&&(register, _)| register == 0x30)
        .map(|&(_, value)| value)
        .collect();
    assert_eq!(selections, [1, 0]);
}

#[test]
fn a_device_that_is_reset_comes_up_as_it_first_did() {
    let log = Log::default();
    let start = |window| {
        let mut setup = Setup::negotiate(window, F_VERSION_1 | F_EVENT_IDX);
        setup.queue(1, RING.parts());
        setup.start()
    };
    let device = start(&log);
    let first = log.0.take();
    let window = device.reset();
    assert_eq!(log.0.take(), [(0x70, 0)]);
    start(window);
    assert_eq!(log.0.take(), first);
}
