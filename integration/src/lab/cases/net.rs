//! A guest's network card, from both sides.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;

use serde_json::json;

use crate::lab::guest::{Guest, PATIENCE, linux};
use crate::lab::inside::Stage;
use crate::lab::part::Part;

const HOST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub(super) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
pub(super) const MASK: &str = "255.255.255.0";
pub(super) const TAP: &str = "lab0";
const PORT: u16 = 7;

/// What goes each way through a stream.
const BYTES: usize = 1 << 20;

/// A tap with an address of the host's.
pub(super) fn tap(stage: &Stage) {
    stage.busybox(&format!("tunctl -t {TAP}"));
    stage.busybox(&format!("ifconfig {TAP} {HOST} netmask {MASK} up"));
}

pub(super) fn both_ways(stage: &Stage) {
    tap(stage);
    let sliver = linux(stage, Part::BzImage, "serve")
        .field("nets", json!([{ "tap": TAP }]))
        .field("guard", json!({ "mode": "off" }));
    let mut guest = Guest::serve(stage, sliver);
    guest.run(&format!("ifconfig eth0 {GUEST} netmask {MASK} up"));
    guest.run(&format!("ping -c 3 -W 10 {HOST}"));
    stage.busybox(&format!("ping -c 3 -W 10 {GUEST}"));
    stage.step("TCP to the guest");
    guest.run(&format!("nc -ll -p {PORT} -e cat & sleep 1"));
    let stream = TcpStream::connect((GUEST, PORT)).expect("the guest listens");
    let content = pattern();
    assert!(
        sent_back(&stream, &content) == content,
        "it came back altered"
    );
    stage.step("TCP from the guest");
    let listener = TcpListener::bind((HOST, PORT)).expect("the port is free");
    let echo = thread::spawn(move || {
        let (mut stream, from) = listener.accept().expect("the guest connects");
        let mut back = stream.try_clone().expect("a socket is copied");
        std::io::copy(&mut stream, &mut back).expect("it is carried");
        back.shutdown(Shutdown::Write).expect("it is connected");
        from.ip()
    });
    guest.run(&format!(
        "head -c {BYTES} /dev/urandom >/sent; nc {HOST} {PORT} </sent >/back"
    ));
    guest.run("cmp /sent /back");
    assert_eq!(echo.join().expect("the echo does not panic"), GUEST);
    guest.type_line("poweroff -f");
    guest.wait().assert_exited(0);
}

fn pattern() -> Vec<u8> {
    (0..BYTES as u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

/// What comes back of what is sent.
fn sent_back(stream: &TcpStream, content: &[u8]) -> Vec<u8> {
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a socket has options");
    let mut to = stream.try_clone().expect("a socket is copied");
    thread::scope(|scope| {
        scope.spawn(move || {
            to.write_all(content).expect("it is taken");
            to.shutdown(Shutdown::Write).expect("it is connected");
        });
        let mut back = Vec::new();
        let mut from = stream;
        from.read_to_end(&mut back).expect("it comes back");
        back
    })
}
