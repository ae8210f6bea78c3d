mod hostile;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use super::packet::shutdown;
use super::*;
use crate::devices::attendant::Attendant;
use crate::devices::virtio::testing::{DATA, Driver, Piece};
use crate::spec::SliverSpec;

const CID: u64 = 7;
const GUEST_PORT: u32 = 1234;
/// Where the guest keeps its packet to send, and its buffers to receive.
const SENT: u64 = DATA;
const RECEIVED: u64 = DATA + (4 << 20);
/// Data that a buffer of the guest holds.
const ROOM: u32 = 4096;
/// What the guest says it can hold.
const GUEST_BUFFER: u32 = 1 << 20;

fn vsock(dir: &tempfile::TempDir) -> Box<dyn Backend> {
    let dir = dir.path().display();
    let text = format!(
        r#"{{"version": 1, "name": "a", "slice": "a_b", "owner": "o", "contact": "c",
            "image": "/i", "vsock": {{"dir": "{dir}", "cid": {CID}}}}}"#
    );
    let spec = SliverSpec::parse(text.as_bytes()).unwrap();
    let spec = spec.vsock().unwrap();
    let socket = GuestSocket::open(spec.dir()).unwrap();
    let listener = socket.as_fd().try_clone_to_owned().unwrap();
    // Its file goes with the directory.
    std::mem::forget(socket);
    Box::new(Vsock::new(spec, listener, spec.dir()).unwrap())
}

/// A guest with a vsock.
struct Guest {
    driver: Driver,
    dir: tempfile::TempDir,
    /// What it says it has read.
    fwd_cnt: u32,
}

impl Guest {
    /// A guest without buffers to receive.
    fn deaf() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            driver: Driver::new(vsock(&dir)),
            dir,
            fwd_cnt: 0,
        }
    }

    fn new() -> Self {
        let mut guest = Self::deaf();
        guest.listen(32);
        guest
    }

    /// Offers so many buffers to receive.
    fn listen(&mut self, buffers: u64) {
        for _ in 0..buffers {
            // Where a buffer lies follows from its descriptor, so that it is found again.
            let head = self.driver.offer(RECEIVE, &[Piece::writable(RECEIVED, 1)]);
            let len = HEADER_BYTES as u32 + ROOM;
            let at = buffer(head);
            self.driver.put_descriptor(RECEIVE, head, (at, len, 2, 0));
        }
        self.driver.ring(RECEIVE);
    }

    fn listener(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.dir.path().join(format!("{port}.sock"))).unwrap()
    }

    /// A program on the host connects to a port of the guest.
    fn call(&self, line: &str) -> UnixStream {
        let mut stream = UnixStream::connect(self.dir.path().join(GUEST_SOCKET)).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        stream
    }

    fn header(&self, op: Op, host_port: u32) -> Header {
        Header {
            src_cid: CID,
            dst_cid: HOST_CID,
            src_port: GUEST_PORT,
            dst_port: host_port,
            len: 0,
            kind: TYPE_STREAM,
            raw_op: op as u16,
            flags: 0,
            buf_alloc: GUEST_BUFFER,
            fwd_cnt: self.fwd_cnt,
        }
    }

    /// Sends a packet whose header says what it says. How many packets were taken.
    fn send_as(&mut self, header: Header, data: &[u8]) -> usize {
        self.driver.write(SENT, &header.encode());
        self.driver.write(SENT + HEADER_BYTES as u64, data);
        let len = (HEADER_BYTES + data.len()) as u32;
        self.driver.offer(TRANSMIT, &[Piece::readable(SENT, len)]);
        let outcome = self.driver.ring(TRANSMIT);
        assert_eq!(outcome.fault, None);
        self.driver.settle();
        self.driver.take_used(TRANSMIT).len()
    }

    fn send(&mut self, op: Op, host_port: u32) {
        self.send_as(self.header(op, host_port), &[]);
    }

    fn send_data(&mut self, host_port: u32, data: &[u8]) {
        let header = Header {
            len: data.len() as u32,
            ..self.header(Op::Data, host_port)
        };
        self.send_as(header, data);
    }

    fn shut(&mut self, host_port: u32, flags: u32) {
        let header = Header {
            flags,
            ..self.header(Op::Shutdown, host_port)
        };
        self.send_as(header, &[]);
    }

    /// What has come since; its buffers are offered again.
    fn packets(&mut self) -> Vec<(Header, Vec<u8>)> {
        self.driver.settle();
        let mut packets = Vec::new();
        loop {
            let used = self.driver.take_used(RECEIVE);
            if used.is_empty() {
                return packets;
            }
            for (head, len) in &used {
                let raw = self.driver.read(buffer(*head), *len as usize);
                let header = Header::parse(raw[..HEADER_BYTES].try_into().unwrap());
                assert_eq!((header.src_cid, header.dst_cid), (HOST_CID, CID));
                assert_eq!(header.len as usize, raw.len() - HEADER_BYTES);
                packets.push((header, raw[HEADER_BYTES..].to_vec()));
            }
            self.listen(used.len() as u64);
            self.driver.settle();
        }
    }

    /// What has come since, without data.
    fn ops(&mut self) -> Vec<Op> {
        let packets = self.packets();
        packets.iter().map(|(h, _)| h.op().unwrap()).collect()
    }

    /// Connects to a port of the host and gives the other end.
    fn connect(&mut self, listener: &UnixListener, port: u32) -> UnixStream {
        self.send(Op::Request, port);
        assert_eq!(self.ops(), [Op::Response]);
        listener.accept().unwrap().0
    }

    fn counter(&self, name: &str) -> u64 {
        self.driver.counter(name)
    }
}

fn buffer(head: u16) -> u64 {
    RECEIVED + u64::from(head) * 8192
}

#[test]
fn a_guest_s_connection_carries_bytes_both_ways() {
    let mut guest = Guest::new();
    let listener = guest.listener(80);
    let mut peer = guest.connect(&listener, 80);
    guest.send_data(80, b"question");
    let mut text = [0; 8];
    peer.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"question");
    peer.write_all(b"answer").unwrap();
    let packets = guest.packets();
    assert_eq!(packets.len(), 1);
    assert_eq!(packets[0].0.op(), Some(Op::Data));
    assert_eq!(
        (packets[0].0.src_port, packets[0].0.dst_port),
        (80, GUEST_PORT)
    );
    assert_eq!(packets[0].0.fwd_cnt, 8);
    assert_eq!(packets[0].1, b"answer");
}

#[test]
fn a_program_on_the_host_reaches_a_port_of_the_guest() {
    let mut guest = Guest::new();
    let mut peer = guest.call("CONNECT 22\nearly");
    let packets = guest.packets();
    let request = packets[0].0;
    assert_eq!((request.op(), request.dst_port), (Some(Op::Request), 22));
    let response = Header {
        src_port: 22,
        dst_port: request.src_port,
        ..guest.header(Op::Response, 0)
    };
    guest.send_as(response, &[]);
    let mut line = vec![0; format!("OK {}\n", request.src_port).len()];
    peer.read_exact(&mut line).unwrap();
    assert_eq!(line, format!("OK {}\n", request.src_port).into_bytes());
    assert_eq!(guest.packets()[0].1, b"early");
}

#[test]
fn a_slow_line_is_waited_for_and_a_wrong_one_is_not() {
    let mut guest = Guest::new();
    let mut slow = guest.call("CONN");
    let mut wrong = guest.call("GET / HTTP/1.1\n");
    assert_eq!(guest.ops(), []);
    // Closed with what it wrote unread, which is told as a reset.
    assert_eq!(
        wrong.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    slow.write_all(b"ECT 5\n").unwrap();
    assert_eq!(guest.ops(), [Op::Request]);
    drop(slow);
    assert_eq!(guest.ops(), [Op::Reset]);
    assert_eq!(guest.counter("connections"), 0);
}

#[test]
fn a_guest_that_refuses_closes_its_caller() {
    let mut guest = Guest::new();
    let mut peer = guest.call("CONNECT 22\n");
    let request = guest.packets()[0].0;
    let reset = Header {
        src_port: 22,
        dst_port: request.src_port,
        ..guest.header(Op::Reset, 0)
    };
    guest.send_as(reset, &[]);
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    assert_eq!(guest.ops(), []);
}

#[test]
fn a_port_where_nobody_listens_is_refused() {
    let mut guest = Guest::new();
    guest.send(Op::Request, 80);
    assert_eq!(guest.ops(), [Op::Reset]);
    assert_eq!(guest.counter("refused"), 1);
}

#[test]
fn a_header_in_pieces_is_read_as_one() {
    let mut guest = Guest::new();
    let _listener = guest.listener(80);
    let header = guest.header(Op::Request, 80);
    guest.driver.write(SENT, &header.encode());
    let pieces: Vec<Piece> = (0..HEADER_BYTES as u64)
        .map(|i| Piece::readable(SENT + i, 1))
        .collect();
    guest.driver.offer(TRANSMIT, &pieces);
    guest.driver.ring(TRANSMIT);
    assert_eq!(guest.ops(), [Op::Response]);
}

#[test]
fn data_for_a_slow_reader_is_held_up_to_the_credit_and_no_further() {
    let mut guest = Guest::new();
    let listener = guest.listener(80);
    let mut peer = guest.connect(&listener, 80);
    let chunk = vec![5; 16 << 10];
    let mut sent = 0u64;
    // The socket takes some; then the device holds what there is credit for.
    let mut told = 0;
    loop {
        for (header, _) in guest.packets() {
            assert_eq!(header.op(), Some(Op::CreditUpdate));
            told = header.fwd_cnt;
        }
        if sent as u32 - told + chunk.len() as u32 > BUFFER_BYTES {
            break;
        }
        guest.send_data(80, &chunk);
        sent += chunk.len() as u64;
    }
    assert_eq!(sent as u32 - told, BUFFER_BYTES);
    let mut received = vec![0; sent as usize];
    let mut len = 0;
    while len < received.len() {
        len += peer.read(&mut received[len..]).unwrap();
        guest.driver.settle();
    }
    assert!(received.iter().all(|&byte| byte == 5));
    assert_eq!(guest.packets().last().unwrap().0.fwd_cnt as u64, sent);
    assert_eq!(guest.counter("credit_violations"), 0);
}

#[test]
fn the_host_s_end_of_a_stream_is_told_and_the_other_direction_goes_on() {
    let mut guest = Guest::new();
    let listener = guest.listener(80);
    let mut peer = guest.connect(&listener, 80);
    peer.write_all(b"last").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    let packets = guest.packets();
    assert_eq!(packets[0].1, b"last");
    assert_eq!(packets[1].0.op(), Some(Op::Shutdown));
    assert_eq!(packets[1].0.flags, shutdown::SEND);
    guest.send_data(80, b"reply");
    guest.shut(80, shutdown::BOTH);
    let mut text = String::new();
    peer.read_to_string(&mut text).unwrap();
    assert_eq!(text, "reply");
    assert_eq!(guest.ops(), [Op::Reset]);
    assert_eq!(guest.counter("connections"), 0);
}

#[test]
fn the_guest_s_end_of_a_stream_is_told_and_the_other_direction_goes_on() {
    let mut guest = Guest::new();
    let listener = guest.listener(80);
    let mut peer = guest.connect(&listener, 80);
    guest.send_data(80, b"request");
    guest.shut(80, shutdown::SEND);
    let mut text = String::new();
    peer.read_to_string(&mut text).unwrap();
    assert_eq!(text, "request");
    peer.write_all(b"reply").unwrap();
    assert_eq!(guest.packets()[0].1, b"reply");
    drop(peer);
    let packets = guest.packets();
    assert_eq!(packets.last().unwrap().0.flags, shutdown::BOTH);
    guest.send(Op::Reset, 80);
    assert_eq!(guest.ops(), []);
    assert_eq!(guest.counter("connections"), 0);
}

#[test]
fn a_guest_that_receives_no_more_stops_its_sender() {
    let mut guest = Guest::new();
    let listener = guest.listener(80);
    let mut peer = guest.connect(&listener, 80);
    guest.shut(80, shutdown::RECEIVE);
    assert_eq!(peer.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    guest.send_data(80, b"still");
    let mut text = [0; 5];
    peer.read_exact(&mut text).unwrap();
    assert!(guest.packets().iter().all(|(header, _)| header.len == 0));
}

#[test]
fn a_host_that_has_gone_is_told_and_later_data_is_no_violation() {
    let mut guest = Guest::new();
    let listener = guest.listener(80);
    drop(guest.connect(&listener, 80));
    let packets = guest.packets();
    assert_eq!(packets.last().unwrap().0.flags, shutdown::BOTH);
    for _ in 0..4 {
        guest.send_data(80, &[1; 60_000]);
    }
    assert_eq!(guest.counter("credit_violations"), 0);
    guest.send(Op::Reset, 80);
    assert_eq!(guest.counter("connections"), 0);
}

#[test]
fn a_guest_without_buffers_leaves_data_where_it_is() {
    let mut guest = Guest::deaf();
    let listener = guest.listener(80);
    guest.send(Op::Request, 80);
    let mut peer = listener.accept().unwrap().0;
    peer.write_all(b"waiting").unwrap();
    assert!(guest.driver.settle().waiting);
    assert_eq!(guest.counter("to_guest_bytes"), 0);
    guest.listen(1);
    assert_eq!(guest.ops(), [Op::Response, Op::Data]);
}

#[test]
fn connections_take_turns() {
    let mut guest = Guest::deaf();
    let listener = guest.listener(80);
    let mut peers = Vec::new();
    for port in [1, 2] {
        let header = Header {
            src_port: port,
            ..guest.header(Op::Request, 80)
        };
        guest.send_as(header, &[]);
        let peer = listener.accept().unwrap().0;
        (&peer).write_all(&[0; 5 * ROOM as usize]).unwrap();
        peers.push(peer);
    }
    guest.listen(12);
    let order: Vec<u32> = guest.packets().iter().map(|(h, _)| h.dst_port).collect();
    assert_eq!(order, [1, 2].repeat(6));
}

#[test]
fn a_reset_of_the_guest_closes_every_connection() {
    let mut guest = Guest::new();
    let listener = guest.listener(80);
    let mut peer = guest.connect(&listener, 80);
    let mut caller = guest.call("CONNECT 1\n");
    guest.packets();
    guest.driver.bring_up(0);
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    assert_eq!(caller.read(&mut [0]).unwrap(), 0);
    assert_eq!(guest.counter("connections"), 0);
    guest.listen(32);
    guest.connect(&listener, 80);
}

#[test]
fn whatever_happens_to_a_socket_wakes_whoever_attends() {
    let mut guest = Guest::new();
    let attendant = Attendant::new().unwrap();
    attendant
        .watch(0, 0, guest.driver.device.sources()[0])
        .unwrap();
    let wakes = || {
        let mut count = 0;
        let forever = Some(Duration::from_secs(60));
        attendant.wait(forever, None, |_| count += 1).unwrap();
        attendant.wait(Some(Duration::ZERO), None, |_| {}).unwrap();
        count > 0
    };
    let mut peer = guest.call("CONNECT 22\n");
    assert!(wakes());
    let request = guest.packets()[0].0;
    let response = Header {
        src_port: 22,
        dst_port: request.src_port,
        ..guest.header(Op::Response, 0)
    };
    guest.send_as(response, &[]);
    assert!(peer.read(&mut [0; 32]).unwrap() > 3);
    for _ in 0..3 {
        peer.write_all(b"x").unwrap();
        assert!(wakes());
        assert_eq!(guest.ops(), [Op::Data]);
    }
    drop(peer);
    assert!(wakes());
    assert_eq!(guest.ops(), [Op::Shutdown]);
}

#[test]
fn the_guest_is_told_its_number() {
    let guest = Guest::new();
    let mut config = [0; 8];
    guest.driver.device.read(0x100, &mut config);
    assert_eq!(u64::from_le_bytes(config), CID);
}
