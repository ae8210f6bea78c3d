use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::*;
use crate::task::block_on;

/// A disk of 64 KiB, each sector filled with its number.
fn disk() -> Disk {
    let file = memfd_create("disk", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, 64 << 10).unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let disk = backend::Disk::open("disk0".to_string(), Path::new(&path)).unwrap();
    let disk = Disk(Arc::new(disk));
    let content: Vec<u8> = (0..64 << 10).map(|i: u32| (i / 512) as u8).collect();
    block_on(disk.write_at(0, &content)).unwrap();
    disk
}

fn read(disk: &Disk, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    block_on(disk.read_at(offset, &mut bytes)).unwrap();
    bytes
}

#[test]
fn what_is_written_is_read_back_and_nothing_else_changes() {
    let disk = disk();
    assert_eq!(disk.size(), 64 << 10);
    block_on(disk.write_at(1024, &[7; 1024])).unwrap();
    block_on(disk.flush()).unwrap();
    assert_eq!(
        read(&disk, 512, 2048),
        [[1; 512], [7; 512], [7; 512], [4; 512]].concat()
    );
    let (result, buffer) = block_on(disk.read_owned(1536, Buffer::zeroed(512)));
    assert_eq!((result, &buffer[..]), (Ok(()), &[7; 512][..]));
}

#[test]
fn zeroes_are_written_and_ranges_discarded() {
    let disk = disk();
    block_on(disk.write_zeroes(512..1536)).unwrap();
    assert_eq!(
        read(&disk, 0, 2048),
        [[0; 512], [0; 512], [0; 512], [3; 512]].concat()
    );
    block_on(disk.discard(2048..4096)).unwrap();
    assert_eq!(read(&disk, 4096, 512), [8; 512]);
    block_on(disk.discard(0..0)).unwrap();
}

#[test]
fn a_request_that_cannot_be_is_refused_and_tells_why() {
    let disk = disk();
    let refused = |result: Result<(), Error>| result.unwrap_err().to_string();
    assert_eq!(
        refused(block_on(disk.read_at(100, &mut [0; 512]))),
        "disk0: 512 bytes at 100 are not whole sectors of 512 bytes"
    );
    assert_eq!(
        refused(block_on(disk.write_at(0, &[0; 100]))),
        "disk0: 100 bytes at 0 are not whole sectors of 512 bytes"
    );
    assert_eq!(
        refused(block_on(disk.read_at(65_024, &mut [0; 1024]))),
        "disk0: 1024 bytes at 65024 are beyond its end at 65536"
    );
    let (result, buffer) = block_on(disk.read_owned(u64::MAX - 511, Buffer::zeroed(512)));
    assert!(matches!(
        result.unwrap_err().kind(),
        ErrorKind::OutOfRange { .. }
    ));
    assert_eq!(buffer.len(), 512);
    assert_eq!(
        Disk::open("nowhere").unwrap_err().to_string(),
        "nowhere: there is no disk with this name or serial"
    );
}

#[test]
fn buffers_begin_where_devices_like_it() {
    for (len, alignment) in [(512, 512), (4096, 4096), (10_240, 4096)] {
        let buffer = Buffer::zeroed(len);
        assert!(buffer.address().is_multiple_of(alignment));
        assert!(buffer.iter().all(|&byte| byte == 0) && buffer.len() == len);
    }
    assert!(Buffer::zeroed(0).is_empty());
}
