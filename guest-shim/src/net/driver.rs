//! The driver of a virtio network card (virtio 1.2, 5.1): one pair of queues.
//!
//! Frames are written and read where the device reads and writes them. A round of the stack is
//! shown to the device at once, and a doorbell is rung only when the vCPU does not rest after it.
//! What the device has sent ends no rest unless somebody waits for the room. A device that fails
//! or breaks the rules is reset, a few times; what was under way is lost.
#![allow(unsafe_code, reason = "a device reads and writes memory")]

#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec;

use slice_abi::device::DeviceState;

use super::card::{Card, Frame, Properties, Receiver, Transmitter};
use super::inbox::Inbox;
use super::outbox::{Offloads, Outbox, Parcel};
use crate::virtio::mmio::{Device, F_EVENT_IDX, F_VERSION_1, Setup, Window};
use crate::virtio::ring::Parts;
use crate::virtio::state::{Config, needs_reset};
use crate::virtio::virtq::{Buffer, Queue, Tell};

/// Feature bits (5.1.3).
mod feature {
    pub(super) const CSUM: u64 = 1 << 0;
    pub(super) const GUEST_CSUM: u64 = 1 << 1;
    pub(super) const MTU: u64 = 1 << 3;
    pub(super) const MAC: u64 = 1 << 5;
    pub(super) const GUEST_TSO4: u64 = 1 << 7;
    pub(super) const GUEST_TSO6: u64 = 1 << 8;
    pub(super) const HOST_TSO4: u64 = 1 << 11;
    pub(super) const HOST_TSO6: u64 = 1 << 12;
    pub(super) const MRG_RXBUF: u64 = 1 << 15;
}

/// Offsets in the configuration space (5.1.4).
const CONFIG_MAC: usize = 0;
const CONFIG_MTU: usize = 10;

const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;

/// Packets of a card that does not say how long they can be.
const USUAL_MTU: usize = 1500;

/// The shortest longest packet that IPv4 works with (RFC 791).
const LEAST_MTU: usize = 576;

/// More than an Ethernet header, a tag, and the header of a virtio card.
const HEADERS: usize = 32;

/// Slots for frames on their way in: half a page for one packet each, or a page where long frames
/// come in several.
const SLOT: usize = 2048;
const SLOT_OF_MANY: usize = 4096;

/// Memory for frames on their way out; more where they are long.
const OUTBOX: usize = 256 << 10;
const OUTBOX_OF_LONG: usize = 512 << 10;

/// The longest frame that the device takes apart.
const LONGEST: usize = 65535 + 14;

/// Resets after which a device is given up.
const RESETS: u8 = 8;

/// What is known of a card without asking it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer {
    pub(crate) features: u64,
    pub(crate) queue_size_max: u32,
    pub(crate) state: &'static DeviceState,
}

/// A card.
pub(crate) struct VirtioCard<W> {
    /// None when it is given up.
    device: Option<Device<W>>,
    state: &'static DeviceState,
    features: u64,
    resets_left: u8,
    properties: Properties,
    incoming: Incoming,
    outgoing: Outgoing,
}

struct Incoming {
    queue: Queue,
    inbox: Inbox,
    /// The slot of each chain, by its head.
    slots: Box<[u16]>,
}

struct Outgoing {
    queue: Queue,
    outbox: Outbox,
    /// The parcel of each chain, by its head.
    parcels: Box<[u64]>,
}

impl<W: Window> VirtioCard<W> {
    /// Brings a card up. One without a hardware address gets one made of `seed`.
    pub(crate) fn open(window: W, offer: &Offer, seed: u64) -> Self {
        let features = choose(offer.features);
        let has = |feature| features & feature != 0;
        let config = Config::read(offer.state);
        let mtu = if has(feature::MTU) {
            usize::from(config.u16(CONFIG_MTU)).max(LEAST_MTU)
        } else {
            USUAL_MTU
        };
        let [_, _, _, a, b, c, d, e] = seed.to_be_bytes();
        let given = has(feature::MAC).then(|| config.bytes(CONFIG_MAC));
        let mac = given.filter(is_unicast).unwrap_or([2, a, b, c, d, e]);
        let offloads = Offloads {
            checksum: has(feature::CSUM),
            segments4: has(feature::HOST_TSO4),
            segments6: has(feature::HOST_TSO6),
        };
        let mergeable = has(feature::MRG_RXBUF);
        let slot = match mergeable {
            true if has(feature::GUEST_TSO4 | feature::GUEST_TSO6) => SLOT_OF_MANY,
            true => SLOT,
            false => (mtu + HEADERS).next_multiple_of(64).max(SLOT),
        };
        let queue = || Queue::new(Parts::on_heap(offer.queue_size_max), features);
        let mut incoming = Incoming::new(queue(), slot, mergeable);
        let mut outgoing = Outgoing::new(queue(), mtu, offloads);
        let device = start(window, features, &mut incoming, &mut outgoing);
        Self {
            device: Some(device),
            state: offer.state,
            features,
            resets_left: RESETS,
            properties: Properties {
                mac,
                mtu,
                checksums: offloads.checksum,
                segments4: offloads.segments4,
            },
            incoming,
            outgoing,
        }
    }

    /// Has a failed device begin again.
    fn revive(&mut self) {
        let Some(device) = self.device.take() else {
            return;
        };
        let window = device.reset();
        self.incoming.forget();
        self.outgoing.forget();
        if self.resets_left > 0 {
            self.resets_left -= 1;
            let (incoming, outgoing) = (&mut self.incoming, &mut self.outgoing);
            self.device = Some(start(window, self.features, incoming, outgoing));
        }
    }
}

/// Sets a device in reset going.
fn start<W: Window>(
    window: W,
    features: u64,
    incoming: &mut Incoming,
    outgoing: &mut Outgoing,
) -> Device<W> {
    outgoing.queue.ask(Tell::Never);
    incoming.publish();
    let mut setup = Setup::negotiate(window, features);
    setup.queue(RECEIVE, incoming.queue.ring());
    setup.queue(TRANSMIT, outgoing.queue.ring());
    setup.start()
}

impl<W: Window + Send> Card for VirtioCard<W> {
    fn properties(&self) -> Properties {
        self.properties
    }

    fn split(&mut self) -> (&mut dyn Receiver, &mut dyn Transmitter) {
        (&mut self.incoming, &mut self.outgoing)
    }

    fn publish(&mut self) {
        self.incoming.refill();
        self.outgoing.publish();
        let broken = self.incoming.queue.is_broken() || self.outgoing.queue.is_broken();
        if broken || needs_reset(self.state) {
            self.revive();
        }
    }

    fn ring(&mut self) {
        let Some(device) = &self.device else { return };
        if self.incoming.queue.wants_doorbell() {
            device.notify(RECEIVE);
        }
        if self.outgoing.queue.wants_doorbell() {
            device.notify(TRANSMIT);
        }
    }

    fn rest(&mut self, room: bool) -> bool {
        let queue = &mut self.outgoing.queue;
        // Half of it at once: there is more to send.
        let half = (queue.ring().size() - queue.room()).div_ceil(2);
        let has_room = match room && half > 0 {
            true => queue.ask(Tell::After(half)),
            false => queue.ask(Tell::Never),
        };
        self.incoming.queue.ask(Tell::AT_NEXT) || has_room
    }
}

impl Incoming {
    fn new(queue: Queue, slot: usize, mergeable: bool) -> Self {
        let slots = queue.ring().size();
        Self {
            queue,
            inbox: Inbox::new(slots, slot, mergeable),
            slots: vec![0; slots.into()].into(),
        }
    }

    /// After a reset all slots are free.
    fn forget(&mut self) {
        self.queue.renew();
        self.inbox.clear();
    }

    /// Gives the device all free slots once there are many of them.
    fn refill(&mut self) {
        if self.inbox.free() * 4 >= self.slots.len() {
            self.publish();
        }
    }

    fn publish(&mut self) {
        while self.queue.room() > 0
            && let Some((slot, address, length)) = self.inbox.give()
        {
            let chain = [Buffer {
                address,
                length,
                device_writes: true,
            }];
            // SAFETY: the inbox leaves a slot alone until it is taken back, and lasts as long as
            // the card, which lasts as long as the sliver.
            if let Ok(head) = unsafe { self.queue.add(&chain) } {
                self.slots[usize::from(head)] = slot;
            }
        }
        self.queue.publish();
    }
}

impl Receiver for Incoming {
    fn front(&mut self) -> Option<Frame<'_>> {
        while let Some(done) = self.queue.pop() {
            let slot = self.slots[usize::from(done.head)];
            // SAFETY: the slot was given with this chain. A device of the ABI has written what it
            // says it has, and the queue bounds that by the slot's length.
            unsafe { self.inbox.take(slot, done.written) };
        }
        self.inbox.front()
    }

    fn drop_front(&mut self) {
        self.inbox.drop_front();
    }
}

impl Outgoing {
    fn new(queue: Queue, mtu: usize, offloads: Offloads) -> Self {
        let (capacity, longest) = if offloads.segments4 || offloads.segments6 {
            (OUTBOX_OF_LONG, LONGEST)
        } else {
            (OUTBOX.max(4 * mtu), mtu + HEADERS)
        };
        Self {
            parcels: vec![0; queue.ring().size().into()].into(),
            queue,
            outbox: Outbox::new(capacity, longest, offloads),
        }
    }

    /// After a reset nothing is under way.
    fn forget(&mut self) {
        self.queue.renew();
        self.outbox.clear();
    }

    fn reclaim(&mut self) {
        while let Some(done) = self.queue.pop() {
            self.outbox.release(self.parcels[usize::from(done.head)]);
        }
    }

    fn publish(&mut self) {
        self.reclaim();
        while self.queue.room() > 0
            && let Some(parcel) = self.outbox.take()
        {
            self.add(parcel);
        }
        self.queue.publish();
    }

    fn add(&mut self, parcel: Parcel) {
        let chain = [Buffer {
            address: parcel.address,
            length: parcel.length,
            device_writes: false,
        }];
        // SAFETY: the outbox leaves a parcel alone until it is released, and lasts as long as the
        // card, which lasts as long as the sliver.
        match unsafe { self.queue.add(&chain) } {
            Ok(head) => self.parcels[usize::from(head)] = parcel.id,
            Err(_) => self.outbox.release(parcel.id),
        }
    }
}

impl Transmitter for Outgoing {
    fn has_room(&mut self) -> bool {
        let is_short = |this: &Self| {
            this.outbox.waiting() >= this.queue.room().into() || !this.outbox.has_room()
        };
        if is_short(self) {
            self.reclaim();
        }
        !is_short(self)
    }

    fn send(&mut self, length: usize, size: Option<u16>, fill: &mut dyn FnMut(&mut [u8])) {
        self.outbox.write(length, size, fill);
    }
}

/// Whether it is the address of one card.
fn is_unicast(mac: &[u8; 6]) -> bool {
    mac[0] & 1 == 0 && *mac != [0; 6]
}

/// The features to use, of those that are offered. Some are of no use without others (5.1.3.1).
fn choose(offered: u64) -> u64 {
    use feature::{
        CSUM, GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, HOST_TSO4, HOST_TSO6, MAC, MRG_RXBUF, MTU,
    };
    let mut wanted = F_VERSION_1 | F_EVENT_IDX | MTU | MAC | CSUM | GUEST_CSUM | MRG_RXBUF;
    if offered & CSUM != 0 {
        wanted |= HOST_TSO4 | HOST_TSO6;
    }
    let long = GUEST_CSUM | MRG_RXBUF;
    if offered & long == long {
        wanted |= GUEST_TSO4 | GUEST_TSO6;
    }
    offered & wanted
}
