//! Cards on a device that works on their memory as a monitor does, from the addresses in its
//! registers.

mod device;

use core::net::SocketAddr;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use super::*;
use crate::net::TcpOptions;
use crate::net::stack::{Addressing, Stack};
use crate::time::Instant;
use device::{Host, Side};

const ALL: u64 = F_VERSION_1
    | F_EVENT_IDX
    | feature::CSUM
    | feature::GUEST_CSUM
    | feature::MTU
    | feature::MAC
    | feature::GUEST_TSO4
    | feature::GUEST_TSO6
    | feature::HOST_TSO4
    | feature::HOST_TSO6
    | feature::MRG_RXBUF;

fn stack(host: &Host, side: Side, number: u8, features: u64) -> Stack {
    let mut stack = Stack::new(64 << 20, number.into());
    let mut v6 = [0; 16];
    v6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
    v6[15] = number;
    let addressing = Addressing {
        v4: Some(([192, 0, 2, number].into(), 24)),
        v6: Some((v6.into(), 64)),
        ..Addressing::default()
    };
    let card = VirtioCard::open(host.window(side), &host.offer(side, features), 1);
    stack.add("net0", Box::new(card), addressing, Instant::from_nanos(1));
    stack
}

/// Sends bytes from one slice to another. Chains that carried them, and frames on the wire.
fn transfer(features: (u64, u64), to: &str, length: usize) -> (usize, usize) {
    let host = Host::new();
    let options = TcpOptions {
        receive_buffer: 256 << 10,
        send_buffer: 256 << 10,
        ..TcpOptions::default()
    };
    let mut near = stack(&host, Side::Left, 1, features.0);
    let mut far = stack(&host, Side::Right, 2, features.1);
    let to: SocketAddr = to.parse().unwrap();
    let listener = far.listen(to, options).unwrap();
    let out = near.connect(to, &options).unwrap();
    let data: Vec<u8> = (0..length)
        .map(|n| (n as u32).wrapping_mul(0x9e37_79b9).to_be_bytes()[0])
        .collect();
    let (mut sent, mut got) = (0, Vec::<u8>::new());
    let mut accepted = None;
    let mut context = Context::from_waker(Waker::noop());
    let mut buffer = vec![0; 100_000];
    let mut now = Instant::from_nanos(1);
    while got.len() < length {
        near.poll(now);
        far.poll(now);
        // They rest: what is published is served.
        near.deadline(now);
        far.deadline(now);
        host.serve();
        now += Duration::from_micros(50);
        assert!(
            now < Instant::from_nanos(20_000_000_000),
            "it takes too long: {} of {length}",
            got.len()
        );
        if near
            .poll_connected(out, Duration::ZERO, &mut context)
            .is_pending()
        {
            continue;
        }
        while sent < length
            && let Poll::Ready(written) = near.poll_write(out, &data[sent..], &mut context)
        {
            sent += written.unwrap();
        }
        if accepted.is_none()
            && let Poll::Ready(connection) = far.poll_accept(listener, &mut context)
        {
            accepted = Some(connection.unwrap().0);
        }
        while let Some(id) = accepted
            && let Poll::Ready(read) = far.poll_read(id, &mut buffer, &mut context)
        {
            got.extend(&buffer[..read.unwrap()]);
        }
    }
    assert!(got == data, "changed on the way");
    host.counts(Side::Left)
}

const V4: &str = "192.0.2.2:80";
const V6: &str = "[2001:db8::2]:80";
const LENGTH: usize = 4 << 20;

#[test]
fn with_all_offloads_long_frames_travel_whole() {
    for to in [V4, V6] {
        let (chains, frames) = transfer((ALL, ALL), to, LENGTH);
        assert_eq!(chains, frames);
        assert!(chains < LENGTH / 1460 / 8, "{to}: {chains} chains");
    }
}

#[test]
fn without_offloads_each_packet_travels_alone() {
    let plain = F_VERSION_1 | F_EVENT_IDX | feature::MAC;
    for to in [V4, V6] {
        let (chains, frames) = transfer((plain, plain), to, LENGTH);
        assert!(chains == frames && chains > LENGTH / 1460);
    }
}

#[test]
fn a_device_takes_long_frames_apart_for_one_that_does_not_take_them() {
    let checksums = F_VERSION_1 | feature::MAC | feature::MRG_RXBUF;
    for to in [V4, V6] {
        let (chains, frames) = transfer((ALL, checksums), to, LENGTH);
        assert!(
            chains < frames / 8,
            "{to}: {chains} chains, {frames} frames"
        );
    }
}

#[test]
fn features_of_no_use_without_others_are_left() {
    let tso = feature::HOST_TSO4 | feature::GUEST_TSO6;
    assert_eq!(choose(F_VERSION_1 | tso), F_VERSION_1);
    assert_eq!(
        choose(F_VERSION_1 | tso | feature::GUEST_CSUM),
        F_VERSION_1 | feature::GUEST_CSUM
    );
    assert_eq!(choose(ALL | 1 << 60), ALL);
}

#[test]
fn a_card_is_as_its_device_says() {
    let host = Host::new();
    let open = |features| {
        VirtioCard::open(
            host.window(Side::Left),
            &host.offer(Side::Left, features),
            0x0011_2233_4455_6677,
        )
    };
    let properties = open(ALL).properties();
    assert_eq!(properties.mac, device::MAC);
    assert_eq!(properties.mtu, device::MTU);
    assert!(properties.checksums && properties.segments4);
    let properties = open(F_VERSION_1).properties();
    assert_eq!(properties.mac, [2, 0x33, 0x44, 0x55, 0x66, 0x77]);
    assert_eq!(properties.mtu, USUAL_MTU);
    assert!(!properties.checksums && !properties.segments4);
}

#[test]
fn what_has_no_room_goes_on_when_there_is_some() {
    let host = Host::new();
    let offer = Offer {
        queue_size_max: 4,
        ..host.offer(Side::Left, F_VERSION_1 | F_EVENT_IDX)
    };
    let mut stack = Stack::new(0, 1);
    let card = VirtioCard::open(host.window(Side::Left), &offer, 1);
    let addressing = Addressing {
        v4: Some(([192, 0, 2, 1].into(), 24)),
        ..Addressing::default()
    };
    let mut now = Instant::from_nanos(1);
    stack.add("net0", Box::new(card), addressing, now);
    let socket = stack.bind_udp("0.0.0.0:9".parse().unwrap()).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..20 {
        let everyone = "255.255.255.255:9".parse().unwrap();
        let sent = stack.poll_send(socket, b"hello", everyone, &mut context);
        assert!(sent.is_ready());
    }
    let mut rests = 0;
    while host.counts(Side::Left).0 < 20 {
        stack.poll(now);
        let deadline = stack.deadline(now);
        if deadline.is_none_or(|deadline| deadline > now) {
            // Only the device ends this rest.
            assert_eq!(deadline, None);
            host.serve();
            rests += 1;
        }
        now += Duration::from_micros(1);
    }
    assert_eq!(rests, 5);
}

#[test]
fn a_device_that_lies_does_no_harm_and_is_reset_a_few_times() {
    let host = Host::new();
    let mut near = stack(&host, Side::Left, 1, ALL);
    let mut now = Instant::from_nanos(1);
    let small = TcpOptions {
        receive_buffer: 100,
        send_buffer: 100,
        ..TcpOptions::default()
    };
    for round in 0..2000 {
        if let Ok(id) = near.connect("192.0.2.9:1".parse().unwrap(), &small) {
            near.release(id, now);
        }
        near.poll(now);
        host.lie(Side::Left, round);
        near.poll(now);
        near.deadline(now);
        now += Duration::from_millis(10);
    }
    assert_eq!(host.resets(Side::Left), usize::from(RESETS) + 1);
}

#[test]
fn a_device_that_asks_for_a_reset_works_afterwards() {
    let host = Host::new();
    let mut near = stack(&host, Side::Left, 1, ALL);
    host.fail(Side::Left);
    near.poll(Instant::from_nanos(1));
    assert_eq!(host.resets(Side::Left), 1);
    near.ping("192.0.2.9:0".parse().unwrap()).unwrap();
    near.poll(Instant::from_nanos(1000));
    near.deadline(Instant::from_nanos(1000));
    host.serve();
    assert_eq!(host.counts(Side::Left).0, 1, "a question for the neighbour");
}
