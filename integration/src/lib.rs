//! Fixture of the integration tests: slivers of real guests on `/dev/kvm`, in a few lines each.
//!
//! [`artifacts`] builds what is run, [`sliver`] runs it, [`client`] steers it, [`ended`] tells how it
//! ended, [`outlet`] reads its output now and then, [`elf`] makes image files that nobody would ship.
//! [`hostile`] runs guests that misbehave by the dozen, [`taps`] connects their network cards,
//! [`receiver`] hears every frame that comes out of them, [`egress`] judges those; [`netns`] makes
//! networks of their own, [`way_out`] a node's way to the outside in such.
//! [`cpu_time`] tells what a monitor uses of the processors, as the host sees it.
//! [`service`] runs an example that serves, [`http`] and [`kv`] are clients of such. [`lab`] is a host
//! for Linux guests wherever there is none.
//! A test that needs KVM begins with [`needs_kvm!`].

pub mod artifacts;
pub mod cli;
pub mod client;
pub mod cpu_time;
pub mod egress;
pub mod elf;
pub mod ended;
pub mod guests;
pub mod hostile;
pub mod http;
pub mod kv;
pub mod lab;
pub mod netns;
pub mod outlet;
pub mod pss;
pub mod receiver;
pub mod service;
pub mod sliver;
pub mod taps;
mod tcp;
pub mod way_out;

use std::fs::OpenOptions;
use std::io::{self, Write};

/// Leaves a test out, visibly, where the environment says that there is no KVM; see
/// [`kvm_or_left_out`].
#[macro_export]
macro_rules! needs_kvm {
    () => {
        if !$crate::kvm_or_left_out() {
            return;
        }
    };
}

/// Whether this test can run. Without a usable `/dev/kvm` it fails, unless `SLICEVISOR_NO_KVM=1`
/// says that this is known: then it is left out, and says so on standard error.
///
/// # Panics
/// If `/dev/kvm` cannot be used and that was not announced.
pub fn kvm_or_left_out() -> bool {
    if std::env::var_os("SLICEVISOR_NO_KVM").is_some_and(|value| value == "1") {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test");
        // Not `eprintln!`: the test harness would swallow it.
        let line = format!("left out, needs /dev/kvm: {test}\n");
        let _ = io::stderr().write_all(line.as_bytes());
        return false;
    }
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        panic!("/dev/kvm: {error} (`slicectl doctor` helps; SLICEVISOR_NO_KVM=1 leaves this out)");
    }
    true
}
