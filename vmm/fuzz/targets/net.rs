//! The network card, in front of a real tap.
#![no_main]
#![allow(missing_docs, reason = "a program")]

use std::os::fd::OwnedFd;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use vmm::devices::virtio::net::Net;
use vmm::net::tap::Tap;
use vmm::spec::SliverSpec;
use vmm_fuzz::{drive, spec, taps};

static SPEC: LazyLock<SliverSpec> = LazyLock::new(|| {
    // The first six bytes of a frame's source are easily guessed.
    spec(&json!({ "nets": [{ "mac": "02:00:00:00:00:00" }] }))
});
static TAP: LazyLock<(OwnedFd, OwnedFd)> = LazyLock::new(taps);

fuzz_target!(|data: &[u8]| {
    let (tun, host) = &*TAP;
    let tap = Tap::from_fd(tun.try_clone().expect("a descriptor is copied"));
    let tap = tap.expect("it is a tap");
    // What an earlier input has sent is none of this one's.
    let mut frame = [0; 70_000];
    while rustix::io::read(tun, &mut frame).is_ok() {}
    let net = Net::new(tap, &SPEC.nets()[0], "net0".to_owned());
    drive(data, Box::new(net), |input| {
        let len = 14 + usize::from(input.arbitrary::<u16>().unwrap_or(0)) % 1500;
        let mut frame = vec![0xff; len];
        let _ = input.fill_buffer(&mut frame[6..14]);
        // A full tap drops it.
        let _ = rustix::io::write(host, &frame);
    });
});
