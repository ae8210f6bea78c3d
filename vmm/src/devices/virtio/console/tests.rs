use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use super::*;
use crate::devices::rated::BURST;
use crate::devices::virtio::testing::{self, DATA, Driver, Piece};
use crate::spec::SliverSpec;

const MIB: u64 = 1 << 20;

fn spec(rate_kib_s: u64) -> ConsoleSpec {
    let text = format!(
        r#"{{"version": 1, "name": "a", "slice": "a_b", "owner": "o", "contact": "c",
            "image": "/i", "console": {{"rate_kib_s": {rate_kib_s}}}}}"#
    );
    SliverSpec::parse(text.as_bytes())
        .unwrap()
        .console()
        .clone()
}

fn console(rate_kib_s: u64) -> (Driver, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let output = Output::new(OwnedFd::from(ours).into());
    let console = Console::new(output, None, &spec(rate_kib_s));
    (Driver::new(Box::new(console)), theirs)
}

fn with_input() -> (Driver, UnixStream) {
    let output = Output::new(tempfile::tempfile().unwrap());
    let (ours, theirs) = UnixStream::pair().unwrap();
    let input = Input::new(OwnedFd::from(ours).into());
    let console = Console::new(output, Some(input), &spec(1024));
    (Driver::new(Box::new(console)), theirs)
}

fn to_nowhere() -> Box<dyn Backend> {
    let output = Output::new(tempfile::tempfile().unwrap());
    Box::new(Console::new(output, None, &spec(1024)))
}

#[test]
fn what_the_guest_prints_comes_out_in_order() {
    let (mut driver, mut reader) = console(1024);
    driver.write(DATA, b"hello, world");
    let pieces = [Piece::readable(DATA, 5), Piece::readable(DATA + 5, 7)];
    let head = driver.offer(TRANSMIT, &pieces);
    driver.ring(TRANSMIT);
    let mut text = [0; 12];
    reader.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hello, world");
    assert_eq!(driver.used(TRANSMIT), Some((head, 0)));
}

#[test]
fn a_flood_waits_for_its_rate_and_loses_nothing() {
    let (mut driver, mut reader) = console(64);
    let total = 2 * MIB;
    driver.write(DATA, &vec![b'x'; total as usize]);
    driver.offer(TRANSMIT, &[Piece::readable(DATA, total as u32)]);
    let reading = std::thread::spawn(move || {
        let mut count = vec![0; total as usize];
        reader.read_exact(&mut count).unwrap();
        reader
    });
    let start = driver.now;
    let mut outcome = driver.ring(TRANSMIT);
    while driver.used(TRANSMIT).is_none() {
        if let Some(at) = outcome.again_at {
            assert!(at > driver.now);
            driver.now = at;
        } else if !outcome.more {
            // The reader is slow; the device would be woken when there is room.
            std::thread::yield_now();
        }
        outcome = driver.serve();
    }
    reading.join().unwrap();
    let passed = driver.now.0 - start.0;
    let least = (total - BURST) * 1_000_000_000 / (64 << 10);
    // One grain is waited for at a time.
    assert!(
        (least..=least + 10_000_000).contains(&passed),
        "{passed} {least}"
    );
    assert!(driver.counter("rate_waits") > 0);
    assert_eq!(driver.counter("printed_bytes"), total);
}

#[test]
fn who_waits_for_its_rate_is_not_woken_for_each_line() {
    let (mut driver, mut reader) = console(64);
    std::thread::spawn(move || while reader.read(&mut [0; 4096]).is_ok_and(|len| len > 0) {});
    driver.offer(TRANSMIT, &[Piece::readable(DATA, BURST as u32)]);
    while driver.used(TRANSMIT).is_none() {
        driver.settle();
    }
    for _ in 0..20 {
        driver.offer(TRANSMIT, &[Piece::readable(DATA, 60)]);
    }
    let at = driver.ring(TRANSMIT).again_at.unwrap();
    assert_eq!(at.0 - driver.now.0, 655 * 1_000_000_000 / (64 << 10) + 1);
    driver.now = Nanos(at.0 - 1);
    assert_eq!(driver.serve().again_at, Some(at));
    assert_eq!(driver.take_used(TRANSMIT).len(), 0);
    driver.now = at;
    driver.settle();
    assert_eq!(driver.take_used(TRANSMIT).len(), 655 / 60);
    assert_eq!(driver.counter("rate_waits"), 2);
}

#[test]
fn a_slow_reader_makes_only_its_guest_wait() {
    let (mut driver, mut reader) = console(1 << 20);
    let total = MIB as usize;
    driver.offer(TRANSMIT, &[Piece::readable(DATA, total as u32)]);
    let mut outcome = driver.ring(TRANSMIT);
    while outcome.more {
        outcome = driver.serve();
    }
    assert!(outcome.waiting);
    assert_eq!(driver.used(TRANSMIT), None);
    let mut received = 0;
    let mut bytes = vec![0; total];
    while driver.used(TRANSMIT).is_none() {
        received += reader.read(&mut bytes).unwrap();
        driver.settle();
    }
    reader.read_exact(&mut bytes[..total - received]).unwrap();
}

#[test]
fn input_waits_for_buffers_and_comes_into_them_in_order() {
    let (mut driver, mut writer) = with_input();
    assert!(driver.first.waiting);
    writer.write_all(b"some input").unwrap();
    driver.settle();
    assert_eq!(driver.used(RECEIVE), None);
    let short = driver.offer(RECEIVE, &[Piece::writable(DATA, 4)]);
    let long = driver.offer(RECEIVE, &[Piece::writable(DATA + 16, 64)]);
    driver.ring(RECEIVE);
    assert_eq!(driver.take_used(RECEIVE), [(short, 4), (long, 6)]);
    assert_eq!(driver.read(DATA, 4), b"some");
    assert_eq!(driver.read(DATA + 16, 7), b" input\0");
}

#[test]
fn buffers_wait_for_input() {
    let (mut driver, mut writer) = with_input();
    let head = driver.offer(RECEIVE, &[Piece::writable(DATA, 16)]);
    assert!(driver.ring(RECEIVE).waiting);
    assert_eq!(driver.used(RECEIVE), None);
    writer.write_all(b"late").unwrap();
    driver.settle();
    assert_eq!(driver.used(RECEIVE), Some((head, 4)));
}

#[test]
fn after_the_end_of_input_nothing_is_waited_for() {
    let (mut driver, mut writer) = with_input();
    writer.write_all(b"x").unwrap();
    drop(writer);
    for _ in 0..3 {
        driver.offer(RECEIVE, &[Piece::writable(DATA, 16)]);
    }
    driver.ring(RECEIVE);
    let outcome = driver.settle();
    assert!(!outcome.waiting && !outcome.more, "{outcome:?}");
    assert_eq!(driver.take_used(RECEIVE).len(), 1);
}

#[test]
fn input_survives_a_reset_of_the_guest() {
    let (mut driver, mut writer) = with_input();
    writer.write_all(b"kept").unwrap();
    driver.settle();
    driver.bring_up(0);
    driver.offer(RECEIVE, &[Piece::writable(DATA, 16)]);
    driver.ring(RECEIVE);
    assert_eq!(driver.used(RECEIVE), Some((0, 4)));
}

#[test]
fn the_window_size_follows_its_orders() {
    let (mut driver, _reader) = console(1024);
    let order = Order::ConsoleSize {
        columns: 132,
        rows: 43,
    };
    assert!(driver.device.order(order));
    assert!(!driver.device.order(Order::Balloon(1)));
    let mut config = [0; 4];
    driver.device.read(0x100, &mut config);
    assert_eq!(config, [132, 0, 43, 0]);
}

#[test]
fn the_guest_cannot_write_the_window_size() {
    let (mut driver, _reader) = console(1024);
    assert!(driver.set(0x100, 7).ignored);
}

#[test]
fn chains_in_the_wrong_direction_are_faults() {
    let pieces = [Piece::readable(DATA, 8), Piece::writable(DATA, 8)];
    testing::expect_fault(to_nowhere(), TRANSMIT, &pieces);
    let (mut driver, mut writer) = with_input();
    writer.write_all(b"x").unwrap();
    driver.settle();
    driver.offer(RECEIVE, &pieces);
    assert!(driver.ring(RECEIVE).fault.is_some());
}

#[test]
fn hostile_rings_stop_the_device_until_reset() {
    testing::refuses_hostile_rings(&[TRANSMIT], to_nowhere);
}
