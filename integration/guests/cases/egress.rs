//! What a guest sends that has never heard of manners: forged addresses, ports that are none, probes
//! of everybody. What comes of it is looked at from outside.
//!
//!     egress OWN-ADDRESS PEER COUNT KIND...   COUNT frames of each kind; `stay` is none: it rests
//!     egress-pairs OWN-ADDRESS MILLISECONDS   probes of 10.0.0.2 to .65, one port after the other from 0
//!                                             on, and in between of the address that nobody has
//!     egress-flood udp|tcp BYTES              as many frames as the card takes, for ever
//!     egress-told OWN-ADDRESS PEER KIND       one frame of a kind, and it is told why it did not go
//!     egress-listen                           takes whatever comes, for ever

use core::ops::RangeInclusive;

use slice_abi::device::device_id;

use super::low::load;
use super::packets::{Frame, Packets};
use super::status;
use super::subject::{RECEIVE, TRANSMIT};
use super::virtio::{Desc, Device, reg};
use crate::guest::Guest;

/// Feature bits (virtio 1.2, 5.1.3).
const F_CSUM: u64 = 1 << 0;
const F_HOST_TSO4: u64 = 1 << 11;
/// The same (virtio 1.2, 6).
const F_EVENT_IDX: u64 = 1 << 29;

/// Hosts that are probed, of 10.0.0.0/24.
const HOSTS: RangeInclusive<u8> = 2..=65;

/// Where buffers for frames are, behind those for sending, and bytes of each.
const BEHIND: u64 = 1 << 16;
const RECEIVED: u64 = 2048;

/// How long a card that is held back may take for a frame, in rests of a millisecond.
const PATIENCE: u32 = 60_000;

impl Guest {
    /// Does what `case` names.
    pub fn egress(&self, case: &[u8]) {
        match case {
            b"egress" => self.send_kinds(),
            b"egress-pairs" => self.probe_all(),
            b"egress-told" => self.await_refusal(),
            b"egress-listen" => self.listen(|_| {}),
            _ => self.flood_egress(),
        }
    }

    fn send_kinds(&self) {
        let card = self.device(device_id::NET, TRANSMIT);
        card.start();
        let packets = Packets::of(&card, self.address(1), self.address(2));
        for index in 4.. {
            let kind = self.argument(index);
            match kind {
                b"" => break,
                b"stay" => loop {
                    self.rest(None);
                },
                _ => {}
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
        let to = |host: u8| Packets::of(&card, own, [10, 0, 0, host]);
        let unset = Packets::of(&card, own, [0; 4]);
        for port in 0.. {
            send(&card, &unset.udp(4000, 9000));
            for host in HOSTS.filter(|&host| host != own[3]) {
                if self.now() >= end {
                    return;
                }
                send(&card, &to(host).udp(4000, port));
            }
        }
    }

    fn flood_egress(&self) -> ! {
        let bytes = self.number(2) as usize;
        let card = self.device(device_id::NET, TRANSMIT);
        let card = match self.argument(1) {
            b"tcp" => card.featuring(F_EVENT_IDX | F_CSUM | F_HOST_TSO4),
            _ => card.featuring(F_EVENT_IDX),
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
        let half = card.size() / 2;
        loop {
            let used = card.used_idx();
            for _ in card.avail_idx().wrapping_sub(used)..card.size() {
                card.queue_again();
            }
            // It is woken when half of them have gone, and not for each.
            card.ask_for(used.wrapping_add(half));
            card.notify();
            if card.used_idx().wrapping_sub(used) <= half {
                self.rest_for(100_000_000);
            }
        }
    }

    /// Sends a frame, and ends when it is told that this was prohibited.
    fn await_refusal(&self) {
        let card = self.device(device_id::NET, TRANSMIT);
        card.start_with(&[RECEIVE, TRANSMIT]);
        let packets = Packets::of(&card, self.address(1), self.address(2));
        let Some(frame) = packets.named(self.argument(3)) else {
            self.exit(status::UNKNOWN_CASE);
        };
        card.fill(card.data(), frame.bytes());
        card.submit(&[Desc::text(card.data(), frame.bytes().len() as u32)]);
        self.listen(|heard| {
            if is_refusal(heard, self.address(1)) {
                self.exit(0);
            }
        });
    }

    /// Takes frames for ever. The card is brought up unless it is.
    fn listen(&self, each: impl Fn(u64)) -> ! {
        let card = self.device(device_id::NET, RECEIVE);
        if card.read(reg::STATUS) == 0 {
            card.start();
        }
        let room = |index: u16| card.data() + BEHIND + u64::from(index) * RECEIVED;
        for index in 0..card.size() {
            card.describe(index.into(), &Desc::room(room(index), RECEIVED as u32));
            card.queue_one(index);
        }
        card.notify();
        let mut taken: u16 = 0;
        loop {
            while taken != card.used_idx() {
                let head = card.used_head(taken);
                each(room(head));
                card.queue_one(head);
                taken = taken.wrapping_add(1);
            }
            card.notify();
            // What comes ends its rest; it does not look for it.
            self.rest_for(100_000_000);
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

/// Whether what was received says that something is administratively prohibited (RFC 792, and RFC
/// 1812, 5.2.7.1), and is for this address.
fn is_refusal(received: u64, own: [u8; 4]) -> bool {
    let byte = |at: u64| load::<u8>(received + 12 + at);
    let to = [30, 31, 32, 33].map(byte);
    let [high, low, protocol, kind, code] = [12, 13, 23, 34, 35].map(byte);
    (high, low, protocol, kind, code) == (8, 0, 1, 3, 13) && to == own
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
