//! What guests send, seen from outside: their frames, and by rules of its own whether those may
//! leave a node.
//!
//! It shares nothing with the monitor's guard, so that both cannot be wrong in the same way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::receiver::Receiver;
use crate::sliver::{Ended, Running, Sliver};
use crate::taps::{self, Tap};

/// The network of all cards, and the gateway in it.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PREFIX: u8 = 24;

/// Time in which a frame that has left is heard.
const UNDER_WAY: Duration = Duration::from_millis(200);

/// A guest's card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Card {
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Its address.
    pub ip: Ipv4Addr,
}

impl Card {
    /// The card of host `number` of the network.
    pub fn of(number: u8) -> Self {
        Self {
            mac: [2, 0, 0, 0, 1, number],
            ip: Ipv4Addr::new(10, 0, 0, number),
        }
    }

    /// As a spec has it.
    pub fn spec(self) -> Value {
        let mac = self.mac.map(|byte| format!("{byte:02x}")).join(":");
        json!({
            "mac": mac,
            "ipv4": format!("{}/{PREFIX}", self.ip),
            "gateway4": GATEWAY.to_string(),
            "ipv6": format!("fd00::{}/64", self.ip.octets()[3]),
            "gateway6": "fe80::1",
        })
    }

    /// Why a frame with this head may not leave this card.
    pub fn forbids(self, frame: &[u8], len: usize) -> Option<&'static str> {
        if frame.len() < 14 {
            return Some("no Ethernet header");
        }
        if frame[6..12] != self.mac {
            return Some("a forged hardware address");
        }
        match (word(frame, 12), &frame[14..]) {
            (0x0800, packet) => self.forbids_ipv4(frame, packet, len - 14),
            (0x0806, packet) => self.forbids_arp(packet),
            // What a guest sends over IPv6 is of one kind: that it is the gateway.
            (0x86dd, packet) => forbids_ipv6(packet),
            _ => Some("another protocol"),
        }
    }

    fn forbids_ipv4(self, frame: &[u8], packet: &[u8], len: usize) -> Option<&'static str> {
        let header = usize::from(packet[0] & 15) * 4;
        let total = usize::from(word(packet, 2));
        if packet[0] >> 4 != 4 || header < 20 || total < header || total > len {
            return Some("a wrong length");
        }
        let [from, to] = [12, 16].map(|at| {
            let octets: [u8; 4] = packet[at..at + 4].try_into().expect("four bytes");
            Ipv4Addr::from(octets)
        });
        if from != self.ip {
            return Some("a forged address");
        }
        if frame[0] & 1 != 0 || to.is_multicast() || to.is_broadcast() || to.octets()[3] == 255 {
            return Some("a packet to many");
        }
        if to.octets()[0] == 0 || to.is_loopback() || to.octets()[0] >= 240 {
            return Some("an address that nobody has");
        }
        let transport = &packet[header.min(packet.len())..];
        match packet[9] {
            6 | 17 if transport.len() < 8 => Some("half a header"),
            6 | 17 if word(transport, 0) == 0 || word(transport, 2) == 0 => Some("port zero"),
            17 if usize::from(word(transport, 4)) != total - header => Some("a wrong length"),
            _ => None,
        }
    }

    fn forbids_arp(self, packet: &[u8]) -> Option<&'static str> {
        let own = packet[8..14] == self.mac && packet[14..18] == self.ip.octets();
        (!own).then_some("a forged address in ARP")
    }
}

fn forbids_ipv6(packet: &[u8]) -> Option<&'static str> {
    const ADVERTISEMENT: u8 = 136;
    (packet[6] == 58 && packet[40] == ADVERTISEMENT).then_some("a forged neighbour")
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// A frame as it was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// When, since 1970.
    pub at: Duration,
    /// Its first bytes.
    pub head: Vec<u8>,
    /// How long it was.
    pub len: usize,
}

impl Frame {
    /// Whom a packet of IPv4 is for, and at which port.
    pub fn destination(&self) -> Option<([u8; 4], u16)> {
        let packet = self.head.get(14..)?;
        let header = usize::from(packet.first()? & 15) * 4;
        let port = packet.get(header + 2..header + 4)?;
        (word(&self.head, 12) == 0x0800)
            .then(|| Some((packet[16..20].try_into().ok()?, word(port, 0))))?
    }
}

/// What came out of a card.
#[derive(Debug)]
pub struct Outside {
    card: Card,
    /// Every frame, in order.
    pub frames: Vec<Frame>,
}

impl Outside {
    /// Frames that should not have left, by why.
    pub fn forbidden(&self) -> BTreeMap<&'static str, usize> {
        let mut found = BTreeMap::new();
        for frame in &self.frames {
            if let Some(why) = self.card.forbids(&frame.head, frame.len) {
                *found.entry(why).or_default() += 1;
            }
        }
        found
    }

    /// Frames that may leave.
    pub fn allowed(&self) -> usize {
        self.frames.len() - self.forbidden().values().sum::<usize>()
    }

    /// Flows of IPv4 that were begun, all from the same port.
    pub fn destinations(&self) -> BTreeSet<([u8; 4], u16)> {
        self.frames.iter().filter_map(Frame::destination).collect()
    }
}

/// Runs guests, each on a card of its own, with these fields in their specs; `watch` is given all
/// of them while they run, and comes back when they need not any more. How each ended, and what came
/// out of its card.
///
/// # Panics
/// If a frame was missed, or one of them does not end.
pub fn run(
    guests: &[(Card, Sliver)],
    fields: &Value,
    watch: impl FnOnce(&mut [Running]),
) -> Vec<(Ended, Outside)> {
    let (taps, ears): (Vec<_>, Vec<_>) = taps::watched(guests.len()).into_iter().unzip();
    let (ended, heard) = run_on(guests, fields, taps, &ears, watch);
    let cards = guests.iter().map(|(card, _)| *card);
    let outside = cards
        .zip(heard)
        .map(|(card, frames)| Outside { card, frames });
    ended.into_iter().zip(outside).collect()
}

/// Runs guests on one node. How each ended, and what came out of the node's uplink by the card that
/// it came from.
///
/// # Panics
/// If a frame was missed or is nobody's, or one of them does not end.
pub fn run_on_node(guests: &[(Card, Sliver)], fields: &Value) -> Vec<(Ended, Outside)> {
    let (taps, ear) = taps::behind_uplink(guests.len());
    let (ended, heard) = run_on(guests, fields, taps, &[ear], |_| {});
    let mut by_card: BTreeMap<[u8; 6], Vec<Frame>> = BTreeMap::new();
    for frame in heard.into_iter().flatten() {
        let from = frame.head[6..12].try_into().expect("six bytes");
        by_card.entry(from).or_default().push(frame);
    }
    let outside: Vec<_> = guests
        .iter()
        .map(|(card, _)| Outside {
            card: *card,
            frames: by_card.remove(&card.mac).unwrap_or_default(),
        })
        .collect();
    assert!(by_card.is_empty(), "frames from nobody: {by_card:?}");
    ended.into_iter().zip(outside).collect()
}

/// Runs guests on these taps, and listens meanwhile.
fn run_on(
    guests: &[(Card, Sliver)],
    fields: &Value,
    taps: Vec<Tap>,
    ears: &[Receiver],
    watch: impl FnOnce(&mut [Running]),
) -> (Vec<Ended>, Vec<Vec<Frame>>) {
    let done = AtomicBool::new(false);
    // An interface lasts as long as its tap is held, and longer than the guest.
    let held: Vec<_> = taps
        .iter()
        .map(|tap| tap.fd.try_clone().expect("a descriptor is copied"))
        .collect();
    let heard = thread::scope(|scope| {
        let ears: Vec<_> = ears
            .iter()
            .map(|ear| scope.spawn(|| listen(ear, &done)))
            .collect();
        // Whatever happens, the listening ends.
        let end = OnDrop(|| done.store(true, Ordering::Relaxed));
        let mut slivers: Vec<_> = guests
            .iter()
            .zip(taps)
            .map(|((card, sliver), tap)| {
                let mut sliver = sliver.clone().field("nets", json!([card.spec()]));
                for (name, value) in fields.as_object().into_iter().flatten() {
                    sliver = sliver.field(name, value.clone());
                }
                sliver.tap(0, tap.fd).spawn()
            })
            .collect();
        watch(&mut slivers);
        let ended = slivers.into_iter().map(Running::wait).collect();
        thread::sleep(UNDER_WAY);
        drop(end);
        let heard = ears.into_iter().map(|ear| ear.join().expect("it listens"));
        (ended, heard.collect())
    });
    drop(held);
    heard
}

fn listen(ear: &Receiver, done: &AtomicBool) -> Vec<Frame> {
    let mut frames = Vec::new();
    loop {
        let last = done.load(Ordering::Relaxed);
        let count = ear.take(UNDER_WAY, |heard| {
            frames.push(Frame {
                at: heard.at,
                head: heard.head.to_vec(),
                len: heard.len,
            });
        });
        if last && count == 0 {
            break;
        }
    }
    assert_eq!(ear.missed(), 0, "frames were missed");
    frames
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
