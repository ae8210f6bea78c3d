//! The driver of a block device (virtio 1.2, 5.2): one queue, a request per slot of it.
//!
//! A request is a future. It owns its buffer until the device takes it; then the driver owns it
//! until the device is done with it, also when nobody waits for the request any more.
//!
//! A device that breaks the rules or says that it has failed is reset: what it had ends with
//! [`ErrorKind::DeviceFailed`], because only then is it certain that it lets go of all buffers, and
//! it is started anew.
#![allow(unsafe_code, reason = "a device uses buffers that the driver names")]

mod limits;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::future::Future;
use core::ops::Range;
use core::pin::Pin;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use core::task::{Context, Poll, Waker};

use slice_abi::device::DeviceState;

use super::mmio::{Device, Setup, Window};
use super::ring::Parts;
use super::state::{Config, needs_reset};
use super::virtq::{self, Queue, Tell};
use crate::block::{Buffer, Direction, ErrorKind, SECTOR};
use crate::sync::Mutex;
use crate::task::Poller;
use crate::task::crowd::add_waker;
use crate::time::Instant;
pub(crate) use limits::Limits;

/// The only queue.
const REQUESTS: u32 = 0;

/// Types of requests (virtio 1.2, 5.2.6).
mod kind {
    pub(super) const IN: u32 = 0;
    pub(super) const OUT: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
    pub(super) const DISCARD: u32 = 11;
    pub(super) const WRITE_ZEROES: u32 = 13;
}

/// How a request ended (virtio 1.2, 5.2.6).
mod status {
    pub(super) const OK: u8 = 0;
    pub(super) const UNSUPPORTED: u8 = 2;
    /// None of the specification's: the device has not written it.
    pub(super) const MISSING: u8 = 0xff;
}

/// Bytes of a serial.
const ID_BYTES: usize = 20;

/// A block device.
pub(crate) struct Blk<W> {
    limits: Limits,
    window: W,
    state: &'static DeviceState,
    inner: Mutex<Inner<W>>,
}

struct Inner<W> {
    /// None while it is being reset.
    device: Option<Device<W>>,
    queue: Queue,
    /// Whether the device is asked to tell of what it gives back.
    listens: bool,
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// The slot of each chain that is out.
    by_head: Vec<u16>,
    /// Who waits for room in the queue.
    waiting: Vec<Waker>,
}

/// One request that may be out.
struct Slot {
    exchange: &'static Exchange,
    progress: Progress,
}

enum Progress {
    Free,
    /// The device has it; somebody waits for it, or nobody.
    Out(Request, Option<Waker>),
    /// Somebody waits for it.
    Done(Outcome),
}

type Outcome = (Result<(), ErrorKind>, Option<Buffer>);

/// What driver and device exchange beside the data: the request's header, then its status.
#[repr(C, align(32))]
#[derive(Debug, Default)]
struct Exchange {
    kind: AtomicU64,
    sector: AtomicU64,
    status: AtomicU8,
}

/// Bytes of the header.
const HEADER: u32 = 16;

#[derive(Debug)]
struct Request {
    kind: u32,
    sector: u64,
    data: Option<Data>,
}

#[derive(Debug)]
struct Data {
    buffer: Buffer,
    range: Range<usize>,
    device_writes: bool,
}

impl<W: Window + Copy> Blk<W> {
    /// Takes a device in reset into use.
    ///
    /// `offered` are its features, `queue_size` is the largest queue it takes.
    pub(crate) fn new(
        window: W,
        state: &'static DeviceState,
        offered: u64,
        queue_size: u32,
    ) -> Self {
        let limits = Limits::new(offered, &Config::read(state));
        let queue = Queue::new(Parts::on_heap(queue_size), limits.features);
        let size = queue.ring().size();
        let exchanges: Vec<Exchange> = (0..size).map(|_| Exchange::default()).collect();
        let exchanges: &'static [Exchange] = Box::leak(exchanges.into_boxed_slice());
        let slots = exchanges.iter().map(|exchange| Slot {
            exchange,
            progress: Progress::Free,
        });
        let mut inner = Inner {
            device: None,
            queue,
            listens: true,
            slots: slots.collect(),
            free: (0..size).rev().collect(),
            by_head: (0..size).collect(),
            waiting: Vec::new(),
        };
        inner.start(window, limits.features);
        Self {
            limits,
            window,
            state,
            inner: Mutex::new(inner),
        }
    }

    /// What it can do.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Reads into or writes from a whole buffer, which comes back. The request is valid.
    pub(crate) async fn transfer(
        &self,
        direction: Direction,
        offset: u64,
        mut buffer: Buffer,
    ) -> (Result<(), ErrorKind>, Buffer) {
        let (kind, device_writes) = match direction {
            Direction::Read => (kind::IN, true),
            Direction::Write => (kind::OUT, false),
        };
        let mut from = 0;
        while from < buffer.len() {
            let range = from..buffer.len().min(from + self.limits.data_max);
            from = range.end;
            let sector = (offset + range.start as u64) / SECTOR;
            let data = Data {
                buffer,
                range,
                device_writes,
            };
            let result;
            (result, buffer) = self.exchange(kind, sector, data).await;
            if result.is_err() {
                return (result, buffer);
            }
        }
        (Ok(()), buffer)
    }

    /// Makes durable what was written.
    pub(crate) async fn flush(&self) -> Result<(), ErrorKind> {
        if !self.limits.has_cache {
            return Ok(());
        }
        let request = Request {
            kind: kind::FLUSH,
            sector: 0,
            data: None,
        };
        self.submit(request).await.0
    }

    /// Gives up a range.
    pub(crate) async fn discard(&self, offset: u64, len: u64) -> Result<(), ErrorKind> {
        let most = self.limits.discard_max;
        let most = most.ok_or(ErrorKind::Unsupported("discard"))?;
        self.over_ranges(kind::DISCARD, offset..offset + len, most)
            .await
    }

    /// Makes a range zero.
    pub(crate) async fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), ErrorKind> {
        let most = self.limits.write_zeroes_max;
        let most = most.ok_or(ErrorKind::Unsupported("write zeroes"))?;
        self.over_ranges(kind::WRITE_ZEROES, offset..offset + len, most)
            .await
    }

    /// The serial, padded with zeros.
    pub(crate) async fn serial(&self) -> Result<[u8; ID_BYTES], ErrorKind> {
        let data = Data {
            buffer: Buffer::zeroed(ID_BYTES),
            range: 0..ID_BYTES,
            device_writes: true,
        };
        let (result, buffer) = self.exchange(kind::GET_ID, 0, data).await;
        result.map(|()| buffer.first_chunk().copied().unwrap_or_default())
    }

    /// A request for each piece of a range, at most `most` sectors long.
    async fn over_ranges(&self, kind: u32, range: Range<u64>, most: u64) -> Result<(), ErrorKind> {
        let mut at = range.start;
        while at < range.end {
            let sectors = ((range.end - at) / SECTOR).min(most);
            let mut segment = [0; 16];
            segment[..8].copy_from_slice(&(at / SECTOR).to_le_bytes());
            segment[8..12].copy_from_slice(&(sectors as u32).to_le_bytes());
            let data = Data {
                buffer: Buffer::from(&segment[..]),
                range: 0..segment.len(),
                device_writes: false,
            };
            self.exchange(kind, 0, data).await.0?;
            at += sectors * SECTOR;
        }
        Ok(())
    }

    async fn exchange(
        &self,
        kind: u32,
        sector: u64,
        data: Data,
    ) -> (Result<(), ErrorKind>, Buffer) {
        let request = Request {
            kind,
            sector,
            data: Some(data),
        };
        let (result, buffer) = self.submit(request).await;
        (result, buffer.expect("a request gives its buffer back"))
    }

    fn submit(&self, request: Request) -> Flight<'_, W> {
        Flight {
            blk: self,
            stage: Stage::Waiting(request),
        }
    }
}

/// A request on its way.
struct Flight<'a, W> {
    blk: &'a Blk<W>,
    stage: Stage,
}

enum Stage {
    /// For room in the queue.
    Waiting(Request),
    /// In this slot.
    Out(u16),
    Over,
}

impl<W: Window + Copy> Future for Flight<'_, W> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let mut inner = self.blk.inner.lock();
        match core::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Waiting(request) => {
                self.stage = match inner.begin(request, context.waker()) {
                    Ok(slot) => Stage::Out(slot),
                    Err(request) => {
                        add_waker(&mut inner.waiting, context);
                        Stage::Waiting(request)
                    }
                };
                Poll::Pending
            }
            Stage::Out(index) => {
                let slot = &mut inner.slots[usize::from(index)];
                match core::mem::replace(&mut slot.progress, Progress::Free) {
                    Progress::Done(outcome) => {
                        inner.release(index);
                        Poll::Ready(outcome)
                    }
                    Progress::Out(request, _) => {
                        slot.progress = Progress::Out(request, Some(context.waker().clone()));
                        self.stage = Stage::Out(index);
                        Poll::Pending
                    }
                    Progress::Free => unreachable!("a slot is free only when its flight is over"),
                }
            }
            Stage::Over => panic!("a request is polled after its end"),
        }
    }
}

impl<W> Drop for Flight<'_, W> {
    fn drop(&mut self) {
        let Stage::Out(index) = self.stage else {
            return;
        };
        let mut inner = self.blk.inner.lock();
        match &mut inner.slots[usize::from(index)].progress {
            // Its buffer stays until the device is done with it.
            Progress::Out(_, waker) => *waker = None,
            Progress::Done(_) | Progress::Free => inner.release(index),
        }
    }
}

impl<W: Window + Copy> Inner<W> {
    fn start(&mut self, window: W, features: u64) {
        let mut setup = Setup::negotiate(window, features);
        setup.queue(REQUESTS, self.queue.ring());
        self.device = Some(setup.start());
    }

    /// Puts a request into the queue, or gives it back if there is no room.
    fn begin(&mut self, request: Request, waker: &Waker) -> Result<u16, Request> {
        if self.device.is_none() {
            return Err(request);
        }
        let Some(&index) = self.free.last() else {
            return Err(request);
        };
        let slot = &mut self.slots[usize::from(index)];
        let exchange = slot.exchange;
        exchange.kind.store(request.kind.into(), Ordering::Relaxed);
        exchange.sector.store(request.sector, Ordering::Relaxed);
        exchange.status.store(status::MISSING, Ordering::Relaxed);
        let header = virtq::Buffer {
            address: (&raw const *exchange) as u64,
            length: HEADER,
            device_writes: false,
        };
        let end = virtq::Buffer {
            address: (&raw const exchange.status) as u64,
            length: 1,
            device_writes: true,
        };
        let data = request.data.as_ref().map(|data| virtq::Buffer {
            address: data.buffer.address() + data.range.start as u64,
            length: data.range.len() as u32,
            device_writes: data.device_writes,
        });
        let chain = [header, data.unwrap_or(end), end];
        let buffers = if data.is_some() { 3 } else { 2 };
        // SAFETY: the exchange is leaked and made of atomics, and its slot is not free until the
        // chain is popped. The buffer is owned by the slot, with which nobody touches it, until the
        // chain is popped or the device is reset.
        let Ok(head) = (unsafe { self.queue.add(&chain[..buffers]) }) else {
            return Err(request);
        };
        self.free.pop();
        slot.progress = Progress::Out(request, Some(waker.clone()));
        self.by_head[usize::from(head)] = index;
        Ok(index)
    }

    /// Takes back what the device is done with, and shows it what is new.
    fn turn(&mut self) {
        loop {
            let mut came_back = false;
            while let Some(done) = self.queue.pop() {
                came_back = true;
                let index = self.by_head[usize::from(done.head)];
                self.end(index, |slot, request| slot.result(request, done.written));
            }
            if came_back {
                self.waiting.drain(..).for_each(Waker::wake);
            }
            self.queue.publish();
            let waits = !self.queue.is_empty();
            if !waits && !self.listens {
                return;
            }
            self.listens = waits;
            let tell = if waits { Tell::AT_NEXT } else { Tell::Never };
            if !self.queue.ask(tell) {
                return;
            }
        }
    }

    /// Ends the request in a slot that is out.
    fn end(&mut self, index: u16, result: impl FnOnce(&Slot, &Request) -> Result<(), ErrorKind>) {
        let slot = &mut self.slots[usize::from(index)];
        match core::mem::replace(&mut slot.progress, Progress::Free) {
            Progress::Out(request, Some(waker)) => {
                let result = result(slot, &request);
                let buffer = request.data.map(|data| data.buffer);
                slot.progress = Progress::Done((result, buffer));
                waker.wake();
            }
            Progress::Out(_, None) => self.release(index),
            other => slot.progress = other,
        }
    }
}

impl<W> Inner<W> {
    /// A slot whose request is over and taken note of.
    fn release(&mut self, index: u16) {
        self.slots[usize::from(index)].progress = Progress::Free;
        self.free.push(index);
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

impl Slot {
    fn result(&self, request: &Request, written: u32) -> Result<(), ErrorKind> {
        let wanted = match &request.data {
            Some(data) if request.kind == kind::IN => data.range.len() as u32 + 1,
            _ => 1,
        };
        match self.exchange.status.load(Ordering::Relaxed) {
            status::OK if written >= wanted => Ok(()),
            status::UNSUPPORTED => Err(ErrorKind::Unsupported(match request.kind {
                kind::FLUSH => "flush",
                kind::DISCARD => "discard",
                kind::WRITE_ZEROES => "write zeroes",
                kind::GET_ID => "tell its serial",
                _ => "read or write",
            })),
            _ => Err(ErrorKind::Io),
        }
    }
}

impl<W: Window + Copy + Send + Sync> Poller for Blk<W> {
    fn poll(&self) {
        let mut inner = self.inner.lock();
        if inner.device.is_some() {
            inner.turn();
            if inner.queue.is_broken() || needs_reset(self.state) {
                inner.device.take().map(Device::reset);
            }
        }
        // A reset is done when the status says so (virtio 1.2, 2.4.1).
        if inner.device.is_none() && self.state.status.load(Ordering::Acquire) == 0 {
            for index in 0..inner.slots.len() as u16 {
                inner.end(index, |_, _| Err(ErrorKind::DeviceFailed));
            }
            inner.queue.renew();
            inner.listens = true;
            inner.start(self.window, self.limits.features);
            inner.waiting.drain(..).for_each(Waker::wake);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn ring(&self) {
        let mut inner = self.inner.lock();
        let wanted = inner.queue.wants_doorbell();
        if let Some(device) = inner.device.as_ref().filter(|_| wanted) {
            device.notify(REQUESTS);
        }
    }
}
