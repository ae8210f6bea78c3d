//! Requests that no disk may do.

use slice_abi::device::device_id;

use super::low::load;
use super::verdict::Verdict;
use super::virtio::{Desc, Device};

const SECTOR: u32 = 512;

/// Types of requests (virtio 1.2, 5.2.6).
mod kind {
    pub const IN: u32 = 0;
    pub const OUT: u32 = 1;
    pub const FLUSH: u32 = 4;
    pub const GET_ID: u32 = 8;
    pub const DISCARD: u32 = 11;
    pub const WRITE_ZEROES: u32 = 13;
}

/// The features that some types need.
const F_FLUSH: u64 = 1 << 9;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;

/// What the status byte says.
const DONE: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;
/// Nothing yet.
const UNSET: u8 = 0xff;

/// Rounds of as many flushes as the queue holds.
const STORM: u16 = 20;

/// Does what `case` names; `None` if it is not about disks.
pub fn run(device: &Device, case: &[u8]) -> Option<Verdict> {
    if device.entry.id != device_id::BLOCK {
        return None;
    }
    let device = &device.featuring(device.entry.features & (F_FLUSH | F_DISCARD | F_WRITE_ZEROES));
    requests(device, case).or_else(|| shapes(device, case))
}

/// Requests that are answered with an error.
fn requests(device: &Device, case: &[u8]) -> Option<Verdict> {
    let mut capacity = [0; 8];
    for (at, byte) in (0..).zip(&mut capacity) {
        *byte = device.config(at);
    }
    let end = u64::from_le_bytes(capacity);
    let (kind, sector, len, answer) = match case {
        b"read-beyond-end" => (kind::IN, end, SECTOR, IO_ERROR),
        b"read-over-the-end" => (kind::IN, end - 1, 2 * SECTOR, IO_ERROR),
        b"sector-overflows" => (kind::IN, u64::MAX, SECTOR, IO_ERROR),
        b"sector-overflows-in-bytes" => (kind::IN, u64::MAX / 512 + 1, SECTOR, IO_ERROR),
        b"write-beyond-end" => (kind::OUT, end, SECTOR, IO_ERROR),
        b"write-sector-overflows" => (kind::OUT, u64::MAX, SECTOR, IO_ERROR),
        b"read-of-part-of-a-sector" => (kind::IN, 0, SECTOR - 1, IO_ERROR),
        b"write-of-part-of-a-sector" => (kind::OUT, 0, SECTOR + 1, IO_ERROR),
        b"write-to-read-only" => (kind::OUT, 0, SECTOR, IO_ERROR),
        b"unknown-type" => (77, 0, SECTOR, UNSUPPORTED),
        _ => return ranges(device, case, end),
    };
    device.start();
    Some(Verdict::Refused(
        request(device, kind, sector, len) == answer,
    ))
}

/// Ranges to forget that are not on the disk. The range is in sector units (virtio 1.2, 5.2.6).
fn ranges(device: &Device, case: &[u8], end: u64) -> Option<Verdict> {
    let (kind, first, count, len) = match case {
        b"discard-beyond-end" => (kind::DISCARD, end, 1, 16),
        b"discard-overflows" => (kind::DISCARD, u64::MAX, u32::MAX, 16),
        b"discard-of-part-of-a-range" => (kind::DISCARD, 0, 1, 15),
        b"write-zeroes-over-the-end" => (kind::WRITE_ZEROES, end - 1, 2, 16),
        b"write-zeroes-to-read-only" => (kind::WRITE_ZEROES, 0, 1, 16),
        _ => return None,
    };
    device.start();
    let range = device.data() + 16;
    device.fill(range, &first.to_le_bytes());
    device.fill(range + 8, &u64::from(count).to_le_bytes());
    let answer = request(device, kind, 0, len);
    Some(Verdict::Refused(
        answer == IO_ERROR || answer == UNSUPPORTED,
    ))
}

/// Makes a request and waits for it; its status.
fn request(device: &Device, kind: u32, sector: u64, len: u32) -> u8 {
    let status = prepare(device, kind, sector);
    let (header, payload) = (Desc::text(device.data(), 16), device.data() + 16);
    let payload = match kind {
        kind::IN => Desc::room(payload, len),
        _ => Desc::text(payload, len),
    };
    device.submit_linked(&[header, payload, Desc::room(status, 1)]);
    if !device.await_used(1) {
        UNSET
    } else {
        load(status)
    }
}

/// Writes a header; the address of the status byte.
fn prepare(device: &Device, kind: u32, sector: u64) -> u64 {
    device.fill(device.data(), &kind.to_le_bytes());
    device.fill(device.data() + 4, &[0; 4]);
    device.fill(device.data() + 8, &sector.to_le_bytes());
    let status = device.data() + 0x4000;
    device.fill(status, &[UNSET]);
    status
}

/// Chains that are no requests, and too many requests.
fn shapes(device: &Device, case: &[u8]) -> Option<Verdict> {
    let data = device.data();
    let header = Desc::text(data, 16);
    let room = Desc::room(data + 16, SECTOR);
    match case {
        b"header-short" | b"no-header" => {
            device.start();
            let status = prepare(device, kind::IN, 0);
            let answer = Desc::room(status, 1);
            match case {
                b"header-short" => device.submit_linked(&[Desc::text(data, 15), room, answer]),
                _ => device.submit_linked(&[room, answer]),
            }
            let back = device.await_used(1);
            Some(Verdict::Refused(back && load::<u8>(status) == IO_ERROR))
        }
        b"header-only" | b"status-missing" => {
            device.start();
            prepare(device, kind::OUT, 0);
            let sector = Desc::text(data + 16, SECTOR);
            match case {
                b"header-only" => device.submit_linked(&[header]),
                _ => device.submit_linked(&[header, sector]),
            }
            Some(Verdict::Fails)
        }
        b"id-into-a-short-buffer" => {
            device.start();
            let status = prepare(device, kind::GET_ID, 0);
            device.submit_linked(&[header, Desc::room(data + 16, 3), Desc::room(status, 1)]);
            let back = device.await_used(1);
            Some(Verdict::Refused(back && load::<u8>(status) == IO_ERROR))
        }
        b"flush-storm" => {
            device.start();
            let status = prepare(device, kind::FLUSH, 0);
            let links = [header, Desc::room(status, 1)];
            device.submit_linked(&links);
            for round in 0..STORM {
                for _ in 0..device.size() - 1 {
                    device.queue_again();
                }
                device.notify();
                if !device.await_used(1 + (round + 1) * (device.size() - 1)) {
                    return Some(Verdict::Refused(false));
                }
            }
            Some(Verdict::Refused(load::<u8>(status) == DONE))
        }
        _ => None,
    }
}
