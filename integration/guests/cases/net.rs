//! Frames that no network card may take, and buffers that no frame fits into.

use slice_abi::device::device_id;

use super::subject::RECEIVE;
use super::verdict::Verdict;
use super::virtio::{Desc, Device};

/// Bytes of the header before each frame (virtio 1.2, 5.1.6).
const HEADER: usize = 12;
/// The shortest frame without its checksum.
const FRAME: usize = 60;
/// EtherType for experiments (IEEE 802).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Feature bits (virtio 1.2, 5.1.3).
const F_CSUM: u64 = 1 << 0;
const F_HOST_TSO4: u64 = 1 << 11;
const F_MRG_RXBUF: u64 = 1 << 15;

/// Header flag: the checksum is missing.
const NEEDS_CSUM: u8 = 1;
/// Header type: TCP over IPv4, to be cut.
const GSO_TCPV4: u8 = 1;

/// Rounds of as many frames as the queue holds.
const ROUNDS: u16 = 20;

/// An ordinary frame to everybody, with its header.
pub fn honest_frame(device: &Device) -> [u8; HEADER + FRAME] {
    let mut bytes = [0; HEADER + FRAME];
    let frame = &mut bytes[HEADER..];
    frame[..6].fill(0xff);
    for (at, byte) in (0..).zip(&mut frame[6..12]) {
        *byte = device.config(at);
    }
    frame[12..14].copy_from_slice(&ETHERTYPE);
    bytes
}

/// Does what `case` names; `None` if it is not about network cards.
pub fn run(device: &Device, case: &[u8]) -> Option<Verdict> {
    if device.entry.id != device_id::NET {
        return None;
    }
    match device.queue {
        RECEIVE => receive(device, case),
        _ => frames(device, case).or_else(|| shapes(device, case)),
    }
}

/// Frames that are dropped and given back.
fn frames(device: &Device, case: &[u8]) -> Option<Verdict> {
    let mut bytes = honest_frame(device);
    let (header, frame) = bytes.split_at_mut(HEADER);
    let mut checksum_at = |start: u16, offset: u16| {
        header[0] = NEEDS_CSUM;
        header[6..8].copy_from_slice(&start.to_le_bytes());
        header[8..10].copy_from_slice(&offset.to_le_bytes());
    };
    let (features, len) = match case {
        b"empty-chain-but-a-byte" => (0, 1),
        b"no-header" => (0, HEADER - 1),
        b"header-only" => (0, HEADER),
        b"half-an-ethernet-header" => (0, HEADER + 13),
        b"oversized" => (0, 4000),
        b"gigantic" => (0, 1 << 20),
        b"checksum-outside" => {
            checksum_at(FRAME as u16, 16);
            (F_CSUM, HEADER + FRAME)
        }
        b"checksum-wraps" => {
            checksum_at(u16::MAX, u16::MAX);
            (F_CSUM, HEADER + FRAME)
        }
        b"checksum-not-negotiated" => {
            checksum_at(14, 16);
            (0, HEADER + FRAME)
        }
        b"segments-not-negotiated" => {
            checksum_at(34, 16);
            (header[1], header[4]) = (GSO_TCPV4, 100);
            (F_CSUM, HEADER + FRAME)
        }
        b"segments-of-nothing" => {
            checksum_at(34, 16);
            header[1] = GSO_TCPV4;
            (F_CSUM | F_HOST_TSO4, HEADER + FRAME)
        }
        b"segments-of-a-byte" => {
            checksum_at(34, 16);
            (header[1], header[4]) = (GSO_TCPV4, 1);
            (F_CSUM | F_HOST_TSO4, HEADER + FRAME)
        }
        b"segments-of-an-unknown-kind" => {
            checksum_at(34, 16);
            (header[1], header[4]) = (99, 100);
            (F_CSUM | F_HOST_TSO4, HEADER + FRAME)
        }
        b"forged-source" => {
            frame[11] ^= 1;
            (0, HEADER + FRAME)
        }
        _ => return None,
    };
    let device = device.featuring(features);
    device.start();
    device.fill(device.data(), &bytes);
    device.submit(&[Desc::text(device.data(), len as u32)]);
    let back = device.await_used(1);
    Some(Verdict::Refused(back && !device.needs_reset()))
}

/// Chains that carry no frame, and more of them than anybody takes.
fn shapes(device: &Device, case: &[u8]) -> Option<Verdict> {
    let data = device.data();
    match case {
        b"both-directions" => {
            device.start();
            device.fill(data, &honest_frame(device));
            device.submit_linked(&[
                Desc::text(data, (HEADER + FRAME) as u32),
                Desc::room(data + 4096, 64),
            ]);
            Some(Verdict::Fails)
        }
        b"full-rings" => {
            device.start();
            device.fill(data, &honest_frame(device));
            device.describe(0, &Desc::text(data, (HEADER + FRAME) as u32));
            for round in 1..=ROUNDS {
                for _ in 0..device.size() {
                    device.queue_again();
                }
                device.notify();
                if !device.await_used(round * device.size()) {
                    return Some(Verdict::Refused(false));
                }
            }
            Some(Verdict::Refused(true))
        }
        _ => None,
    }
}

/// Buffers for frames, while the host sends frames all the time.
fn receive(device: &Device, case: &[u8]) -> Option<Verdict> {
    let data = device.data();
    match case {
        b"buffer-without-room-for-a-header" => {
            device.start();
            device.submit(&[Desc::room(data, HEADER as u32 - 1)]);
            Some(Verdict::Fails)
        }
        b"buffers-too-short-for-frames" => {
            device.start();
            device.describe(0, &Desc::room(data, HEADER as u32 + 16));
            for _ in 0..device.size() {
                device.queue_again();
            }
            device.notify();
            // Without merged buffers no frame fits: none may be cut off to make it fit.
            device.guest.rest_for(200_000_000);
            Some(Verdict::Refused(
                device.used_idx() == 0 && !device.needs_reset(),
            ))
        }
        b"merged-buffers-that-are-the-ring" => {
            let device = device.featuring(F_MRG_RXBUF);
            device.start();
            device.describe(0, &Desc::room(device.table() + 16, 3000));
            for _ in 0..device.size() {
                device.queue_again();
            }
            device.notify();
            device.guest.rest_for(200_000_000);
            Some(Verdict::Bears)
        }
        b"no-buffers" => {
            device.start();
            device.notify();
            device.guest.rest_for(200_000_000);
            Some(Verdict::Refused(
                device.used_idx() == 0 && !device.needs_reset(),
            ))
        }
        _ => None,
    }
}
