//! The driver of a socket device (virtio 1.2, 5.10): moves packets between its queues and the
//! connections.
#![allow(unsafe_code, reason = "a device uses buffers that the driver names")]

#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::ops::DerefMut;

use slice_abi::device::DeviceState;

use super::mmio::{Device, F_EVENT_IDX, F_VERSION_1, Setup, Window};
use super::ring::Parts;
use super::state::{Config, needs_reset};
use super::virtq::{self, Queue, Tell};
use crate::block::Buffer;
use crate::sync::Mutex;
use crate::task::Poller;
use crate::time::Instant;
use crate::vsock::mux::Mux;
use crate::vsock::wire::Header;

/// The queues.
const RECEIVE: u32 = 0;
const SEND: u32 = 1;
const EVENT: u32 = 2;

/// Packets that can come in before the driver looks, and the size of each.
const RECEIVE_SIZE: u32 = 32;
const PACKET: usize = 16 << 10;

/// Packets that can be on their way out.
const SEND_SIZE: u32 = 64;

/// Events that can come in before the driver looks, and the size of each.
const EVENT_SIZE: u32 = 4;
const EVENT_BYTES: usize = 4;

/// A socket device.
pub(crate) struct Vsock<W> {
    state: &'static DeviceState,
    inner: Mutex<Inner<W>>,
}

struct Inner<W> {
    /// None once it has failed.
    device: Option<Device<W>>,
    mux: Mux,
    receive: Inbox,
    events: Inbox,
    send: Queue,
    /// Packets that the device has, by the heads of their chains.
    sending: Vec<Option<Vec<u8>>>,
}

/// A queue whose buffers the device fills, and the buffer of each chain.
struct Inbox {
    queue: Queue,
    buffers: Vec<Option<Buffer>>,
}

impl<W: Window> Vsock<W> {
    /// Takes a device in reset into use.
    pub(crate) fn new(
        window: W,
        state: &'static DeviceState,
        offered: u64,
        queue_size: u32,
    ) -> Self {
        let features = offered & (F_VERSION_1 | F_EVENT_IDX);
        let queue = |size: u32| Queue::new(Parts::on_heap(queue_size.min(size)), features);
        let receive = Inbox::new(queue(RECEIVE_SIZE), PACKET);
        let events = Inbox::new(queue(EVENT_SIZE), EVENT_BYTES);
        let send = queue(SEND_SIZE);
        let mut setup = Setup::negotiate(window, features);
        setup.queue(RECEIVE, receive.queue.ring());
        setup.queue(SEND, send.ring());
        setup.queue(EVENT, events.queue.ring());
        let inner = Inner {
            device: Some(setup.start()),
            mux: Mux::new(cid(state)),
            receive,
            events,
            sending: (0..send.ring().size()).map(|_| None).collect(),
            send,
        };
        Self {
            state,
            inner: Mutex::new(inner),
        }
    }

    /// The connections, until it is dropped.
    pub(crate) fn mux(&self) -> impl DerefMut<Target = Mux> {
        talc::lock_api::MutexGuard::map(self.inner.lock(), |inner| &mut inner.mux)
    }
}

fn cid(state: &DeviceState) -> u64 {
    Config::read(state).u64(0)
}

impl Inbox {
    fn new(queue: Queue, bytes: usize) -> Self {
        let size = queue.ring().size();
        let mut inbox = Self {
            queue,
            buffers: (0..size).map(|_| None).collect(),
        };
        (0..size).for_each(|_| inbox.add(Buffer::zeroed(bytes)));
        inbox.queue.publish();
        inbox
    }

    fn add(&mut self, buffer: Buffer) {
        let chain = [virtq::Buffer {
            address: buffer.address(),
            length: buffer.len() as u32,
            device_writes: true,
        }];
        // SAFETY: the buffer stays in its place in the list, untouched, until the chain is popped.
        if let Ok(head) = unsafe { self.queue.add(&chain) } {
            self.buffers[usize::from(head)] = Some(buffer);
        }
    }

    /// Hands what has come to `take`, and the buffers back to the device.
    fn empty(&mut self, mut take: impl FnMut(&[u8])) {
        loop {
            while let Some(done) = self.queue.pop() {
                if let Some(buffer) = self.buffers[usize::from(done.head)].take() {
                    take(&buffer[..done.written as usize]);
                    self.add(buffer);
                }
            }
            self.queue.publish();
            if !self.queue.ask(Tell::AT_NEXT) {
                return;
            }
        }
    }
}

impl<W: Window> Inner<W> {
    fn turn(&mut self, state: &DeviceState) {
        let Self { mux, .. } = self;
        // The only event there is: the device has lost all connections (5.10.6.7).
        self.events.empty(|_| mux.reset(cid(state)));
        self.receive.empty(|packet| {
            if let Some((header, payload)) = Header::parse(packet) {
                mux.receive(&header, payload);
            }
        });
        self.send_all();
    }

    fn send_all(&mut self) {
        loop {
            while let Some(done) = self.send.pop() {
                self.sending[usize::from(done.head)] = None;
            }
            while self.send.room() > 0
                && let Some(packet) = self.mux.next_out()
            {
                let chain = [virtq::Buffer {
                    address: packet.as_ptr() as u64,
                    length: packet.len() as u32,
                    device_writes: false,
                }];
                // SAFETY: the packet stays in the list, unchanged, until the chain is popped.
                if let Ok(head) = unsafe { self.send.add(&chain) } {
                    self.sending[usize::from(head)] = Some(packet);
                }
            }
            self.send.publish();
            // Only what has no room yet waits for what is sent.
            let tell = match self.mux.has_out() {
                true => Tell::AT_NEXT,
                false => Tell::Never,
            };
            if !self.send.ask(tell) {
                return;
            }
        }
    }

    fn is_broken(&self) -> bool {
        let queues = [&self.receive.queue, &self.events.queue, &self.send];
        queues.into_iter().any(Queue::is_broken)
    }
}

impl<W: Window + Send + Sync> Poller for Vsock<W> {
    fn poll(&self) {
        let mut inner = self.inner.lock();
        if inner.device.is_none() {
            // Nothing leaves any more, and nobody is to wait for it.
            while inner.mux.next_out().is_some() {}
            let cid = cid(self.state);
            inner.mux.reset(cid);
            return;
        }
        inner.turn(self.state);
        if inner.is_broken() || needs_reset(self.state) {
            inner.device.take().map(Device::reset);
            inner.mux.reset(cid(self.state));
        }
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn ring(&self) {
        let mut inner = self.inner.lock();
        let Inner {
            device: Some(device),
            receive,
            send,
            ..
        } = &mut *inner
        else {
            return;
        };
        for (queue, index) in [(&mut receive.queue, RECEIVE), (send, SEND)] {
            if queue.wants_doorbell() {
                device.notify(index);
            }
        }
    }
}
