//! The disk, on a file in memory.
#![no_main]
#![allow(missing_docs, reason = "a program")]

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use serde_json::json;
use vmm::devices::virtio::block::Block;
use vmm::disk::Disk;
use vmm_fuzz::{drive, spec};

static FILE: LazyLock<OwnedFd> = LazyLock::new(|| {
    let file = memfd_create("disk", MemfdFlags::CLOEXEC).expect("a file is made");
    ftruncate(&file, 1 << 20).expect("a file has a size");
    file
});

fuzz_target!(|data: &[u8]| {
    let path = format!("/proc/self/fd/{}", FILE.as_raw_fd());
    let read_only = data.first().is_some_and(|byte| byte % 16 == 0);
    let spec = spec(&json!({ "disks": [{ "path": path, "read_only": read_only }] }));
    let disk = Disk::open(&spec.disks()[0]).expect("it is a disk");
    let block = Block::new(disk, spec.disks()[0].serial(), "disk0");
    drive(data, Box::new(block), |_| {});
});
