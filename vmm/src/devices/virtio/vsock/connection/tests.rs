use super::super::credit::BUFFER_BYTES;
use super::*;
use proptest::prelude::*;

const CID: u64 = 3;
const PORTS: Ports = Ports {
    host: 80,
    guest: 1024,
};

fn packet(op: Op) -> Header {
    Header {
        src_cid: CID,
        dst_cid: HOST_CID,
        src_port: PORTS.guest,
        dst_port: PORTS.host,
        len: 0,
        kind: TYPE_STREAM,
        raw_op: op as u16,
        flags: 0,
        buf_alloc: 1000,
        fwd_cnt: 0,
    }
}

fn receive(connection: &mut Connection, op: Op) -> Result<Arrival, Breach> {
    connection.receive(&packet(op), op)
}

fn open() -> Connection {
    let mut connection = Connection::accepted(PORTS, &packet(Op::Request));
    let response = connection.pay(CID).unwrap();
    assert_eq!(response.op(), Some(Op::Response));
    assert_eq!((response.src_port, response.dst_port), (80, 1024));
    assert_eq!(response.buf_alloc, BUFFER_BYTES);
    connection
}

fn shut(connection: &mut Connection, flags: u32) -> Result<Arrival, Breach> {
    let header = Header {
        flags,
        ..packet(Op::Shutdown)
    };
    connection.receive(&header, Op::Shutdown)
}

#[test]
fn a_guest_that_accepts_opens_the_connection_once() {
    let mut connection = Connection::asking(PORTS);
    assert_eq!(
        receive(&mut connection, Op::Response),
        Err(Breach::Protocol)
    );
    assert_eq!(connection.pay(CID).unwrap().op(), Some(Op::Request));
    assert_eq!(connection.pay(CID), None);
    assert_eq!(connection.room(), 0);
    assert_eq!(receive(&mut connection, Op::Data), Err(Breach::Protocol));
    assert_eq!(
        receive(&mut connection, Op::Response),
        Ok(Arrival::Accepted)
    );
    assert_eq!(connection.room(), 1000);
    assert_eq!(
        receive(&mut connection, Op::Response),
        Err(Breach::Protocol)
    );
}

#[test]
fn a_second_request_breaks_the_connection() {
    assert_eq!(receive(&mut open(), Op::Request), Err(Breach::Protocol));
}

#[test]
fn data_beyond_the_credit_breaks_the_connection() {
    let mut connection = open();
    let data = |len| Header {
        len,
        ..packet(Op::Data)
    };
    assert_eq!(
        connection.receive(&data(BUFFER_BYTES), Op::Data),
        Ok(Arrival::Data)
    );
    assert_eq!(connection.receive(&data(1), Op::Data), Err(Breach::Credit));
    assert_eq!(
        open().receive(&data(u32::MAX), Op::Data),
        Err(Breach::Credit)
    );
}

#[test]
fn only_data_packets_carry_data() {
    for op in [Op::Shutdown, Op::CreditUpdate, Op::CreditRequest, Op::Reset] {
        let header = Header {
            len: 1,
            ..packet(op)
        };
        assert_eq!(open().receive(&header, op), Err(Breach::Protocol));
    }
}

#[test]
fn a_guest_that_will_not_send_still_receives() {
    let mut connection = open();
    assert_eq!(shut(&mut connection, shutdown::SEND), Ok(Arrival::Shut));
    assert_eq!(connection.room(), 1000);
    assert_eq!(receive(&mut connection, Op::Data), Err(Breach::Protocol));
    assert!(!connection.is_finished());
}

#[test]
fn a_guest_that_will_not_receive_is_sent_nothing() {
    let mut connection = open();
    assert_eq!(shut(&mut connection, shutdown::RECEIVE), Ok(Arrival::Shut));
    assert_eq!(connection.room(), 0);
    connection.miss_room();
    assert!(!connection.owes());
    assert_eq!(receive(&mut connection, Op::Data), Ok(Arrival::Data));
}

#[test]
fn a_guest_that_is_done_is_reset_after_its_data_was_taken() {
    let mut connection = open();
    let data = Header {
        len: 10,
        ..packet(Op::Data)
    };
    connection.receive(&data, Op::Data).unwrap();
    shut(&mut connection, shutdown::SEND).unwrap();
    shut(&mut connection, shutdown::RECEIVE | 0x100).unwrap();
    assert!(!connection.is_finished());
    connection.forward(10);
    assert!(connection.is_finished());
}

#[test]
fn each_change_of_what_the_host_will_do_is_told_once() {
    let mut connection = open();
    connection.shut_host(shutdown::SEND);
    assert_eq!(connection.pay(CID).unwrap().flags, shutdown::SEND);
    assert_eq!(connection.pay(CID), None);
    connection.shut_host(shutdown::BOTH);
    assert_eq!(connection.pay(CID).unwrap().flags, shutdown::BOTH);
    assert_eq!(connection.pay(CID), None);
}

#[test]
fn credit_is_asked_for_once_each_time_it_is_missing() {
    let mut connection = open();
    assert_eq!(connection.send(CID, 1000).len, 1000);
    for fwd_cnt in [1000, 2000] {
        connection.miss_room();
        assert_eq!(connection.pay(CID).unwrap().op(), Some(Op::CreditRequest));
        connection.miss_room();
        assert_eq!(connection.pay(CID), None);
        let update = Header {
            fwd_cnt,
            ..packet(Op::CreditUpdate)
        };
        connection.receive(&update, Op::CreditUpdate).unwrap();
        connection.send(CID, 1000);
    }
}

#[test]
fn a_request_for_credit_is_answered() {
    let mut connection = open();
    receive(&mut connection, Op::CreditRequest).unwrap();
    let update = connection.pay(CID).unwrap();
    assert_eq!(update.op(), Some(Op::CreditUpdate));
    assert_eq!((update.buf_alloc, update.fwd_cnt), (BUFFER_BYTES, 0));
    assert_eq!(connection.pay(CID), None);
}

proptest! {
    #[test]
    fn whatever_comes_the_bounds_hold(
        asked in any::<bool>(),
        steps in prop::collection::vec(
            (1u16..8, 0u32..1 << 17, any::<u32>(), any::<u32>(), any::<u32>()), 0..60),
    ) {
        let mut connection = if asked {
            Connection::asking(PORTS)
        } else {
            Connection::accepted(PORTS, &packet(Op::Request))
        };
        for (raw_op, len, flags, buf_alloc, fwd_cnt) in steps {
            let header = Header { raw_op, len, flags, buf_alloc, fwd_cnt, ..packet(Op::Data) };
            let op = header.op().unwrap();
            if connection.receive(&header, op).is_err() {
                break;
            }
            prop_assert!(connection.held() <= BUFFER_BYTES);
            prop_assert!(connection.room() <= buf_alloc);
            connection.send(CID, connection.room());
            connection.miss_room();
            connection.forward(flags.min(connection.held()));
            let mut paid = 0;
            while connection.pay(CID).is_some() {
                paid += 1;
                prop_assert!(paid < 6);
            }
        }
    }
}
