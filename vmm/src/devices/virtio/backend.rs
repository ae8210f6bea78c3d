//! What makes a virtio device a network card or a disk: the part behind transport and queues.
//!
//! A [`Backend`] is driven by its [`VirtioDevice`](super::device::VirtioDevice):
//!
//! ```text
//!               start                    serve, ready            stop
//!   stopped -----------------> running <-------------+  ------------------> draining, stopped
//!      ^                          |                  |                          |
//!      |                          +---- ready -------+                          |
//!      +------------------------------------------------------------------------+
//! ```
//!
//! [`Backend::serve`] does one bounded batch of whatever can be done and never waits. What it waits
//! for is a descriptor among its [`Backend::sources`], a moment, or a doorbell. It is called on the
//! vCPU that rang, on one that idles, or on the attendant's thread, one at a time.

use std::os::fd::BorrowedFd;

use super::chain::Chain;
use super::queue::{QueueError, RunningQueue};
use crate::kvm::memory::GuestRam;
use crate::nanos::Nanos;

/// Chains, about, that one batch serves at most: a scheduler can stop the work between two.
pub const BATCH: usize = 64;

/// What does not change about a device.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Virtio device type.
    pub id: u32,
    /// What it is for, at most 15 bytes: `console`, `net0`.
    pub tag: String,
    /// Feature bits it offers beside those of every device here.
    pub features: u64,
    /// The largest size of each queue, a power of two.
    pub queue_sizes: Vec<u16>,
}

/// What a descriptor is watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Something to read.
    Read,
    /// Room to write.
    Write,
    /// Either.
    Both,
}

/// A descriptor to watch: [`Backend::ready`] is called with its index when it *becomes* ready
/// (edge-triggered, epoll(7)).
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The descriptor, open for as long as the backend lives.
    pub fd: BorrowedFd<'a>,
    /// What for.
    pub interest: Interest,
}

/// How far a batch came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is left to do before the next doorbell.
    Done,
    /// Nothing is left to do before the next doorbell or until a source becomes ready. Sources are
    /// watched from the first time on that this is said.
    Waiting,
    /// There is more to do at once.
    More,
    /// There is more to do at this moment, or when a doorbell or a source tells.
    At(Nanos),
}

/// What an operator may ask of a running device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The balloon is to hold so many MiB.
    Balloon(u64),
    /// The console's window has another size.
    ConsoleSize {
        /// Columns.
        columns: u16,
        /// Rows.
        rows: u16,
    },
}

/// One of a device's counters.
pub type Counter = (&'static str, u64);

/// The device behind transport and queues.
pub trait Backend: std::fmt::Debug + Send {
    /// What it is; always the same.
    fn identity(&self) -> Identity;

    /// Its configuration space as it is now, at most [`slice_abi::device::CONFIG_BYTES`].
    fn config(&self) -> &[u8] {
        &[]
    }

    /// The driver writes to the configuration space. `false` if nothing can be written there.
    fn write_config(&mut self, _offset: usize, _data: &[u8]) -> bool {
        false
    }

    /// The driver is up, with these features.
    fn start(&mut self, features: u64);

    /// Does one batch. See the module's documentation.
    fn serve(&mut self, queues: &mut Queues<'_>, now: Nanos) -> Result<Progress, Fault>;

    /// The driver has reset the device, or it has failed: forget what was going on. `false` if
    /// something still uses guest memory; [`Backend::drained`] is then asked until nothing does.
    fn stop(&mut self) -> bool {
        true
    }

    /// Whether nothing uses guest memory any more after [`Backend::stop`].
    fn drained(&mut self) -> bool {
        true
    }

    /// Descriptors to watch, always the same.
    fn sources(&self) -> Vec<Source<'_>> {
        Vec::new()
    }

    /// Source number `source` became ready. Only notes it: guest memory must not be touched.
    fn ready(&mut self, _source: usize) {}

    /// Does what an operator asks; `false` if it is not this device's business.
    fn order(&mut self, _order: Order) -> bool {
        false
    }

    /// Its counters, each with a name in snake case.
    fn counters(&self) -> Vec<Counter> {
        Vec::new()
    }
}

/// The queues of a running device, with the memory they lie in.
#[derive(Debug)]
pub struct Queues<'a> {
    ram: &'a GuestRam,
    running: &'a mut [Option<RunningQueue>],
}

/// What is wrong with which queue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("queue {queue}: {error}")]
pub struct Fault {
    /// Index of the queue.
    pub queue: usize,
    /// What is wrong.
    pub error: QueueError,
}

impl<'a> Queues<'a> {
    pub(crate) fn new(ram: &'a GuestRam, running: &'a mut [Option<RunningQueue>]) -> Self {
        Self { ram, running }
    }

    /// Queue `index`, if the driver has set it up.
    pub fn get(&mut self, index: usize) -> Option<Port<'_>> {
        let queue = self.running.get_mut(index)?.as_mut()?;
        Some(Port {
            ram: self.ram,
            queue,
            index,
        })
    }

    /// Guest memory.
    pub fn ram(&self) -> &'a GuestRam {
        self.ram
    }
}

/// One queue with the memory it lies in.
#[derive(Debug)]
pub struct Port<'a> {
    ram: &'a GuestRam,
    queue: &'a mut RunningQueue,
    index: usize,
}

impl<'a> Port<'a> {
    /// Guest memory.
    pub fn ram(&self) -> &'a GuestRam {
        self.ram
    }

    /// Takes the next available chain into `chain`; whether there was one.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, Fault> {
        let result = self.queue.pop(self.ram, chain);
        result.map_err(|error| self.fault(error))
    }

    /// Makes the last `count` chains that were popped available again.
    pub fn unpop(&mut self, count: u16) {
        self.queue.unpop(count);
    }

    /// Gives the chain from `head` back, with `written` bytes of its writable part filled. The
    /// driver sees it at the end of the batch, or at the next [`Port::publish`].
    pub fn push(&mut self, head: u16, written: u32) -> Result<(), Fault> {
        let result = self.queue.stage(self.ram, head, written);
        result.map_err(|error| self.fault(error))
    }

    /// Shows the driver what was given back so far.
    pub fn publish(&mut self) -> Result<(), Fault> {
        let result = self.queue.publish(self.ram);
        result.map_err(|error| self.fault(error))
    }

    /// Asks for a doorbell with the next chain. `true`: one is there already, go on. Whoever ends a
    /// batch with [`Progress::Done`] has listened to each queue that it waits for.
    pub fn listen(&mut self) -> Result<bool, Fault> {
        let result = self.queue.listen(self.ram);
        result.map_err(|error| self.fault(error))
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// The error as this queue's fault, for what only the device can judge.
    pub fn fault(&self, error: QueueError) -> Fault {
        Fault {
            queue: self.index,
            error,
        }
    }
}
