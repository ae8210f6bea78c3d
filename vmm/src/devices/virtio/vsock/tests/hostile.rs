//! Guests that break the rules of a vsock.

use super::*;
use crate::devices::virtio::testing;

#[test]
fn unknown_connections_are_reset_but_resets_are_not_answered() {
    let mut guest = Guest::new();
    for op in [
        Op::Response,
        Op::Data,
        Op::Shutdown,
        Op::CreditUpdate,
        Op::CreditRequest,
    ] {
        guest.send(op, 99);
        assert_eq!(guest.ops(), [Op::Reset], "{op:?}");
    }
    guest.send(Op::Reset, 99);
    assert_eq!(guest.ops(), []);
}

#[test]
fn a_forged_source_is_refused_without_an_answer() {
    let mut guest = Guest::new();
    let listener = guest.listener(80);
    listener.set_nonblocking(true).unwrap();
    for src_cid in [0, 1, HOST_CID, CID + 1, CID | 1 << 32, u64::MAX] {
        let forged = Header {
            src_cid,
            ..guest.header(Op::Request, 80)
        };
        guest.send_as(forged, &[]);
    }
    assert_eq!(guest.ops(), []);
    assert_eq!(guest.counter("forged_packets"), 6);
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn packets_for_others_of_other_kinds_and_without_a_meaning_are_reset() {
    let mut guest = Guest::new();
    let good = guest.header(Op::Request, 80);
    let bad = [
        Header { kind: 2, ..good },
        Header { raw_op: 0, ..good },
        Header { raw_op: 8, ..good },
        Header {
            raw_op: 0x105,
            ..good
        },
    ];
    for header in bad {
        guest.send_as(header, &[]);
        assert_eq!(guest.ops(), [Op::Reset], "{header:?}");
    }
    assert_eq!(guest.counter("bad_packets"), 4);
}

#[test]
fn a_packet_for_another_host_is_reset_in_its_name() {
    let mut guest = Guest::new();
    let elsewhere = Header {
        dst_cid: 9,
        ..guest.header(Op::Request, 80)
    };
    guest.send_as(elsewhere, &[]);
    let (head, len) = guest.driver.used(RECEIVE).unwrap();
    let raw = guest.driver.read(buffer(head), len as usize);
    let answer = Header::parse(raw[..].try_into().unwrap());
    assert_eq!((answer.op(), answer.src_cid), (Some(Op::Reset), 9));
}

#[test]
fn a_length_beyond_the_chain_ends_the_connection() {
    for len in [9, u32::MAX] {
        let mut guest = Guest::new();
        let listener = guest.listener(80);
        let mut peer = guest.connect(&listener, 80);
        let header = Header {
            len,
            ..guest.header(Op::Data, 80)
        };
        guest.send_as(header, b"8 bytes.");
        assert_eq!(guest.ops(), [Op::Reset]);
        assert_eq!(peer.read(&mut [0; 9]).unwrap(), 0);
        assert_eq!(guest.counter("bad_packets"), 1);
    }
}

#[test]
fn a_packet_without_a_whole_header_is_dropped() {
    let mut guest = Guest::new();
    guest.driver.offer(TRANSMIT, &[Piece::readable(SENT, 43)]);
    guest.driver.ring(TRANSMIT);
    assert_eq!(guest.ops(), []);
    assert_eq!(guest.counter("bad_packets"), 1);
    assert!(!guest.driver.needs_reset());
}

#[test]
fn a_guest_that_overruns_its_credit_is_reset() {
    let mut guest = Guest::new();
    let listener = guest.listener(80);
    let _peer = guest.connect(&listener, 80);
    let chunk = vec![5; BUFFER_BYTES as usize];
    while guest.counter("credit_violations") == 0 {
        guest.send_data(80, &chunk);
    }
    assert_eq!(guest.ops().last(), Some(&Op::Reset));
    assert_eq!(guest.counter("connections"), 0);
}

#[test]
fn no_more_is_sent_than_the_guest_can_hold() {
    let mut guest = Guest::new();
    let listener = guest.listener(80);
    let mut request = guest.header(Op::Request, 80);
    request.buf_alloc = 10_000;
    guest.send_as(request, &[]);
    let mut peer = listener.accept().unwrap().0;
    peer.write_all(&[9; 25_000]).unwrap();
    let mut received = 0;
    for expected in [10_000, 20_000, 25_000] {
        received += guest.packets().iter().map(|(h, _)| h.len).sum::<u32>();
        assert_eq!(received, expected);
        let update = Header {
            buf_alloc: 10_000,
            fwd_cnt: received,
            ..guest.header(Op::CreditUpdate, 80)
        };
        guest.send_as(update, &[]);
    }
    // Claims to have read what was never sent: it gets nothing more.
    let lie = Header {
        buf_alloc: 10_000,
        fwd_cnt: received + 1,
        ..guest.header(Op::CreditUpdate, 80)
    };
    guest.send_as(lie, &[]);
    peer.write_all(b"x").unwrap();
    assert_eq!(guest.packets().len(), 0);
}

#[test]
fn a_flood_of_connections_is_refused_beyond_the_bound() {
    let mut guest = Guest::new();
    let listener = guest.listener(80);
    let descriptors = getrlimit(Resource::Nofile).current.unwrap();
    let bound = MAX_CONNECTIONS.min(descriptors / 2);
    let mut refused = 0;
    for port in 0..bound + 50 {
        let header = Header {
            src_port: port as u32,
            ..guest.header(Op::Request, 80)
        };
        guest.send_as(header, &[]);
        // The listener would be full otherwise: its connections stay open.
        listener.set_nonblocking(true).unwrap();
        drop(listener.accept());
        refused += guest.ops().iter().filter(|op| **op == Op::Reset).count() as u64;
    }
    assert_eq!(refused, 50);
    assert_eq!(guest.counter("refused"), 50);
    assert_eq!(guest.counter("connections"), bound);
}

#[test]
fn a_deaf_guest_is_not_listened_to_for_ever() {
    const BOUND: usize = 256;
    let mut guest = Guest::deaf();
    // Each wants an answer, for which there is no buffer.
    let stray = guest.header(Op::Data, 99);
    let taken: usize = (0..BOUND + 100).map(|_| guest.send_as(stray, &[])).sum();
    assert_eq!(taken, BOUND);
    let batches = guest.counter("batches");
    assert!(guest.driver.settle().waiting);
    assert_eq!(guest.counter("batches"), batches + 1);
    guest.listen(32);
    assert_eq!(guest.ops(), vec![Op::Reset; BOUND + 100]);
}

#[test]
fn connections_that_come_and_go_leave_nothing_behind() {
    let mut guest = Guest::deaf();
    let listener = guest.listener(80);
    for _ in 0..500 {
        guest.send(Op::Request, 80);
        guest.send(Op::Reset, 80);
        drop(listener.accept());
    }
    assert_eq!(guest.counter("connections"), 0);
    guest.listen(32);
    assert_eq!(guest.ops(), []);
}

#[test]
fn buffers_without_room_for_data_come_back_unused() {
    let mut guest = Guest::deaf();
    let short = [Piece::writable(RECEIVED, HEADER_BYTES as u32)];
    guest.driver.offer(RECEIVE, &short);
    guest.send(Op::Data, 99);
    assert_eq!(guest.driver.used(RECEIVE), Some((0, 0)));
    assert_eq!(guest.counter("short_buffers"), 1);
}

#[test]
fn chains_in_the_wrong_direction_are_faults() {
    let dir = tempfile::tempdir().unwrap();
    testing::expect_fault(vsock(&dir), TRANSMIT, &[Piece::writable(DATA, 44)]);
    let mut guest = Guest::deaf();
    guest.send(Op::Data, 99);
    guest.driver.offer(RECEIVE, &[Piece::readable(DATA, 100)]);
    assert!(guest.driver.ring(RECEIVE).fault.is_some());
}

#[test]
fn hostile_rings_stop_the_device_until_reset() {
    let dir = tempfile::tempdir().unwrap();
    testing::refuses_hostile_rings(&[TRANSMIT], || vsock(&dir));
}
