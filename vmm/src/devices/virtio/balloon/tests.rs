use slice_abi::layout::RAM_BASE;

use super::*;
use crate::devices::virtio::testing::{self, DATA, Driver, Piece, RAM, WRITABLE_FROM};

/// Where the guest keeps its page numbers.
const LIST: u64 = DATA;
/// Memory with which pages are put into the balloon; nothing else lies there.
const PAGES: u64 = DATA + (4 << 20);

fn balloon() -> Driver {
    let balloon = Balloon::new(0, RAM.len);
    Driver::with_features(Box::new(balloon), F_REPORTING)
}

fn offer_numbers(driver: &mut Driver, queue: usize, numbers: &[u32]) {
    let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    driver.write(LIST, &bytes);
    driver.offer(queue, &[Piece::readable(LIST, bytes.len() as u32)]);
    let mut outcome = driver.ring(queue);
    while outcome.more {
        outcome = driver.serve();
    }
    assert_eq!(outcome.fault, None);
}

fn number(address: u64) -> u32 {
    (address / PAGE_BYTES) as u32
}

/// Bytes of the range that are in memory.
fn backed(driver: &Driver, range: Range) -> u64 {
    let mut bytes = 0;
    let visit = |at: u64, len: u64| {
        let (from, to) = (at.max(range.start), (at + len).min(range.end()));
        bytes += to.saturating_sub(from);
    };
    let pagemap = std::fs::File::open("/proc/self/pagemap").unwrap();
    driver.ram.for_each_backed(&pagemap, visit).unwrap();
    bytes
}

#[test]
fn pages_in_the_balloon_leave_memory_and_no_others() {
    let mut driver = balloon();
    driver.write(PAGES, &[7; 8 << 12]);
    let kept = [0, 3, 7];
    let given: Vec<u32> = (0..8).filter(|i| !kept.contains(i)).collect();
    let numbers: Vec<u32> = given.iter().rev().map(|i| number(PAGES) + i).collect();
    offer_numbers(&mut driver, INFLATE, &numbers);
    let range = Range {
        start: PAGES,
        len: 8 << 12,
    };
    assert_eq!(backed(&driver, range), 3 << 12);
    for i in 0..8 {
        let byte = if kept.contains(&i) { 7 } else { 0 };
        let page = driver.read(PAGES + (u64::from(i) << 12), 4096);
        assert!(page.iter().all(|b| *b == byte), "{i}");
    }
    assert_eq!(driver.counter("inflated_pages"), 5);
    assert_eq!(driver.take_used(INFLATE).len(), 1);
    driver.write(PAGES + 4096, b"again");
    offer_numbers(&mut driver, DEFLATE, &numbers);
    assert_eq!(driver.counter("deflated_pages"), 5);
    assert_eq!(driver.read(PAGES + 4096, 5), b"again");
}

#[test]
fn pages_that_are_not_the_guest_s_to_give_are_refused() {
    let mut driver = balloon();
    driver.write(RAM_BASE, b"text");
    let ends = [
        number(RAM_BASE),
        number(WRITABLE_FROM) - 1,
        number(RAM.end()),
    ];
    let wild = [0, 1, u32::MAX, u32::MAX - 1, number(RAM.end()) + 9];
    offer_numbers(&mut driver, INFLATE, &[&ends[..], &wild[..]].concat());
    assert_eq!(driver.counter("inflated_pages"), 0);
    // The first two are one page.
    assert_eq!(driver.counter("refused_pages"), 7);
    assert_eq!(driver.read(RAM_BASE, 4), b"text");
    assert!(!driver.needs_reset());
}

#[test]
fn many_pages_are_given_back_in_several_batches() {
    let mut driver = balloon();
    let pages = 3000;
    // Every second page: each is a range of its own.
    let numbers: Vec<u32> = (0..pages).map(|i| number(PAGES) + 2 * i).collect();
    let batches = driver.counter("batches");
    offer_numbers(&mut driver, INFLATE, &numbers);
    let batches = driver.counter("batches") - batches;
    assert!(
        batches as usize >= numbers.len() / (STEPS * NUMBERS),
        "{batches}"
    );
    assert_eq!(driver.counter("inflated_pages"), u64::from(pages));
    assert_eq!(driver.take_used(INFLATE).len(), 1);
}

#[test]
fn a_list_that_ends_within_a_number_is_read_up_to_there() {
    let mut driver = balloon();
    driver.write(LIST, &number(PAGES).to_le_bytes());
    driver.offer(INFLATE, &[Piece::readable(LIST, 7)]);
    driver.ring(INFLATE);
    assert_eq!(driver.counter("inflated_pages"), 1);
}

#[test]
fn reported_memory_leaves_whole_pages_only() {
    let mut driver = balloon();
    driver.write(PAGES, &[7; 8 << 12]);
    let pieces = [
        Piece::writable(PAGES + 100, 3 << 12),
        Piece::writable(PAGES + (5 << 12), 2 << 12),
        Piece::writable(PAGES + (7 << 12) + 1, 4095),
    ];
    driver.offer(REPORTING, &pieces);
    driver.ring(REPORTING);
    assert_eq!(driver.take_used(REPORTING), [(0, 0)]);
    assert_eq!(driver.counter("reported_bytes"), 4 << 12);
    let range = Range {
        start: PAGES,
        len: 8 << 12,
    };
    assert_eq!(backed(&driver, range), 4 << 12);
    assert_eq!(driver.read(PAGES, 1), [7]);
    assert_eq!(driver.read(PAGES + (3 << 12), 1), [7]);
}

#[test]
fn a_large_report_takes_several_batches_and_loses_no_page() {
    let mut driver = balloon();
    let len = 60 << 20;
    let start = RAM.end() - len - 100;
    driver.offer(REPORTING, &[Piece::writable(start, len as u32)]);
    let mut outcome = driver.ring(REPORTING);
    let mut batches = 1;
    while outcome.more {
        assert!(driver.used(REPORTING).is_none());
        outcome = driver.serve();
        batches += 1;
    }
    assert!(batches > 1);
    assert_eq!(driver.counter("reported_bytes"), len - PAGE_BYTES);
    assert_eq!(driver.take_used(REPORTING).len(), 1);
}

#[test]
fn reports_are_ignored_if_reporting_was_not_negotiated() {
    let mut driver = Driver::new(Box::new(Balloon::new(0, RAM.len)));
    driver.offer(REPORTING, &[Piece::writable(PAGES, 4096)]);
    driver.ring(REPORTING);
    assert_eq!(driver.used(REPORTING), None);
}

#[test]
fn the_target_follows_orders_and_stays_within_memory() {
    let mut driver = Driver::new(Box::new(Balloon::new(3, RAM.len)));
    let config = |driver: &Driver| {
        let mut word = [0; 4];
        driver.device.read(0x100, &mut word);
        u32::from_le_bytes(word)
    };
    assert_eq!(config(&driver), 3 << 8);
    for (mib, pages) in [
        (5, 5 << 8),
        (1 << 40, RAM.len >> 12),
        (u64::MAX, RAM.len >> 12),
        (0, 0),
    ] {
        assert!(driver.device.order(Order::Balloon(mib)));
        assert_eq!(u64::from(config(&driver)), pages);
    }
    let size = Order::ConsoleSize {
        columns: 1,
        rows: 1,
    };
    assert!(!driver.device.order(size));
}

#[test]
fn the_guest_tells_what_the_balloon_holds_and_writes_nothing_else() {
    let mut driver = balloon();
    assert!(!driver.set(0x104, 9).ignored);
    assert_eq!(driver.counter("actual_pages"), 9);
    assert!(driver.set(0x104, (RAM.len >> 12) as u32 + 1).ignored);
    for offset in [0x100, 0x102, 0x105, 0x108, 0x1000] {
        assert!(driver.set(offset, 1).ignored, "{offset:#x}");
    }
    assert!(
        driver
            .device
            .write(0x104, &[1], &driver.ram, driver.now)
            .ignored
    );
    assert_eq!(driver.counter("actual_pages"), 9);
    assert_eq!(driver.counter("target_pages"), 0);
    driver.bring_up(F_REPORTING);
    assert_eq!(driver.counter("actual_pages"), 0);
}

#[test]
fn chains_in_the_wrong_direction_are_faults() {
    for (queue, piece) in [
        (INFLATE, Piece::writable(DATA, 8)),
        (DEFLATE, Piece::writable(DATA, 8)),
        (REPORTING, Piece::readable(DATA, 8)),
    ] {
        let mut driver = balloon();
        driver.offer(queue, &[piece]);
        let fault = driver.ring(queue).fault.unwrap();
        assert_eq!((fault.queue, fault.error), (queue, QueueError::Direction));
        assert!(driver.needs_reset());
    }
}

#[test]
fn hostile_rings_stop_the_device_until_reset() {
    testing::refuses_hostile_rings(&[INFLATE, DEFLATE], || Box::new(Balloon::new(0, RAM.len)));
}
