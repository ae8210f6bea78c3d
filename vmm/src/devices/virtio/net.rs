//! The network card (virtio 1.2, 5.1): one receive and one transmit queue in front of a [`Tap`].
//!
//! Frames go between the guest's buffers and the tap without being copied, one call each: entering
//! the kernel is a sixth of what it takes to send a small frame, too little for batches through
//! io_uring to pay. Checksums and segmentation are left to the host, and to the guest, as
//! negotiated. Bad frames are dropped and counted by reason; bad chains stop the device.

mod addresses;
pub mod frame;
mod receive;
mod stock;
#[cfg(test)]
mod tests;
mod transmit;
mod watch;

use std::io;
use std::os::fd::AsFd;

use slice_abi::device::device_id;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP,
};

use super::backend::{Backend, Counter, Fault, Identity, Interest, Progress, Queues, Source};
use crate::nanos::Nanos;
use crate::net::tap::{Tap, TapOffloads};
use crate::spec::NetSpec;
pub use addresses::net_config;
use frame::{Rules, device_work, driver_work};
use receive::{Manner, Receive};
use transmit::Transmit;
pub use watch::Door;
use watch::Watch;

/// Index of the receive queue.
const RECEIVE: usize = 0;
/// Index of the transmit queue.
const TRANSMIT: usize = 1;
/// Descriptors of each queue.
const QUEUE_SIZE: u16 = 256;
/// Frames after which the driver is shown what was done so far: it may run on another processor,
/// and then it works while the batch goes on.
const PUBLISH_EVERY: usize = 16;

/// Features that every card has.
const FEATURES: u64 = 1 << VIRTIO_NET_F_MAC
    | 1 << VIRTIO_NET_F_MTU
    | 1 << VIRTIO_NET_F_STATUS
    | 1 << VIRTIO_NET_F_MRG_RXBUF;
/// Features of a card with offloads.
const OFFLOADS: u64 = 1 << VIRTIO_NET_F_CSUM
    | 1 << VIRTIO_NET_F_GUEST_CSUM
    | 1 << VIRTIO_NET_F_HOST_TSO4
    | 1 << VIRTIO_NET_F_HOST_TSO6
    | 1 << VIRTIO_NET_F_GUEST_TSO4
    | 1 << VIRTIO_NET_F_GUEST_TSO6;

/// Bytes of the configuration space up to the MTU (virtio 1.2, 5.1.4).
const CONFIG_BYTES: usize = 12;
/// Where the link's status is in it.
const CONFIG_STATUS: usize = 6;

/// A network card.
#[derive(Debug)]
pub struct Net {
    tag: String,
    tap: Tap,
    features: u64,
    rules: Rules,
    config: [u8; CONFIG_BYTES],
    transmit: Transmit,
    receive: Receive,
    door: Option<Door>,
}

/// How far one side came in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// As far as it can until a doorbell, or until the tap is ready.
    Waiting,
    /// There is more to do.
    More,
    /// There is more to do at that moment.
    At(Nanos),
}

/// Whether the interface behind a tap does not exist any more (tun(4)).
fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBADFD)
}

impl Net {
    /// The card that `spec` describes, in front of `tap`.
    pub fn new(tap: Tap, spec: &NetSpec, tag: String) -> Self {
        let (mac, mtu) = (spec.mac().bytes(), spec.mtu());
        let mut config = [0; CONFIG_BYTES];
        config[..6].copy_from_slice(&mac);
        config[CONFIG_STATUS] = VIRTIO_NET_S_LINK_UP as u8;
        // Between: the number of queue pairs, which only a card with several has.
        config[10..].copy_from_slice(&mtu.to_le_bytes());
        Self {
            tag,
            tap,
            features: FEATURES | if spec.offloads() { OFFLOADS } else { 0 },
            rules: Rules {
                work: TapOffloads::default(),
                mtu,
                mac,
            },
            config,
            transmit: Transmit::default(),
            receive: Receive::new(),
            door: None,
        }
    }

    /// The same, with somebody who watches what goes in and out.
    pub fn watched(mut self, door: Door) -> Self {
        self.door = Some(door);
        self
    }

    /// What the tap is asked to leave to the guest. A kernel that refuses leaves less to it, which
    /// is right, too.
    fn leave_to_guest(&self, work: TapOffloads) {
        let _ = self.tap.set_offloads(work);
    }
}

impl Backend for Net {
    fn identity(&self) -> Identity {
        Identity {
            id: device_id::NET,
            tag: self.tag.clone(),
            features: self.features,
            queue_sizes: vec![QUEUE_SIZE, QUEUE_SIZE],
        }
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn start(&mut self, features: u64) {
        let work = driver_work(features);
        self.leave_to_guest(work);
        self.rules.work = device_work(features);
        self.receive.start(Manner {
            mergeable: features & 1 << VIRTIO_NET_F_MRG_RXBUF != 0,
            work,
            mtu: self.rules.mtu,
        });
        self.transmit.ready();
    }

    fn serve(&mut self, queues: &mut Queues<'_>, now: Nanos) -> Result<Progress, Fault> {
        let mut watch = Watch::new(self.door.as_ref(), now);
        let sent = match queues.get(TRANSMIT) {
            Some(mut port) => self
                .transmit
                .serve(&mut port, &self.tap, &self.rules, &mut watch)?,
            None => Step::Waiting,
        };
        let received = match queues.get(RECEIVE) {
            Some(mut port) => self.receive.serve(&mut port, &self.tap, &mut watch)?,
            None => Step::Waiting,
        };
        if self.transmit.gone || self.receive.gone {
            self.config[CONFIG_STATUS] = 0;
        }
        Ok(match (sent, received) {
            (Step::More, _) | (_, Step::More) => Progress::More,
            (Step::At(sent), Step::At(received)) => Progress::At(sent.min(received)),
            (Step::At(until), _) | (_, Step::At(until)) => Progress::At(until),
            (Step::Waiting, Step::Waiting) => Progress::Waiting,
        })
    }

    fn stop(&mut self) -> bool {
        self.receive.stop();
        self.transmit.stop();
        if let Some(door) = &self.door {
            door.stop();
        }
        self.leave_to_guest(TapOffloads::default());
        true
    }

    fn sources(&self) -> Vec<Source<'_>> {
        vec![Source {
            fd: self.tap.as_fd(),
            interest: Interest::Both,
        }]
    }

    fn ready(&mut self, _source: usize) {
        self.receive.ready();
        self.transmit.ready();
    }

    fn counters(&self) -> Vec<Counter> {
        let sides = self.receive.counters().into_iter();
        let dropped = self.tap.dropped();
        let dropped = dropped.map(|count| ("rx_dropped_host", count));
        sides
            .chain(self.transmit.counters())
            .chain(dropped)
            .collect()
    }
}
