//! What a guest sends that has never heard of manners: forged addresses, ports that are none, probes
//! of everybody. What comes of it is looked at from outside.
//!
//!     egress OWN-ADDRESS PEER COUNT KIND...   COUNT frames of each kind
//!     egress-pairs OWN-ADDRESS MILLISECONDS   probes of 10.0.0.1 to .64, one port after the other
//!     egress-flood udp|tcp BYTES              as many frames as the card takes, for ever

use slice_abi::device::device_id;

use super::packets::{Frame, Packets};
use super::status;
use super::subject::TRANSMIT;
use super::virtio::{Desc, Device};
use crate::guest::Guest;

/// Feature bits (virtio 1.2, 5.1.3).
const F_CSUM: u64 = 1 << 0;
const F_HOST_TSO4: u64 = 1 << 11;

/// Hosts that are probed: 10.0.0.1 and those that follow.
const HOSTS: u8 = 64;

/// How long a card that is held back may take for a frame, in rests of a millisecond.
const PATIENCE: u32 = 60_000;

impl Guest {
    /// Does what `case` names.
    pub fn egress(&self, case: &[u8]) {
        match case {
            b"egress" => self.send_kinds(),
            b"egress-pairs" => self.probe_all(),
            _ => self.flood_egress(),
        }
    }

    fn send_kinds(&self) {
        let card = self.device(device_id::NET, TRANSMIT);
        card.start();
        let packets = Packets::of(&card, self.address(1), self.address(2));
        for index in 4.. {
            let kind = self.argument(index);
            if kind.is_empty() {
                break;
            }
            let Some(frame) = packets.named(kind) else {
                self.exit(status::UNKNOWN_CASE);
            };
            for _ in 0..self.number(3) {
                send(&card, &frame);
            }
        }
    }

    /// A new flow with each frame, in no order that anybody could take for a conversation.
    fn probe_all(&self) {
        let card = self.device(device_id::NET, TRANSMIT);
        card.start();
        let own = self.address(1);
        let end = self.now() + self.number(2) * 1_000_000;
        for port in 1.. {
            for host in (1..=HOSTS).filter(|&host| host != own[3]) {
                if self.now() >= end {
                    return;
                }
                let packets = Packets::of(&card, own, [10, 0, 0, host]);
                send(&card, &packets.udp(4000, port));
            }
        }
    }

    fn flood_egress(&self) -> ! {
        let bytes = self.number(2) as usize;
        let card = self.device(device_id::NET, TRANSMIT);
        let card = match self.argument(1) {
            b"tcp" => card.featuring(F_CSUM | F_HOST_TSO4),
            _ => card,
        };
        card.start();
        let packets = Packets::of(&card, [10, 0, 0, 2], [10, 0, 0, 1]);
        let frame = match self.argument(1) {
            b"tcp" => packets.segments_of(bytes),
            _ => packets.datagram_of(bytes),
        };
        // What follows the headers is whatever lies there.
        card.fill(card.data(), frame.bytes());
        card.describe(0, &Desc::text(card.data(), Frame::with_header(bytes)));
        loop {
            let held = card.avail_idx().wrapping_sub(card.used_idx());
            if held <= card.size() / 2 {
                for _ in held..card.size() {
                    card.queue_again();
                }
                card.notify();
            } else {
                self.rest_for(1_000_000);
            }
        }
    }

    /// An IPv4 address.
    fn address(&self, argument: usize) -> [u8; 4] {
        let mut address = [0; 4];
        let parts = self.argument(argument).split(|&byte| byte == b'.');
        for (to, part) in address.iter_mut().zip(parts) {
            *to = part.iter().fold(0, |number: u8, digit| {
                number.wrapping_mul(10).wrapping_add(digit - b'0')
            });
        }
        address
    }
}

/// Sends a frame and waits until the card has taken it.
fn send(card: &Device, frame: &Frame) {
    card.fill(card.data(), frame.bytes());
    card.submit(&[Desc::text(card.data(), frame.bytes().len() as u32)]);
    for _ in 0..PATIENCE {
        if card.used_idx() == card.avail_idx() {
            return;
        }
        card.guest.rest_for(1_000_000);
    }
    card.guest.exit(status::NOT_TAKEN);
}
