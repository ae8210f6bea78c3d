//! The card before a tap of the kernel, in a network namespace of its own.

use super::*;
use crate::devices::virtio::mmio::register;
use crate::net::testing::{HostEnd, PACKET_HEADER, attach, delete, in_namespace, make_tap, set_up};
use crate::spec::TapName;

const LEN: u32 = 2048;

/// A card before `tap7`, which exists, with `count` chains to receive into.
fn driver_on_tap(features: u64, count: u64) -> Driver {
    let tap = Tap::open(&TapName::parse("tap7").unwrap()).unwrap();
    let card = Box::new(Net::new(tap, &spec(""), "net0".to_owned()));
    let mut driver = Driver::with_features(card, features);
    offer(&mut driver, 0, count, LEN);
    driver
}

/// The next test frame that was received, with its header; others are of the kernel's own. `place`
/// is that of the first chain not used yet.
fn next_frame(driver: &mut Driver, place: &mut u64) -> Vec<u8> {
    loop {
        driver.settle();
        while let Some((_, written)) = driver.used(RECEIVE) {
            let mut bytes = driver.read(RX + *place * STRIDE, written as usize);
            *place += 1;
            for _ in 1..u16::from_le_bytes([bytes[10], bytes[11]]) {
                let (_, written) = driver.used(RECEIVE).unwrap();
                bytes.extend(driver.read(RX + *place * STRIDE, written as usize));
                *place += 1;
            }
            if bytes[24..26] == TEST_ETHERTYPE.to_be_bytes() {
                return bytes;
            }
        }
    }
}

fn link_status(driver: &Driver) -> u8 {
    let mut byte = [0];
    let offset = register::CONFIG + CONFIG_STATUS as u64;
    assert!(driver.device.read(offset, &mut byte));
    byte[0]
}

#[test]
fn frames_cross_a_tap_both_ways() {
    in_namespace(|| {
        make_tap("tap7");
        let host = HostEnd::open("tap7", TEST_ETHERTYPE);
        let mut driver = driver_on_tap(MERGEABLE, 100);
        let (sent, mut place) = (frame(1514), 0);
        send(&mut driver, &with_header(&sent), 900);
        driver.ring(TRANSMIT);
        assert_eq!(driver.counter("tx_frames"), 1);
        assert_eq!(host.receive()[PACKET_HEADER..], sent);
        for len in [60, 1514] {
            host.send([0; PACKET_HEADER], &frame(len));
            let got = next_frame(&mut driver, &mut place);
            assert_eq!(got[HEADER_BYTES..], frame(len));
        }
    });
}

#[test]
fn the_host_leaves_checksums_and_segmentation_to_a_driver_that_takes_them_over() {
    in_namespace(|| {
        make_tap("tap7");
        let host = HostEnd::open("tap7", TEST_ETHERTYPE);
        let mut driver = driver_on_tap(MERGEABLE | OFFLOADS, 100);
        // A checksum to be filled in at 34 + 16 by whoever puts the frame on a wire.
        let mut header = [0; PACKET_HEADER];
        (header[0], header[6], header[8]) = (1, 34, 16);
        host.send(header, &frame(1000));
        let mut place = 0;
        let got = next_frame(&mut driver, &mut place);
        assert_eq!(got[..PACKET_HEADER], header);
        assert_eq!(got[HEADER_BYTES..], frame(1000));

        // Without the features the kernel does that work itself.
        drop(driver);
        let mut driver = driver_on_tap(MERGEABLE, 100);
        host.send(header, &frame(1000));
        let got = next_frame(&mut driver, &mut 0);
        assert_eq!(got[..PACKET_HEADER], [0; PACKET_HEADER]);
        assert_ne!(got[HEADER_BYTES..], frame(1000));
    });
}

#[test]
fn the_host_takes_over_checksums_and_segmentation_of_the_guest() {
    in_namespace(|| {
        make_tap("tap7");
        let host = HostEnd::open("tap7", 0x0800);
        let mut driver = driver_on_tap(MERGEABLE | OFFLOADS, 1);
        let long = tcp_frame(40_000);
        let mut header = [0; HEADER_BYTES];
        (header[0], header[1], header[6], header[8]) = (1, 1, 34, 16);
        header[4..6].copy_from_slice(&1448u16.to_le_bytes());
        send(&mut driver, &[&header[..], &long].concat(), 4096);
        driver.ring(TRANSMIT);
        assert_eq!(driver.counter("tx_frames"), 1);
        let got = host.receive();
        assert_eq!(got[PACKET_HEADER..], long);
        assert_eq!(
            (got[0], got[1] & 0x7f, got[4..6] == header[4..6]),
            (1, 1, true)
        );
    });
}

/// A frame with IPv4 and TCP headers, 54 bytes in all, and zeros behind them. Its EtherType is that
/// of IPv4: segments are nothing else's.
fn tcp_frame(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes[..6].fill(0xff);
    bytes[6..12].copy_from_slice(&MAC);
    bytes[12..14].copy_from_slice(&[8, 0]);
    bytes[14] = 0x45;
    bytes[16..18].copy_from_slice(&((len - 14) as u16).to_be_bytes());
    (bytes[22], bytes[23]) = (64, 6);
    bytes[26..34].copy_from_slice(&[10, 0, 0, 2, 10, 0, 0, 1]);
    bytes[46] = 5 << 4;
    bytes
}

#[test]
fn what_the_kernel_refuses_is_dropped_and_counted() {
    in_namespace(|| {
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        let tap = Tap::from_fd(attach("tap7", flags)).unwrap();
        let card = Box::new(Net::new(tap, &spec(""), "net0".to_owned()));
        let mut driver = Driver::with_features(card, MERGEABLE);
        // The interface is not up.
        send(&mut driver, &with_header(&frame(60)), 100);
        driver.ring(TRANSMIT);
        assert_eq!(driver.take_used(TRANSMIT).len(), 1);
        assert_eq!(driver.counter("tx_dropped_refused"), 1);
        assert_eq!(link_status(&driver), 1);
    });
}

#[test]
fn an_interface_that_goes_away_takes_the_link_down() {
    in_namespace(|| {
        make_tap("tap7");
        let mut driver = driver_on_tap(MERGEABLE, 100);
        driver.settle();
        assert_eq!(link_status(&driver), 1);
        delete("tap7");
        driver.settle();
        assert_eq!(link_status(&driver), 0);
        assert_eq!(driver.counter("rx_errors"), 1);
        send(&mut driver, &with_header(&frame(60)), 100);
        driver.ring(TRANSMIT);
        assert_eq!(driver.counter("tx_dropped_refused"), 1);
        assert!(!driver.needs_reset());
    });
}

#[test]
fn a_tap_becomes_ready_to_whoever_watches_it() {
    use crate::devices::attendant::{Attendant, Event};
    in_namespace(|| {
        let fd = attach("tap7", libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR);
        let card = Net::new(Tap::from_fd(fd).unwrap(), &spec(""), "net0".to_owned());
        let attendant = Attendant::new().unwrap();
        let [source] = card.sources()[..] else {
            panic!("{:?}", card.sources());
        };
        attendant.watch(5, 0, source).unwrap();
        set_up("tap7");
        let host = HostEnd::open("tap7", TEST_ETHERTYPE);
        host.send([0; PACKET_HEADER], &frame(60));
        let mut seen = Vec::new();
        let limit = std::time::Duration::from_secs(9);
        attendant
            .wait(Some(limit), None, |event| seen.push(event))
            .unwrap();
        let expected = Event::Source {
            device: 5,
            source: 0,
        };
        assert_eq!(seen, [expected]);
    });
}
