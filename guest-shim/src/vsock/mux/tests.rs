use super::*;

const CID: u64 = 3;

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// A packet from the host.
fn from_host(key: Key, op: u16) -> Header {
    Header {
        src_cid: HOST_CID,
        dst_cid: CID,
        src_port: key.there,
        dst_port: key.here,
        kind: STREAM,
        op,
        buf_alloc: 1000,
        ..Header::default()
    }
}

/// Operations, flags and payloads of all that is to be sent.
fn sent(mux: &mut Mux) -> Vec<(u16, u32, Vec<u8>)> {
    let packets = core::iter::from_fn(|| mux.next_out());
    packets
        .map(|packet| {
            let (header, payload) = Header::parse(&packet).unwrap();
            assert_eq!((header.src_cid, header.dst_cid), (CID, HOST_CID));
            (header.op, header.flags, payload.to_vec())
        })
        .collect()
}

/// A connection that the host made.
fn open() -> (Mux, Key) {
    let mut mux = Mux::new(CID);
    mux.listen(7).unwrap();
    let key = Key { here: 7, there: 99 };
    assert_eq!(mux.accept(7, &context()), Poll::Pending);
    mux.receive(&from_host(key, op::REQUEST), &[]);
    assert_eq!(mux.accept(7, &context()), Poll::Ready(key));
    assert_eq!(sent(&mut mux), [(op::RESPONSE, 0, vec![])]);
    (mux, key)
}

fn read(mux: &mut Mux, key: Key) -> Poll<Result<Vec<u8>>> {
    let mut bytes = [0; 100];
    mux.read(key, &mut bytes, &context())
        .map_ok(|count| bytes[..count].to_vec())
}

#[test]
fn what_has_ended_in_order_has_done_so_also_after_the_device_has_lost_all_connections() {
    let (mut mux, key) = open();
    let mut end = from_host(key, op::SHUTDOWN);
    end.flags = shutdown::BOTH;
    mux.receive(&end, &[]);
    mux.reset(CID);
    assert_eq!(read(&mut mux, key), Poll::Ready(Ok(vec![])));
}

#[test]
fn bytes_go_both_ways_and_then_it_ends_in_order() {
    let (mut mux, key) = open();
    assert_eq!(read(&mut mux, key), Poll::Pending);
    mux.receive(&from_host(key, op::RW), b"in");
    assert_eq!(read(&mut mux, key), Poll::Ready(Ok(b"in".to_vec())));
    assert_eq!(mux.write(key, b"out", &context()), Poll::Ready(Ok(3)));
    mux.shut_down(key).unwrap();
    assert_eq!(
        mux.write(key, b"x", &context()),
        Poll::Ready(Err(Error::Closed))
    );
    mux.receive(&from_host(key, op::RW), b"last");
    let end = Header {
        flags: shutdown::BOTH,
        ..from_host(key, op::SHUTDOWN)
    };
    mux.receive(&end, &[]);
    assert_eq!(read(&mut mux, key), Poll::Ready(Ok(b"last".to_vec())));
    assert_eq!(read(&mut mux, key), Poll::Ready(Ok(vec![])));
    mux.close(key);
    assert_eq!(
        sent(&mut mux),
        [
            (op::RW, 0, b"out".to_vec()),
            (op::SHUTDOWN, shutdown::NO_SEND, vec![]),
            (op::RST, 0, vec![])
        ]
    );
    assert!(mux.connections.is_empty());
}

#[test]
fn a_connection_closed_here_is_forgotten_when_the_host_agrees() {
    let (mut mux, key) = open();
    mux.close(key);
    assert_eq!(sent(&mut mux), [(op::SHUTDOWN, shutdown::BOTH, vec![])]);
    mux.receive(&from_host(key, op::RW), b"late");
    mux.receive(&from_host(key, op::RST), &[]);
    assert!(mux.connections.is_empty() && !mux.has_out());
}

#[test]
fn a_connect_is_answered_or_refused() {
    let mut mux = Mux::new(CID);
    let first = mux.connect(5);
    let second = mux.connect(5);
    assert_ne!(first, second);
    assert_eq!(sent(&mut mux).len(), 2);
    assert_eq!(mux.connected(first, &context()), Poll::Pending);
    mux.receive(&from_host(first, op::RESPONSE), &[]);
    mux.receive(&from_host(second, op::RST), &[]);
    assert_eq!(mux.connected(first, &context()), Poll::Ready(Ok(())));
    assert_eq!(
        mux.connected(second, &context()),
        Poll::Ready(Err(Error::ConnectionRefused))
    );
}

#[test]
fn no_more_is_sent_than_there_is_room_for() {
    let (mut mux, key) = open();
    let bytes = [1; 1500];
    assert_eq!(mux.write(key, &bytes, &context()), Poll::Ready(Ok(1000)));
    assert_eq!(mux.write(key, &bytes, &context()), Poll::Pending);
    assert_eq!(mux.write(key, &bytes, &context()), Poll::Pending);
    let ops: Vec<u16> = sent(&mut mux).iter().map(|packet| packet.0).collect();
    assert_eq!(ops, [op::RW, op::CREDIT_REQUEST]);
    let more = Header {
        fwd_cnt: 400,
        ..from_host(key, op::CREDIT_UPDATE)
    };
    mux.receive(&more, &[]);
    assert_eq!(mux.write(key, &bytes, &context()), Poll::Ready(Ok(400)));
    // A host that takes back what it promised is sent nothing.
    let less = Header {
        buf_alloc: 10,
        ..more
    };
    mux.receive(&less, &[]);
    assert_eq!(mux.write(key, &bytes, &context()), Poll::Pending);
}

#[test]
fn a_host_that_sends_more_than_there_is_room_for_is_reset() {
    let (mut mux, key) = open();
    let piece = vec![1; 64 << 10];
    for _ in 0..4 {
        mux.receive(&from_host(key, op::RW), &piece);
    }
    assert!(!mux.has_out());
    mux.receive(&from_host(key, op::RW), &[1]);
    assert_eq!(sent(&mut mux), [(op::RST, 0, vec![])]);
}

#[test]
fn the_host_learns_in_time_that_there_is_room_again() {
    let (mut mux, key) = open();
    let piece = vec![1; 64 << 10];
    let mut told = 0;
    for round in 0..20 {
        mux.receive(&from_host(key, op::RW), &piece);
        let mut bytes = vec![0; 64 << 10];
        assert_eq!(
            mux.read(key, &mut bytes, &context()),
            Poll::Ready(Ok(64 << 10))
        );
        while let Some(packet) = mux.next_out() {
            let (header, _) = Header::parse(&packet).unwrap();
            assert_eq!(header.op, op::CREDIT_UPDATE);
            assert_eq!(header.fwd_cnt, (round + 1) * (64 << 10));
            told += 1;
        }
    }
    assert_eq!(told, 10, "once for every half of the room");
}

#[test]
fn what_is_not_for_anybody_here_is_refused_once() {
    let mut mux = Mux::new(CID);
    let key = Key { here: 1, there: 2 };
    mux.receive(&from_host(key, op::RW), b"?");
    mux.receive(&from_host(key, op::REQUEST), &[]);
    mux.receive(&from_host(key, op::RST), &[]);
    let forged = Header {
        src_cid: 9,
        ..from_host(key, op::RW)
    };
    mux.receive(&forged, &[]);
    assert_eq!(sent(&mut mux), vec![(op::RST, 0, vec![]); 2]);
    assert!(mux.connections.is_empty());
    for there in 0..10_000 {
        mux.receive(&from_host(Key { here: 1, there }, op::RW), &[]);
    }
    assert!(sent(&mut mux).len() <= 2 * OUT_MAX);
}

#[test]
fn a_listener_takes_only_so_many_and_closes_those_nobody_took() {
    let mut mux = Mux::new(CID);
    mux.listen(7).unwrap();
    assert_eq!(mux.listen(7), Err(Error::AddressInUse));
    for there in 0..=BACKLOG as u32 {
        mux.receive(&from_host(Key { here: 7, there }, op::REQUEST), &[]);
        let expected = match there {
            ..128 => op::RESPONSE,
            _ => op::RST,
        };
        assert_eq!(sent(&mut mux), [(expected, 0, vec![])]);
    }
    assert_eq!(mux.connections.len(), BACKLOG);
    mux.unlisten(7);
    let closed = sent(&mut mux);
    assert_eq!(
        closed,
        vec![(op::SHUTDOWN, shutdown::BOTH, vec![]); BACKLOG]
    );
}

#[test]
fn a_reset_of_the_device_ends_all() {
    let (mut mux, key) = open();
    assert_eq!(mux.write(key, b"x", &context()), Poll::Ready(Ok(1)));
    mux.reset(4);
    assert!(!mux.has_out());
    assert_eq!(
        read(&mut mux, key),
        Poll::Ready(Err(Error::ConnectionReset))
    );
    mux.close(key);
    assert!(mux.connections.is_empty());
}
