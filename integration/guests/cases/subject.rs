//! Which device and queue a case is about, and how each is made to do an honest piece of work.

use slice_abi::device::device_id;

use super::console;
use super::status;
use super::virtio::{Desc, Device};
use crate::guest::Guest;

/// The balloon's queue of free pages, where there is none of statistics, and its feature bit (virtio
/// 1.2, 5.5.2 and 5.5.3).
const REPORTING: u32 = 2;
const F_REPORTING: u64 = 1 << 5;

/// Queues of a network card and of a socket device.
pub const RECEIVE: u32 = 0;
pub const TRANSMIT: u32 = 1;

/// The device and queue that `name` means.
pub fn named<'a>(guest: &'a Guest, name: &[u8]) -> Device<'a> {
    let (id, queue) = match name {
        b"" | b"console" => (device_id::CONSOLE, console::TRANSMIT),
        b"net0" => (device_id::NET, TRANSMIT),
        b"net0-receive" => (device_id::NET, RECEIVE),
        b"disk0" => (device_id::BLOCK, 0),
        b"rng" => (device_id::ENTROPY, 0),
        b"vsock" => (device_id::VSOCK, TRANSMIT),
        b"vsock-receive" => (device_id::VSOCK, RECEIVE),
        b"balloon" => (device_id::BALLOON, 0),
        b"balloon-reporting" => {
            return guest
                .device(device_id::BALLOON, REPORTING)
                .featuring(F_REPORTING);
        }
        _ => guest.exit(status::NO_DEVICE),
    };
    guest.device(id, queue)
}

/// Whether the device writes into the chains of this queue.
pub fn is_written(device: &Device) -> bool {
    match device.entry.id {
        device_id::ENTROPY => true,
        device_id::BALLOON => device.queue == REPORTING,
        device_id::NET | device_id::VSOCK => device.queue == RECEIVE,
        _ => false,
    }
}

/// Gives the device an honest chain.
pub fn ask(device: &Device) {
    let at = device.data();
    match device.entry.id {
        _ if is_written(device) => device.submit(&[Desc::room(at, 4096)]),
        device_id::BLOCK => {
            device.fill(at, &[0; 16]); // VIRTIO_BLK_T_IN of sector 0
            let status = at + 16 + 512;
            device.fill(status, &[0xff]);
            device.submit_linked(&[
                Desc::text(at, 16),
                Desc::room(at + 16, 512),
                Desc::room(status, 1),
            ]);
        }
        device_id::BALLOON => {
            let page = (device.guest.heap().end() >> 12) as u32 - 1;
            device.fill(at, &page.to_le_bytes());
            device.submit(&[Desc::text(at, 4)]);
        }
        device_id::NET => {
            let frame = super::net::honest_frame(device);
            device.fill(at, &frame);
            device.submit(&[Desc::text(at, frame.len() as u32)]);
        }
        device_id::VSOCK => {
            let packet = super::vsock::Packet::new(device, super::vsock::op::RST).bytes();
            device.fill(at, &packet);
            device.submit(&[Desc::text(at, packet.len() as u32)]);
        }
        _ => {
            device.fill(at, b"recovered\n");
            device.submit(&[Desc::text(at, 10)]);
        }
    }
}

/// Resets the device, and finds that it does honest work.
pub fn recover(device: &Device) {
    let queue = match device.entry.id {
        device_id::NET | device_id::VSOCK | device_id::CONSOLE => TRANSMIT,
        _ => 0,
    };
    let device = Device::new(device.guest, device.entry, queue);
    device.start();
    ask(&device);
    if !device.await_used(1) {
        device.guest.exit(status::DOES_NOT_WORK_AGAIN);
    }
}
