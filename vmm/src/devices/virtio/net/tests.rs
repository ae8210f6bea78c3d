//! The card before a socket; before taps of the kernel in [`real`].

mod merge;
mod real;

use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::frame::{HEADER_BYTES, MAX_FRAME};
use super::*;
use crate::devices::virtio::testing::{
    DATA, Driver, Piece, RAM, WRITABLE_FROM, expect_fault, refuses_hostile_rings,
};
use crate::net::testing::TEST_ETHERTYPE;
use crate::spec::SliverSpec;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const MERGEABLE: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;
/// Where chains of the receive queue lie, and how far apart.
const RX: u64 = DATA + (16 << 20);
const STRIDE: u64 = 128 << 10;

fn spec(fields: &str) -> NetSpec {
    let document = format!(
        r#"{{"version": 1, "name": "n", "slice": "a_b", "owner": "o", "contact": "c", "image": "i",
            "nets": [{{"mac": "02:00:00:00:00:07" {fields}}}]}}"#
    );
    SliverSpec::parse(document.as_bytes()).unwrap().nets()[0].clone()
}

/// A card before a socket that keeps the borders of frames, and the other end of that.
fn card() -> (Box<Net>, OwnedFd) {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::NONBLOCK,
        None,
    )
    .unwrap();
    let tap = Tap::stand_in(ours);
    (
        Box::new(Net::new(tap, &spec(""), "net0".to_owned())),
        theirs,
    )
}

fn driver(features: u64) -> (Driver, OwnedFd) {
    let (card, host) = card();
    (Driver::with_features(card, features), host)
}

/// A frame of `len` bytes from the card.
fn frame(len: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
    frame[6..12].copy_from_slice(&MAC);
    frame[12..14].copy_from_slice(&TEST_ETHERTYPE.to_be_bytes());
    frame
}

fn with_header(frame: &[u8]) -> Vec<u8> {
    [&[0; HEADER_BYTES], frame].concat()
}

/// Puts `bytes` into memory and offers them to be sent, in pieces of `piece` bytes.
fn send(driver: &mut Driver, bytes: &[u8], piece: usize) -> u16 {
    driver.write(DATA, bytes);
    let pieces: Vec<Piece> = (DATA..)
        .step_by(piece)
        .zip(bytes.chunks(piece))
        .map(|(at, chunk)| Piece::readable(at, chunk.len() as u32))
        .collect();
    driver.offer(TRANSMIT, &pieces)
}

/// Offers `count` chains of `len` bytes to receive into, the first at place `from`.
fn offer(driver: &mut Driver, from: u64, count: u64, len: u32) {
    for i in from..from + count {
        driver.offer(RECEIVE, &[Piece::writable(RX + i * STRIDE, len)]);
    }
}

/// What the host has got, without waiting.
fn host_reads(host: &OwnedFd) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 70_000];
    let len = rustix::io::read(host, &mut bytes).ok()?;
    bytes.truncate(len);
    Some(bytes)
}

fn host_sends(host: &OwnedFd, frame: &[u8]) {
    let bytes = with_header(frame);
    assert_eq!(rustix::io::write(host, &bytes), Ok(bytes.len()));
}

/// The frame that came in the used chains, which lie from place `from` on; checks the header.
fn received(driver: &mut Driver, from: u64) -> Vec<u8> {
    let used = driver.take_used(RECEIVE);
    let mut bytes = Vec::new();
    for (i, (_, written)) in (from..).zip(&used) {
        bytes.extend(driver.read(RX + i * STRIDE, *written as usize));
    }
    let (header, frame) = bytes.split_at(HEADER_BYTES);
    let buffers = (used.len() as u16).to_le_bytes();
    assert_eq!(header, [&[0; 10], &buffers[..]].concat());
    frame.to_vec()
}

#[test]
fn the_configuration_tells_address_link_and_mtu() {
    let (card, _host) = card();
    assert_eq!(card.config(), [2, 0, 0, 0, 0, 7, 1, 0, 0, 0, 0xdc, 0x05]);
    assert_eq!(card.identity().features & OFFLOADS, OFFLOADS);
    let (ours, _theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let spec = spec(r#", "offloads": false, "mtu": 9000"#);
    let card = Net::new(Tap::stand_in(ours.into()), &spec, "net1".to_owned());
    assert_eq!(card.identity().features, FEATURES);
    assert_eq!(card.config()[10..], 9000u16.to_le_bytes());
}

#[test]
fn addresses_of_the_spec_are_those_of_the_info_page() {
    let full = spec(
        r#", "ipv4": "10.0.0.2/24", "gateway4": "10.0.0.1", "ipv6": "fd00::2/64",
           "gateway6": "fe80::1", "dns": ["10.0.0.1", "fd00::1"], "dhcp": true"#,
    );
    let config = net_config(&full, 3);
    assert_eq!((config.device, config.flags), (3, 1));
    assert_eq!((config.ipv4, config.prefix4), ([10, 0, 0, 2], 24));
    assert_eq!((config.gateway4, config.prefix6), ([10, 0, 0, 1], 64));
    assert_eq!((config.ipv6[0], config.ipv6[15]), (0xfd, 2));
    assert_eq!((config.gateway6[0], config.gateway6[15]), (0xfe, 1));
    assert_eq!(config.dns[0][10..], [0xff, 0xff, 10, 0, 0, 1]);
    assert_eq!(config.dns[1][0], 0xfd);
    let none = net_config(&spec(""), 0);
    assert_eq!(none, slice_abi::info::NetConfig::default());
}

#[test]
fn frames_are_sent_whole_from_any_pieces_and_their_chains_come_back() {
    for piece in [1, 7, 12, 13, 26, 27, 700, 2000] {
        let (mut driver, host) = driver(0);
        let frame = frame(if piece == 1 { 60 } else { 1514 });
        let head = send(&mut driver, &with_header(&frame), piece);
        let outcome = driver.ring(TRANSMIT);
        assert!(outcome.notify && outcome.waiting);
        assert_eq!(host_reads(&host).unwrap(), with_header(&frame));
        assert_eq!(driver.take_used(TRANSMIT), [(head, 0)]);
        assert_eq!(driver.counter("tx_frames"), 1);
        assert_eq!(driver.counter("tx_bytes"), frame.len() as u64);
    }
}

#[test]
fn bad_frames_are_dropped_counted_and_their_chains_come_back() {
    let good = with_header(&frame(60));
    let mut forged = good.clone();
    forged[HEADER_BYTES + 11] ^= 1;
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let cases = [
        (vec![0], "tx_dropped_short"),
        (good[..HEADER_BYTES].to_vec(), "tx_dropped_short"),
        (good[..HEADER_BYTES + 13].to_vec(), "tx_dropped_short"),
        (with_header(&frame(1519)), "tx_dropped_oversized"),
        (with_header(&frame(66_000)), "tx_dropped_oversized"),
        (with(0, 1), "tx_dropped_checksum"),
        (with(1, 1), "tx_dropped_segmentation"),
        (with(1, 9), "tx_dropped_segmentation"),
        (forged, "tx_forged_source"),
    ];
    for (bytes, counter) in cases {
        let (mut driver, host) = driver(0);
        let head = send(&mut driver, &bytes, 4096);
        driver.ring(TRANSMIT);
        assert_eq!(driver.take_used(TRANSMIT), [(head, 0)], "{counter}");
        assert_eq!(driver.counter(counter), 1, "{counter}");
        assert_eq!(driver.counter("tx_frames"), 0);
        assert_eq!(host_reads(&host), None);
        assert!(!driver.needs_reset());
    }
}

#[test]
fn a_full_tap_leaves_frames_with_the_guest_until_there_is_room() {
    let (mut driver, host) = driver(0);
    let bytes = with_header(&frame(1000));
    for _ in 0..256 {
        send(&mut driver, &bytes, 2000);
    }
    while driver.settle().more {}
    let mut back = driver.take_used(TRANSMIT).len();
    assert!(back > 0 && back < 256, "{back}");
    assert_eq!(driver.counter("tx_waits"), 1);
    // Nothing is tried again before the tap says that it has room.
    driver.ring(TRANSMIT);
    assert_eq!(driver.counter("tx_waits"), 1);
    let mut got = 0;
    while back < 256 {
        while host_reads(&host).is_some() {
            got += 1;
        }
        driver.settle();
        back += driver.take_used(TRANSMIT).len();
    }
    got += std::iter::from_fn(|| host_reads(&host)).count();
    assert_eq!((got, driver.counter("tx_frames")), (256, 256));
}

#[test]
fn batches_are_bounded() {
    let (mut driver, _host) = driver(0);
    for _ in 0..200 {
        send(&mut driver, &[0], 1);
    }
    let outcome = driver.ring(TRANSMIT);
    assert!(outcome.more);
    assert!(driver.take_used(TRANSMIT).len() <= crate::devices::virtio::backend::BATCH);
}

#[test]
fn a_frame_comes_in_one_chain_that_has_room_and_leaves_others_alone() {
    for features in [0, MERGEABLE] {
        let (mut driver, host) = driver(features);
        offer(&mut driver, 0, 4, 2048);
        for i in 0..4 {
            let frame = frame(60 + i as usize);
            host_sends(&host, &frame);
            assert!(driver.settle().notify);
            assert_eq!(received(&mut driver, i), frame);
        }
        assert!(!driver.settle().notify);
    }
}

#[test]
fn a_long_frame_fills_as_many_chains_as_it_needs() {
    let work = MERGEABLE | 1 << VIRTIO_NET_F_GUEST_CSUM | 1 << VIRTIO_NET_F_GUEST_TSO4;
    let (mut driver, host) = driver(work);
    offer(&mut driver, 0, 100, 1526);
    let long = frame(MAX_FRAME as usize);
    // The first goes through the spill, the second has room offered to it.
    host_sends(&host, &long);
    driver.settle();
    assert_eq!(received(&mut driver, 0), long);
    assert_eq!(driver.counter("rx_spilled"), 1);
    host_sends(&host, &long);
    driver.settle();
    assert_eq!(received(&mut driver, 43), long);
    assert_eq!(driver.counter("rx_spilled"), 1);
    assert_eq!(driver.counter("rx_bytes"), 2 * MAX_FRAME);
}

#[test]
fn a_frame_without_room_for_its_end_waits_for_chains_and_nothing_of_it_shows() {
    let (mut driver, host) = driver(MERGEABLE);
    offer(&mut driver, 0, 2, 500);
    let long = frame(1514);
    host_sends(&host, &long);
    driver.settle();
    offer(&mut driver, 2, 1, 500);
    driver.ring(RECEIVE);
    assert_eq!(driver.take_used(RECEIVE), []);
    offer(&mut driver, 3, 2, 500);
    driver.ring(RECEIVE);
    assert_eq!(received(&mut driver, 0), long);
    assert_eq!(driver.counter("rx_spilled"), 1);
    assert_eq!(driver.counter("rx_starved"), 1);
    // The chain left over serves the next frame.
    host_sends(&host, &frame(100));
    driver.settle();
    assert_eq!(received(&mut driver, 4), frame(100));
}

#[test]
fn a_frame_that_a_whole_ring_cannot_hold_is_dropped() {
    let (mut driver, host) = driver(MERGEABLE);
    let crumbs: Vec<Piece> = (0..32).map(|i| Piece::writable(RX + 16 * i, 1)).collect();
    for _ in 0..8 {
        driver.offer(RECEIVE, &crumbs);
    }
    host_sends(&host, &frame(1514));
    host_sends(&host, &frame(20));
    driver.settle();
    assert_eq!(driver.counter("rx_dropped_truncated"), 1);
    let (head, written) = driver.used(RECEIVE).unwrap();
    assert_eq!((head, written), (0, 32));
}

#[test]
fn without_merging_a_frame_longer_than_its_chain_is_dropped_and_the_chain_kept() {
    let (mut driver, host) = driver(0);
    offer(&mut driver, 0, 2, 1000);
    host_sends(&host, &frame(989));
    host_sends(&host, &frame(988));
    driver.settle();
    assert_eq!(driver.counter("rx_dropped_truncated"), 1);
    assert_eq!(received(&mut driver, 0), frame(988));
}

#[test]
fn without_buffers_the_tap_keeps_its_frames() {
    let (mut driver, host) = driver(MERGEABLE);
    for i in 0..3 {
        host_sends(&host, &frame(60 + i));
    }
    assert!(driver.settle().waiting);
    assert!(driver.settle().waiting);
    assert_eq!(driver.counter("rx_starved"), 1);
    for i in 0..3 {
        offer(&mut driver, i, 1, 2048);
        assert!(driver.ring(RECEIVE).notify);
        assert_eq!(received(&mut driver, i), frame(60 + i as usize));
    }
    assert_eq!(driver.counter("rx_frames"), 3);
}

#[test]
fn work_that_the_driver_has_not_taken_over_is_dropped() {
    let (mut driver, host) = driver(MERGEABLE);
    offer(&mut driver, 0, 1, 2048);
    let mut unfinished = with_header(&frame(60));
    unfinished[0] = 1;
    rustix::io::write(&host, &unfinished).unwrap();
    driver.settle();
    assert_eq!(driver.counter("rx_dropped_offload"), 1);
    assert_eq!(driver.take_used(RECEIVE), []);
}

#[test]
fn a_reset_forgets_buffers_and_what_was_half_received() {
    let (mut driver, host) = driver(MERGEABLE);
    offer(&mut driver, 0, 2, 500);
    host_sends(&host, &frame(1514));
    driver.settle();
    driver.bring_up(MERGEABLE);
    offer(&mut driver, 8, 1, 2048);
    host_sends(&host, &frame(70));
    driver.settle();
    assert_eq!(received(&mut driver, 8), frame(70));
}

#[test]
fn buffers_in_the_wrong_direction_or_too_short_stop_the_device() {
    let receive = |pieces: &[Piece]| {
        let (card, host) = card();
        host_sends(&host, &frame(60));
        expect_fault(card, RECEIVE, pieces);
    };
    receive(&[Piece::readable(DATA, 2048)]);
    receive(&[Piece::readable(DATA, 12), Piece::writable(RX, 2048)]);
    receive(&[Piece::writable(RX, HEADER_BYTES as u32 - 1)]);
    receive(&[Piece::writable(WRITABLE_FROM - 4096, 2048)]);
    receive(&[Piece::writable(RAM.end() - 100, 2048)]);
    let (card, _host) = card();
    let pieces = [Piece::readable(DATA, 72), Piece::writable(RX, 1)];
    expect_fault(card, TRANSMIT, &pieces);
}

#[test]
fn hostile_rings_stop_the_device() {
    refuses_hostile_rings(&[RECEIVE, TRANSMIT], || card().0);
}
