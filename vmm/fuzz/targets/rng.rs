//! The entropy device.
#![no_main]
#![allow(missing_docs, reason = "a program")]

use libfuzzer_sys::fuzz_target;
use vmm::devices::virtio::rng::Rng;
use vmm_fuzz::drive;

fuzz_target!(|data: &[u8]| drive(data, Box::new(Rng::new()), |_| {}));
