//! The block device (virtio 1.2, 5.2): one queue, many requests at a time, in any order.
//!
//! Three layers: [`request`] says what a chain asks for, `work` does it with an engine of
//! [`crate::disk`], and this file takes chains from the queue and gives them back. A batch never
//! waits for the disk, and memory that a request names is the disk's until its chain is back.

mod config;
mod lane;
mod limit;
pub mod request;
mod slots;
mod tally;
#[cfg(test)]
mod tests;
mod work;

use slice_abi::device::device_id;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_S_IOERR,
    VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
};

use self::limit::Throttle;
use self::request::{
    Frame, HEADER_BYTES, LEAD_BYTES, Refusal, Request, Rules, SERIAL_BYTES, lead_bytes, parse,
};
use self::tally::Tally;
use self::work::{End, Work, choose_engine};
use super::backend::{
    BATCH, Backend, Counter, Fault, Identity, Interest, Port, Progress, Queues, Source,
};
use super::chain::Chain;
use super::queue::QueueError;
use super::transfer::{read_at, write_at};
use crate::disk::Disk;
use crate::disk::engine::{Engine, Target};
use crate::kvm::memory::GuestRam;
use crate::nanos::Nanos;
use crate::spec::DiskLimits;

pub use self::limit::{DiskBudget, SharedBudget};

/// Descriptors of the queue, and requests at a time.
const QUEUE_SIZE: u16 = 256;
/// Bytes, about, that one batch asks for at most: what lies in the page cache is copied at once.
const BATCH_BYTES: u64 = 8 << 20;
/// Looks at what is done in one batch.
const LOOKS: usize = 4;
/// What the host could not take is offered again after this time.
const AGAIN_NS: u64 = 1_000_000;

/// A block device.
#[derive(Debug)]
pub struct Block {
    tag: String,
    serial: [u8; SERIAL_BYTES],
    config: Vec<u8>,
    features: u64,
    rules: Rules,
    target: Target,
    stage: Stage,
    throttle: Throttle,
    /// The chain looked at.
    chain: Chain,
}

/// The engine is chosen when a driver first comes up: a sliver that never uses its disk does not
/// pay for one.
#[derive(Debug)]
enum Stage {
    Unused(Option<Disk>),
    Used(Box<Work>),
}

/// What follows a look at the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// It is empty, and its doorbell is listened to.
    All,
    /// There may be more than this batch takes.
    Enough,
    /// No more requests can be done at a time.
    Full,
    /// No more may be begun before this moment.
    Throttled(Nanos),
}

impl Block {
    /// A device for `disk`, with the serial number of a [`DiskSpec`](crate::spec::DiskSpec).
    pub fn new(disk: Disk, serial: &str, tag: &str) -> Self {
        let mut bytes = [0; SERIAL_BYTES];
        let len = serial.len().min(SERIAL_BYTES);
        bytes[..len].copy_from_slice(&serial.as_bytes()[..len]);
        Self {
            tag: tag.to_owned(),
            serial: bytes,
            config: config::space(&disk, QUEUE_SIZE).to_vec(),
            features: config::features(&disk),
            rules: Rules {
                bytes: disk.bytes(),
                read_only: disk.read_only(),
                discard: false,
                write_zeroes: false,
            },
            target: disk.target().clone(),
            stage: Stage::Unused(Some(disk)),
            throttle: Throttle::default(),
            chain: Chain::default(),
        }
    }

    /// The same, as disk number `disk` of its sliver, with limits of its own and a part of those of
    /// all disks.
    pub fn limited(self, disk: usize, own: &DiskLimits, shared: &SharedBudget) -> Self {
        Self {
            throttle: Throttle::new(disk, own, shared.clone()),
            ..self
        }
    }

    /// The same, with an engine of the caller's choice.
    pub fn with_engine(disk: Disk, serial: &str, tag: &str, engine: Box<dyn Engine>) -> Self {
        let mut block = Self::new(disk, serial, tag);
        block.use_engine(|_| engine);
        block
    }

    fn use_engine(&mut self, make: impl FnOnce(&Disk) -> Box<dyn Engine>) {
        if let Stage::Unused(disk) = &mut self.stage
            && let Some(disk) = disk.take()
        {
            let engine = make(&disk);
            self.stage = Stage::Used(Box::new(Work::new(disk, engine, &self.tag)));
        }
    }

    fn batch(&mut self, port: &mut Port<'_>, now: Nanos) -> Result<Progress, Fault> {
        let Stage::Used(work) = &mut self.stage else {
            return Ok(Progress::Done);
        };
        let mut taker = Taker {
            work,
            chain: &mut self.chain,
            rules: &self.rules,
            serial: &self.serial,
            throttle: &mut self.throttle,
            now,
            room: BATCH,
            bytes: BATCH_BYTES,
        };
        taker.work.engine().ignore();
        for _ in 0..LOOKS {
            taker.work.reap(port.ram());
            taker.give_back(port)?;
            let taken = taker.take(port);
            // Also what comes before a chain that is wrong.
            let submitted = taker.work.submit();
            taker.throttle.charge_bytes(taker.work.take_zeroed());
            if !submitted {
                return taken.map(|_| Progress::At(Nanos(now.0 + AGAIN_NS)));
            }
            let taken = taken?;
            if taken == Taken::Enough {
                break;
            }
            if taker.work.engine().listen() {
                taker.work.engine().ignore();
            } else if taker.work.ended.is_empty() {
                // Until a throttle's moment comes, what is done is told as when waiting.
                return Ok(match (taken, taker.work.engine().in_flight()) {
                    (Taken::Throttled(until), _) => Progress::At(until),
                    (_, 0) => Progress::Done,
                    _ => Progress::Waiting,
                });
            }
        }
        Ok(Progress::More)
    }
}

/// What takes chains and gives them back during a batch.
struct Taker<'a> {
    work: &'a mut Work,
    chain: &'a mut Chain,
    rules: &'a Rules,
    serial: &'a [u8; SERIAL_BYTES],
    throttle: &'a mut Throttle,
    now: Nanos,
    /// Chains that this batch may still take.
    room: usize,
    /// Bytes that they may still ask for.
    bytes: u64,
}

impl Taker<'_> {
    /// Takes chains and begins what they ask for.
    fn take(&mut self, port: &mut Port<'_>) -> Result<Taken, Fault> {
        loop {
            if self.work.slots.used() >= usize::from(port.size()) {
                return Ok(Taken::Full);
            }
            if self.room == 0 || self.bytes == 0 {
                return Ok(Taken::Enough);
            }
            if !port.pop(self.chain)? {
                if port.listen()? {
                    continue;
                }
                return Ok(Taken::All);
            }
            if let Err(until) = self.throttle.check(self.now) {
                port.unpop(1);
                return Ok(Taken::Throttled(until));
            }
            self.room -= 1;
            self.begin(port)?;
        }
    }

    fn begin(&mut self, port: &mut Port<'_>) -> Result<(), Fault> {
        let ram = port.ram();
        let Some(frame) = Frame::of(self.chain) else {
            return Err(port.fault(QueueError::Unanswerable));
        };
        let request = read_request(self.chain, frame, self.rules, ram);
        let request = request.map_err(|error| port.fault(error))?;
        let bytes = match request {
            Ok(Request::Read(extent) | Request::Write(extent)) => extent.len,
            _ => 0,
        };
        self.bytes = self.bytes.saturating_sub(bytes);
        self.throttle.charge_request(bytes);
        match request {
            Ok(Request::Serial) => {
                write_at(self.chain, 0, ram, self.serial).map_err(|error| port.fault(error))?;
                let written = SERIAL_BYTES as u32;
                answer(port, self.chain, VIRTIO_BLK_S_OK as u8, written)
            }
            Ok(request) => {
                self.work.begin(self.chain, request, ram);
                Ok(())
            }
            Err(refusal) => {
                self.work.tally.refuse(refusal);
                answer(port, self.chain, refusal.status(), 0)
            }
        }
    }

    /// Gives back what has ended, and shows it to a driver that is looking.
    fn give_back(&mut self, port: &mut Port<'_>) -> Result<(), Fault> {
        if self.work.ended.is_empty() {
            return Ok(());
        }
        while let Some((index, end)) = self.work.ended.pop() {
            let slot = self.work.slots.get(index);
            let (status, written) = match (end, &slot.request) {
                (End::Done, Request::Read(extent)) => (VIRTIO_BLK_S_OK, extent.len),
                (End::Done, _) => (VIRTIO_BLK_S_OK, 0),
                (End::Failed, _) => (VIRTIO_BLK_S_IOERR, 0),
                (End::Unsupported, _) => (VIRTIO_BLK_S_UNSUPP, 0),
            };
            let answered = answer(port, &slot.chain, status as u8, written as u32);
            self.work.slots.end(index);
            answered?;
        }
        port.publish()
    }
}

/// Reads what a chain asks for.
fn read_request(
    chain: &Chain,
    frame: Frame,
    rules: &Rules,
    ram: &GuestRam,
) -> Result<Result<Request, Refusal>, QueueError> {
    let mut lead = [0; LEAD_BYTES];
    let mut len = read_at(chain, 0, ram, &mut lead[..HEADER_BYTES])?;
    let wanted = lead.first_chunk().map_or(0, lead_bytes);
    if len == HEADER_BYTES && wanted > len {
        // All of it again: what is judged was read once.
        len = read_at(chain, 0, ram, &mut lead[..wanted])?;
    }
    Ok(parse(&lead[..len], frame, rules))
}

/// Gives a chain back with its status, after `written` bytes of data.
fn answer(port: &mut Port<'_>, chain: &Chain, status: u8, written: u32) -> Result<(), Fault> {
    // A chain without room for a status is never taken.
    let at = Frame::of(chain).map_or(0, |frame| frame.writable);
    write_at(chain, at, port.ram(), &[status]).map_err(|error| port.fault(error))?;
    port.push(chain.head, written + 1)
}

impl Backend for Block {
    fn identity(&self) -> Identity {
        Identity {
            id: device_id::BLOCK,
            tag: self.tag.clone(),
            features: self.features,
            queue_sizes: vec![QUEUE_SIZE],
        }
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn start(&mut self, features: u64) {
        let has = |bit: u32| features & 1 << bit != 0;
        self.rules.discard = has(VIRTIO_BLK_F_DISCARD);
        self.rules.write_zeroes = has(VIRTIO_BLK_F_WRITE_ZEROES);
        let tag = self.tag.clone();
        self.use_engine(|disk| choose_engine(disk, QUEUE_SIZE, &tag));
        if let Stage::Used(work) = &mut self.stage {
            // Virtio 1.2, 5.2.6.2: what such a driver writes is stable once it is done.
            work.set_write_through(!has(VIRTIO_BLK_F_FLUSH));
        }
    }

    fn serve(&mut self, queues: &mut Queues<'_>, now: Nanos) -> Result<Progress, Fault> {
        match queues.get(0) {
            Some(mut port) => self.batch(&mut port, now),
            None => Ok(Progress::Done),
        }
    }

    fn stop(&mut self) -> bool {
        self.throttle.reset();
        self.drained()
    }

    fn drained(&mut self) -> bool {
        match &mut self.stage {
            Stage::Unused(_) => true,
            Stage::Used(work) => work.forget(),
        }
    }

    fn sources(&self) -> Vec<Source<'_>> {
        vec![Source {
            fd: self.target.event(),
            interest: Interest::Read,
        }]
    }

    fn counters(&self) -> Vec<Counter> {
        let mut counters = match &self.stage {
            Stage::Unused(_) => Tally::default().counters(),
            Stage::Used(work) => work.counters(),
        };
        counters.push(("throttled", self.throttle.throttled()));
        counters
    }
}
