//! Streams between a guest and unix sockets of the host.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use serde_json::json;

use crate::lab::guest::{Guest, PATIENCE, linux};
use crate::lab::inside::Stage;
use crate::lab::part::Part;
use crate::sliver::new_place;

pub(super) fn both_ways(stage: &Stage) {
    let place = new_place();
    let listener = UnixListener::bind(place.path().join("80.sock")).expect("a socket is made");
    let sliver = linux(stage, Part::BzImage, "serve");
    let mut guest = Guest::serve(stage, sliver.field("vsock", json!({ "dir": place.path() })));
    let host = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the guest connects");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a socket has options");
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("it is text");
        stream.write_all(b"welcome").expect("it is taken");
        said
    });
    let answer = guest.run("lab-guest vsock-say 80 hello");
    assert_eq!(answer.trim(), "welcome");
    assert_eq!(host.join().expect("the host does not panic"), "hello");
    stage.step("from the host");
    guest.type_line("lab-guest vsock-echo 22");
    guest.expect("listening");
    let stream = UnixStream::connect(place.path().join("guest.sock")).expect("it listens");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a socket has options");
    let mut to = &stream;
    to.write_all(b"CONNECT 22\n").expect("it is taken");
    let mut from = BufReader::new(&stream);
    let mut answer = String::new();
    from.read_line(&mut answer).expect("it is text");
    assert!(answer.starts_with("OK "), "{answer:?}");
    to.write_all(b"there and back").expect("it is taken");
    stream.shutdown(Shutdown::Write).expect("it is connected");
    let mut back = String::new();
    from.read_to_string(&mut back).expect("it is text");
    assert_eq!(back, "there and back");
    guest.expect("lab: status 0");
    guest.type_line("poweroff -f");
    guest.wait().assert_exited(0);
}
