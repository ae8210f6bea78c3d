//! Packets that no socket device may follow.

use slice_abi::device::device_id;

use super::low::load;
use super::subject::{RECEIVE, TRANSMIT};
use super::verdict::Verdict;
use super::virtio::{Desc, Device};

/// What a packet is for (virtio 1.2, 5.10.6).
pub mod op {
    pub const REQUEST: u16 = 1;
    pub const RESPONSE: u16 = 2;
    pub const RST: u16 = 3;
    pub const RW: u16 = 5;
    pub const CREDIT_REQUEST: u16 = 7;
}

const HOST_CID: u64 = 2;
const STREAM: u16 = 1;

/// Bytes of a packet's header.
const HEADER: usize = 44;
/// Bytes of room for each packet of the host.
const ROOM: u32 = 4096;
/// Connections asked for, more than a device has.
const FLOOD: u32 = 1100;
/// Packets that are together more than any socket holds and more than the credit.
const CREDIT_ROUNDS: u16 = 20;

/// A packet's header.
#[derive(Clone, Copy)]
pub struct Packet {
    pub src_cid: u64,
    pub dst_cid: u64,
    pub src_port: u32,
    pub dst_port: u32,
    pub len: u32,
    pub kind: u16,
    pub op: u16,
    pub buf_alloc: u32,
    pub fwd_cnt: u32,
}

impl Packet {
    /// An honest one to the host's port 1.
    pub fn new(device: &Device, op: u16) -> Self {
        let mut cid = [0; 8];
        for (at, byte) in (0..).zip(&mut cid) {
            *byte = device.config(at);
        }
        Self {
            src_cid: u64::from_le_bytes(cid),
            dst_cid: HOST_CID,
            src_port: 1000,
            dst_port: 1,
            len: 0,
            kind: STREAM,
            op,
            buf_alloc: 1 << 16,
            fwd_cnt: 0,
        }
    }

    pub fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&self.src_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.dst_cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.src_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.dst_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.kind.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.op.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buf_alloc.to_le_bytes());
        bytes[40..].copy_from_slice(&self.fwd_cnt.to_le_bytes());
        bytes
    }
}

/// Does what `case` names; `None` if it is not about socket devices.
pub fn run(device: &Device, case: &[u8]) -> Option<Verdict> {
    if device.entry.id != device_id::VSOCK {
        return None;
    }
    match device.queue {
        TRANSMIT => packets(device, case).or_else(|| crowds(device, case)),
        _ => receive(device, case),
    }
}

/// Packets that are dropped, or answered with a reset.
fn packets(device: &Device, case: &[u8]) -> Option<Verdict> {
    let honest = Packet::new(device, op::REQUEST);
    // Bytes of the chain; the data that follow a header are zeros.
    let (packet, len, answered) = match case {
        b"short-header" => (honest, HEADER - 1, false),
        b"forged-sender" => (
            Packet {
                src_cid: honest.src_cid + 1,
                ..honest
            },
            HEADER,
            false,
        ),
        b"forged-as-the-host" => (
            Packet {
                src_cid: HOST_CID,
                ..honest
            },
            HEADER,
            false,
        ),
        b"to-nobody" => (
            Packet {
                dst_cid: 77,
                ..honest
            },
            HEADER,
            true,
        ),
        b"to-itself" => (
            Packet {
                dst_cid: honest.src_cid,
                ..honest
            },
            HEADER,
            true,
        ),
        b"unknown-operation" => (Packet { op: 99, ..honest }, HEADER, true),
        b"unknown-type" => (Packet { kind: 2, ..honest }, HEADER, true),
        b"length-beyond-the-chain" => (
            Packet {
                op: op::RW,
                len: 100,
                ..honest
            },
            HEADER + 99,
            true,
        ),
        b"length-wraps" => (
            Packet {
                op: op::RW,
                len: u32::MAX,
                ..honest
            },
            HEADER + 64,
            true,
        ),
        b"request-with-data" => (Packet { len: 64, ..honest }, HEADER + 64, true),
        b"data-without-a-connection" => (
            Packet {
                op: op::RW,
                len: 64,
                ..honest
            },
            HEADER + 64,
            true,
        ),
        b"credit-without-a-connection" => (
            Packet {
                op: op::CREDIT_REQUEST,
                ..honest
            },
            HEADER,
            true,
        ),
        b"nobody-listens" => (
            Packet {
                dst_port: 2,
                ..honest
            },
            HEADER,
            true,
        ),
        _ => return None,
    };
    let receive = start(device);
    send(device, &packet, len);
    if !device.await_used(1) {
        return Some(Verdict::Refused(false));
    }
    Some(Verdict::Refused(match answered {
        true => receive.await_used(1) && answer(&receive) == op::RST,
        false => receive.used_idx() == 0,
    }))
}

/// Brings both queues up, with room for packets; gives the one for receiving.
fn start<'a>(device: &Device<'a>) -> Device<'a> {
    let receive = device.on(RECEIVE);
    device.start_with(&[RECEIVE, TRANSMIT]);
    for index in 0..receive.size() {
        receive.describe(index.into(), &Desc::room(room(&receive, index), ROOM));
        receive.queue_one(index);
    }
    receive.notify();
    receive
}

fn room(receive: &Device, index: u16) -> u64 {
    receive.data() + (1 << 20) + u64::from(index) * u64::from(ROOM)
}

/// What the last packet for the guest is for.
fn answer(receive: &Device) -> u16 {
    let last = receive.used_idx().wrapping_sub(1) % receive.size();
    load(room(receive, last) + 30)
}

fn send(device: &Device, packet: &Packet, len: usize) {
    device.fill(device.data(), &packet.bytes());
    device.submit(&[Desc::text(device.data(), len as u32)]);
}

/// Too much of what is right.
fn crowds(device: &Device, case: &[u8]) -> Option<Verdict> {
    let honest = Packet::new(device, op::REQUEST);
    match case {
        // More connections than there may be, to a program that takes all of them, with answers
        // read; or with none read, when no more is taken at some point.
        b"connection-flood" | b"connection-flood-unread" => {
            let unread = case == b"connection-flood-unread";
            if unread {
                device.start();
            } else {
                start(device);
            }
            for port in 0..FLOOD {
                let packet = Packet {
                    src_port: port,
                    ..Packet::new(device, op::REQUEST)
                };
                send(device, &packet, HEADER);
                let taken = unread || device.await_used(port as u16 + 1);
                if !taken || device.needs_reset() {
                    return Some(Verdict::Refused(false));
                }
                if !unread {
                    replenish(&device.on(RECEIVE));
                }
                if unread && port >= u32::from(device.size()) {
                    break;
                }
            }
            Some(Verdict::Refused(true))
        }
        b"refusals-unread" => {
            device.start();
            for _ in 0..device.size() * 8 {
                send(
                    device,
                    &Packet {
                        dst_port: 2,
                        ..Packet::new(device, op::REQUEST)
                    },
                    HEADER,
                );
            }
            Some(Verdict::Refused(!device.needs_reset()))
        }
        b"more-than-the-credit" => {
            let receive = start(device);
            send(device, &honest, HEADER);
            if !receive.await_used(1) || answer(&receive) != op::RESPONSE {
                return Some(Verdict::Refused(false));
            }
            // Nobody reads there: what the socket and the device hold is soon full.
            let len = 60 << 10;
            for round in 1..=CREDIT_ROUNDS {
                send(
                    device,
                    &Packet {
                        op: op::RW,
                        len,
                        ..Packet::new(device, op::RW)
                    },
                    HEADER + len as usize,
                );
                if !device.await_used(1 + round) {
                    return Some(Verdict::Refused(false));
                }
            }
            Some(Verdict::Refused(
                answer(&receive) == op::RST && !device.needs_reset(),
            ))
        }
        b"requested-twice" => {
            let receive = start(device);
            send(device, &honest, HEADER);
            let taken = receive.await_used(1) && answer(&receive) == op::RESPONSE;
            send(device, &Packet::new(device, op::REQUEST), HEADER);
            Some(Verdict::Refused(
                taken && receive.await_used(2) && answer(&receive) == op::RST,
            ))
        }
        _ => None,
    }
}

/// Gives back to the device the room that it has used.
fn replenish(receive: &Device) {
    while receive.avail_idx() != receive.used_idx().wrapping_add(receive.size()) {
        receive.queue_one(receive.avail_idx() % receive.size());
    }
}

/// Room for packets that cannot take them: the device is made to answer.
fn receive(device: &Device, case: &[u8]) -> Option<Verdict> {
    let transmit = device.on(TRANSMIT);
    device.start_with(&[RECEIVE, TRANSMIT]);
    let request = Packet {
        dst_port: 2,
        ..Packet::new(device, op::REQUEST)
    };
    let data = device.data() + 4096;
    match case {
        b"buffer-to-be-read" => {
            device.submit(&[Desc::text(data, 4096)]);
            send(&transmit, &request, HEADER);
            Some(Verdict::Fails)
        }
        b"buffer-without-room-for-a-header" => {
            device.submit(&[Desc::room(data, 44)]);
            send(&transmit, &request, HEADER);
            let back = device.await_used(1);
            Some(Verdict::Refused(
                back && device.used_len(0) == 0 && !device.needs_reset(),
            ))
        }
        _ => None,
    }
}
