//! What a network card is to the stack: frames in, frames out.
//!
//! The stack works with any [`Card`]: the driver of a virtio card in a slice, two ends of a piece
//! of memory in tests. [`Port`] shows one to `smoltcp`.

use core::num::{NonZeroU16, NonZeroUsize};

use smoltcp::phy::{
    Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, PacketMeta, RxToken,
    TxToken,
};
use smoltcp::time::Instant;

use super::merge::longest_of_full_segments;
use super::wire::{ETHERNET, IPV4, TCP};

/// A frame that has come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) bytes: &'a [u8],
    /// Whether its transport checksum needs no look.
    pub(crate) verified: bool,
}

/// Where frames come from.
pub(crate) trait Receiver {
    /// The oldest frame that has come and has not been dropped.
    fn front(&mut self) -> Option<Frame<'_>>;
    /// Drops that frame.
    fn drop_front(&mut self);
}

/// Where frames go.
pub(crate) trait Transmitter {
    /// Whether a frame as long as they come would be sent.
    fn has_room(&mut self) -> bool;
    /// Lets `fill` write a frame of `length` bytes, and sends it: in segments of `size` bytes if
    /// that is given. Without room it is lost.
    fn send(&mut self, length: usize, size: Option<u16>, fill: &mut dyn FnMut(&mut [u8]));
}

/// What the stack must know of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Properties {
    pub(crate) mac: [u8; 6],
    /// The longest packet, in bytes.
    pub(crate) mtu: usize,
    /// It completes the checksums of what is sent.
    pub(crate) checksums: bool,
    /// It takes TCP over IPv4 apart into segments.
    pub(crate) segments4: bool,
}

/// A network card.
pub(crate) trait Card: Send {
    /// What it is like.
    fn properties(&self) -> Properties;
    /// Its two directions.
    fn split(&mut self) -> (&mut dyn Receiver, &mut dyn Transmitter);
    /// Gives the device what has been sent, and memory for what is to come.
    fn publish(&mut self);
    /// Tells the device of what it was given, if it wants to be told.
    fn ring(&mut self);
    /// Gets ready for a rest, which the next frame ends; room to send ends it if `room` is needed.
    /// Returns whether there is something to do already.
    fn rest(&mut self, room: bool) -> bool;
}

/// A card as `smoltcp` sees it, for one poll.
pub(crate) struct Port<'a> {
    receiver: &'a mut dyn Receiver,
    transmitter: &'a mut dyn Transmitter,
    capabilities: &'a DeviceCapabilities,
}

impl<'a> Port<'a> {
    /// Of a card with these capabilities.
    pub(crate) fn new(card: &'a mut dyn Card, capabilities: &'a DeviceCapabilities) -> Self {
        let (receiver, transmitter) = card.split();
        Self {
            receiver,
            transmitter,
            capabilities,
        }
    }
}

/// What `smoltcp` is told of a card. It never verifies transport checksums: the stack has done
/// that before, where the card has not.
pub(crate) fn capabilities(card: &Properties) -> DeviceCapabilities {
    let transport = if card.checksums {
        Checksum::None
    } else {
        Checksum::Tx
    };
    let mut checksum = ChecksumCapabilities::default();
    checksum.tcp = transport;
    checksum.udp = transport;
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ethernet;
    capabilities.max_transmission_unit = ETHERNET + card.mtu;
    capabilities.checksum = checksum;
    if card.checksums && card.segments4 {
        let longest = ETHERNET + longest_of_full_segments(card.mtu, IPV4 + TCP);
        capabilities.segmentation.tcpv4 = NonZeroUsize::new(longest);
    }
    capabilities
}

impl Device for Port<'_> {
    type RxToken<'b>
        = Incoming<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Outgoing<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        self.receiver.front()?;
        Some((Incoming(self.receiver), Outgoing::new(self.transmitter)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        let room = self.transmitter.has_room();
        room.then(|| Outgoing::new(self.transmitter))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.capabilities.clone()
    }
}

/// The oldest frame.
pub(crate) struct Incoming<'a>(&'a mut dyn Receiver);

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, look: F) -> R {
        let result = look(self.0.front().map_or(&[], |frame| frame.bytes));
        self.0.drop_front();
        result
    }
}

/// Leave to send one frame.
pub(crate) struct Outgoing<'a> {
    transmitter: &'a mut dyn Transmitter,
    size: Option<NonZeroU16>,
}

impl<'a> Outgoing<'a> {
    fn new(transmitter: &'a mut dyn Transmitter) -> Self {
        Self {
            transmitter,
            size: None,
        }
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut fill = Some(fill);
        let mut result = None;
        self.transmitter
            .send(length, self.size.map(NonZeroU16::get), &mut |frame| {
                result = fill.take().map(|fill| fill(frame));
            });
        result.expect("a card lets every frame be written, once")
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.size = meta.segmentation_offload_size;
    }
}
