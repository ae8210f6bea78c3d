//! The balloon.
#![no_main]
#![allow(missing_docs, reason = "a program")]

use libfuzzer_sys::fuzz_target;
use vmm::devices::virtio::balloon::{Balloon, PAGE_BYTES, parse, runs};
use vmm_fuzz::{RAM, drive};

fuzz_target!(|data: &[u8]| {
    let ranges = runs(parse(data));
    assert!(ranges.windows(2).all(|pair| pair[0].end() < pair[1].start));
    let bytes: u64 = ranges.iter().map(|range| range.len).sum();
    assert!(bytes <= data.len() as u64 / 4 * PAGE_BYTES);
    drive(data, Box::new(Balloon::new(0, RAM.len)), |_| {});
});
