//! The socket device, with a program that serves port 1 and one that calls.
#![no_main]
#![allow(missing_docs, reason = "a program")]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use tempfile::TempDir;
use vmm::devices::virtio::vsock::{GUEST_SOCKET, GuestSocket, Vsock};
use vmm::spec::SliverSpec;
use vmm_fuzz::{Unstructured, drive, spec};

static PLACE: LazyLock<(TempDir, UnixListener, SliverSpec)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a directory is made");
    let listener = UnixListener::bind(dir.path().join("1.sock")).expect("a socket is bound");
    listener.set_nonblocking(true).expect("a socket can be");
    let spec = spec(&json!({ "vsock": { "dir": dir.path() } }));
    (dir, listener, spec)
});

fuzz_target!(|data: &[u8]| {
    let (dir, listener, spec) = &*PLACE;
    while listener.accept().is_ok() {}
    let spec = spec.vsock().expect("there is one");
    let socket = GuestSocket::open(spec.dir()).expect("it is made");
    let guests = socket.as_fd().try_clone_to_owned().expect("it is copied");
    let vsock = Vsock::new(spec, guests, spec.dir()).expect("it is made");
    let mut streams: Vec<UnixStream> = Vec::new();
    drive(data, Box::new(vsock), |input| {
        if streams.len() < 8 {
            streams.extend(listener.accept().ok().map(|(stream, _)| stream));
            if input.ratio(1, 4).unwrap_or(false) {
                streams.extend(UnixStream::connect(dir.path().join(GUEST_SOCKET)));
            }
        }
        for stream in &mut streams {
            let _ = stream.set_nonblocking(true);
            act(input, stream);
        }
        if input.ratio(1, 8).unwrap_or(false) {
            streams.pop();
        }
    });
});

fn act(input: &mut Unstructured, stream: &mut UnixStream) {
    let mut bytes = [7; 5000];
    // A program's streams may be in any state.
    match input.arbitrary::<u8>().unwrap_or(0) % 8 {
        0 | 1 => drop(stream.read(&mut bytes)),
        2 => drop(stream.write(b"CONNECT 1\n")),
        3 => drop(stream.write(&bytes)),
        4 => {
            let len = usize::from(input.arbitrary::<u8>().unwrap_or(0) % 40);
            drop(stream.write(input.bytes(len).unwrap_or_default()));
        }
        5 => drop(stream.shutdown(Shutdown::Write)),
        6 => drop(stream.shutdown(Shutdown::Read)),
        _ => {}
    }
}
