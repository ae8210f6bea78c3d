//! The driver of a memory balloon (virtio 1.2, 5.5): gives the device the pages it asks for, as far
//! as there are free ones, takes them back when it asks for fewer, and reports free memory.
//!
//! One block of pages is on its way at a time. What is given away is at rest in the balloon: nobody
//! touches it until it is taken back.
#![allow(unsafe_code, reason = "a device is told of memory")]

#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use slice_abi::device::DeviceState;

use super::mmio::{Device, F_VERSION_1, Setup, Window};
use super::ring::Parts;
use super::state::{Config, needs_reset};
use super::virtq::{Buffer, Queue, Tell};
use crate::sync::Mutex;
use crate::task::Poller;
use crate::task::crowd::add_waker;
use crate::time::Instant;

/// The queues. Those of features that are not offered do not exist.
const INFLATE: u32 = 0;
const DEFLATE: u32 = 1;
const REPORTING: u32 = 2;

/// Feature bit: the device takes reports of free memory.
const F_REPORTING: u64 = 1 << 5;

/// Offsets in the configuration: pages that the device wants, and pages that it has.
const WANTED: usize = 0;
const ACTUAL: u64 = 4;

/// Bytes of a page, whatever the pages of the processor are.
const PAGE: usize = 4096;

/// Bytes of a block: as many as a large page, or a part of it for the rest of a wish.
const LARGE: usize = 2 << 20;
const SMALL: usize = 1 << 20;

/// Blocks in one report.
const REPORT: usize = 32;

/// Time until another try, when there was no free memory.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where free memory comes from.
pub(crate) trait Memory: Sync {
    /// A block of this size, aligned to its size, that nobody else uses, if it can be spared.
    fn take(&self, bytes: usize) -> Option<usize>;

    /// A block of this size that has been in use, if one is free.
    fn take_used(&self, bytes: usize) -> Option<usize>;

    /// Gives a block back.
    ///
    /// # Safety
    ///
    /// It was taken from here with the same size, and nobody uses it.
    unsafe fn give_back(&self, address: usize, bytes: usize);
}

/// A balloon.
pub(crate) struct Balloon<W, M> {
    device: Device<W>,
    state: &'static DeviceState,
    memory: M,
    inner: Mutex<Inner>,
}

struct Inner {
    follows: bool,
    inflate: Queue,
    deflate: Queue,
    reporting: Option<Queue>,
    moving: Moving,
    /// Page numbers of the block that is on its way.
    numbers: Vec<u32>,
    held: Vec<Block>,
    /// Pages that the device was told it has.
    told: u32,
    try_again: Option<Instant>,
    reports: Reports,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    address: usize,
    bytes: usize,
}

enum Moving {
    Nothing,
    In(Block),
    Out(Block),
}

/// Free memory that is being reported, and who waits for that.
#[derive(Default)]
struct Reports {
    blocks: Vec<Block>,
    waiters: Vec<Waker>,
}

impl<W: Window, M: Memory> Balloon<W, M> {
    /// Takes a device in reset into use.
    pub(crate) fn new(
        window: W,
        state: &'static DeviceState,
        offered: u64,
        queue_size: u32,
        memory: M,
    ) -> Self {
        let features = offered & (F_VERSION_1 | F_REPORTING);
        let queue = |size: u32| Queue::new(Parts::on_heap(queue_size.min(size)), features);
        let mut setup = Setup::negotiate(window, features);
        let (inflate, deflate) = (queue(2), queue(2));
        setup.queue(INFLATE, inflate.ring());
        setup.queue(DEFLATE, deflate.ring());
        let reporting = (features & F_REPORTING != 0).then(|| queue(REPORT as u32));
        if let Some(reporting) = &reporting {
            setup.queue(REPORTING, reporting.ring());
        }
        Self {
            device: setup.start(),
            state,
            memory,
            inner: Mutex::new(Inner {
                follows: false,
                inflate,
                deflate,
                reporting,
                moving: Moving::Nothing,
                numbers: Vec::with_capacity(LARGE / PAGE),
                held: Vec::new(),
                told: 0,
                try_again: None,
                reports: Reports::default(),
            }),
        }
    }

    /// Does as the device wishes from now on.
    pub(crate) fn follow(&self) {
        self.inner.lock().follows = true;
    }

    /// Begins to report free memory; how many bytes. 0 also if a report is under way.
    pub(crate) fn begin_report(&self) -> u64 {
        let mut inner = self.inner.lock();
        let Inner {
            reporting: Some(queue),
            reports,
            ..
        } = &mut *inner
        else {
            return 0;
        };
        if !reports.blocks.is_empty() || needs_reset(self.state) {
            return 0;
        }
        let most = REPORT.min(queue.room().into());
        let free = core::iter::from_fn(|| self.memory.take_used(LARGE));
        let blocks = free.take(most).map(|address| Block {
            address,
            bytes: LARGE,
        });
        reports.blocks.extend(blocks);
        let chain = reports.blocks.iter().map(|block| Buffer {
            address: block.address as u64,
            length: block.bytes as u32,
            device_writes: true,
        });
        let chain: Vec<Buffer> = chain.collect();
        if chain.is_empty() {
            return 0;
        }
        // SAFETY: nobody else uses the blocks until they are given back, when the chain is popped.
        if unsafe { queue.add(&chain) }.is_err() {
            let blocks = reports.blocks.drain(..);
            blocks.for_each(|block| self.give_back(block));
            return 0;
        }
        (chain.len() * LARGE) as u64
    }

    /// Whether nothing is being reported.
    pub(crate) fn reported(&self, context: &Context<'_>) -> Poll<()> {
        let reports = &mut self.inner.lock().reports;
        if reports.blocks.is_empty() || needs_reset(self.state) {
            return Poll::Ready(());
        }
        add_waker(&mut reports.waiters, context);
        Poll::Pending
    }

    /// Takes note of what the device has done.
    fn collect(&self, inner: &mut Inner) {
        if inner.inflate.pop().is_some()
            && let Moving::In(block) = core::mem::replace(&mut inner.moving, Moving::Nothing)
        {
            inner.held.push(block);
        }
        if inner.deflate.pop().is_some()
            && let Moving::Out(block) = core::mem::replace(&mut inner.moving, Moving::Nothing)
        {
            self.give_back(block);
        }
        if inner.reporting.as_mut().and_then(Queue::pop).is_some() {
            let blocks = inner.reports.blocks.drain(..);
            blocks.for_each(|block| self.give_back(block));
            inner.reports.waiters.drain(..).for_each(Waker::wake);
        }
    }

    /// Puts the next block on its way, in or out.
    fn pursue(&self, inner: &mut Inner, now: Instant) {
        if !inner.follows || !matches!(inner.moving, Moving::Nothing) {
            return;
        }
        let wanted = Config::read(self.state).u32(WANTED) as usize * PAGE;
        let held: usize = inner.held.iter().map(|block| block.bytes).sum();
        let tried_lately = inner.try_again.is_some_and(|at| now < at);
        let next = match wanted.saturating_sub(held) {
            LARGE.. => Some(LARGE),
            SMALL.. => Some(SMALL),
            _ => None,
        };
        if held > wanted
            && let Some(block) = inner.held.pop()
        {
            inner.moving = Moving::Out(block);
            inner.try_again = None;
            send(&mut inner.deflate, &mut inner.numbers, block);
        } else if let Some(bytes) = next.filter(|_| !tried_lately) {
            match self.memory.take(bytes) {
                Some(address) => {
                    let block = Block { address, bytes };
                    inner.moving = Moving::In(block);
                    send(&mut inner.inflate, &mut inner.numbers, block);
                    inner.try_again = None;
                }
                None => inner.try_again = now.checked_add(PATIENCE),
            }
        } else if next.is_none() {
            inner.try_again = None;
        }
        let pages = (held / PAGE) as u32;
        // A write leaves the guest: only when all is done that can be.
        if matches!(inner.moving, Moving::Nothing) && inner.told != pages {
            inner.told = pages;
            self.device.write_config(ACTUAL, pages);
        }
    }

    fn give_back(&self, block: Block) {
        // SAFETY: it was taken with this size, and the device is done with it.
        unsafe { self.memory.give_back(block.address, block.bytes) }
    }
}

impl Inner {
    /// All queues, each with its number.
    fn queues(&mut self) -> impl Iterator<Item = (&mut Queue, u32)> {
        let reporting = self.reporting.as_mut().map(|queue| (queue, REPORTING));
        let pages = [(&mut self.inflate, INFLATE), (&mut self.deflate, DEFLATE)];
        pages.into_iter().chain(reporting)
    }
}

/// Sends the page numbers of a block (5.5.6).
fn send(queue: &mut Queue, numbers: &mut Vec<u32>, block: Block) {
    numbers.clear();
    let first = (block.address / PAGE) as u32;
    numbers.extend((first..).take(block.bytes / PAGE));
    let chain = [Buffer {
        address: numbers.as_ptr() as u64,
        length: size_of_val(&numbers[..]) as u32,
        device_writes: false,
    }];
    // SAFETY: the numbers are left alone while a block is on its way, that is until the chain is
    // popped. There is always room, because one chain is out at a time.
    let sent = unsafe { queue.add(&chain) };
    debug_assert!(sent.is_ok());
}

impl<W: Window + Send + Sync, M: Memory> Poller for Balloon<W, M> {
    fn poll(&self) {
        if needs_reset(self.state) {
            // What is on its way stays there, and nothing follows.
            return;
        }
        let mut inner = self.inner.lock();
        loop {
            self.collect(&mut inner);
            self.pursue(&mut inner, Instant::now());
            let mut again = false;
            for (queue, _) in inner.queues() {
                queue.publish();
                let waits = !queue.is_empty();
                again |= queue.ask(if waits { Tell::AT_NEXT } else { Tell::Never });
            }
            if !again {
                return;
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let try_again = self.inner.lock().try_again;
        try_again.filter(|_| !needs_reset(self.state))
    }

    fn ring(&self) {
        let mut inner = self.inner.lock();
        for (queue, index) in inner.queues() {
            if queue.wants_doorbell() {
                self.device.notify(index);
            }
        }
    }
}
