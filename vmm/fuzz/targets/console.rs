//! The console, between sockets that are now and then full or closed.
#![no_main]
#![allow(missing_docs, reason = "a program")]

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use vmm::devices::input::Input;
use vmm::devices::output::Output;
use vmm::devices::virtio::console::Console;
use vmm_fuzz::{drive, spec};

fuzz_target!(|data: &[u8]| {
    let (mut ours, theirs) = UnixStream::pair().expect("a socket pair is made");
    ours.set_nonblocking(true).expect("a socket can be");
    let twin = theirs.try_clone().expect("a descriptor is copied");
    let input = Input::new(OwnedFd::from(twin).into());
    let output = Output::new(OwnedFd::from(theirs).into());
    let spec = spec(&json!({}));
    let console = Console::new(output, Some(input), spec.console());
    drive(data, Box::new(console), |input| {
        let mut bytes = [0; 4096];
        match input.arbitrary::<u8>().unwrap_or(0) {
            0..100 => drop(ours.read(&mut bytes)),
            100..250 => drop(ours.write(&bytes[..usize::from(input.arbitrary().unwrap_or(1u8))])),
            _ => drop(ours.shutdown(std::net::Shutdown::Both)),
        }
    });
});
