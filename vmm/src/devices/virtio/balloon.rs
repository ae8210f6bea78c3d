//! The balloon (virtio 1.2, 5.5): takes memory that the guest gives up, and gives it to the host.
//!
//! Pages that the guest puts into the balloon, and free pages that it reports, are taken out of
//! this process: the guest finds zeros there. It cannot be made to, and whatever it names is its
//! own memory: nobody else can be hurt. Work is done in small batches, however much is named.

mod pages;
#[cfg(test)]
mod tests;

use slice_abi::device::device_id;
use slice_abi::info::Range;

pub use pages::{NUMBER_BYTES, PAGE_BYTES, parse, runs};

use super::backend::{Backend, Counter, Fault, Identity, Order, Port, Progress, Queues};
use super::chain::Chain;
use super::queue::QueueError;
use super::transfer::{read_at, total};
use crate::kvm::memory::GuestRam;
use crate::nanos::Nanos;

/// Index of the queue of pages put into the balloon.
const INFLATE: usize = 0;
/// Index of the queue of pages taken out again.
const DEFLATE: usize = 1;
/// Index of the queue of free pages. The standard's table calls it 4, but the queues of features
/// that are not offered, here 2 and 3, do not exist, and drivers number those that do without gaps.
const REPORTING: usize = 2;
/// Descriptors of each queue.
const QUEUE_SIZE: u16 = 64;
/// A guest short of memory may take pages back unasked (`VIRTIO_BALLOON_F_DEFLATE_ON_OOM`).
const F_DEFLATE_ON_OOM: u64 = 1 << 2;
/// The guest reports free pages (`VIRTIO_BALLOON_F_PAGE_REPORTING`).
const F_REPORTING: u64 = 1 << 5;
/// Where in the configuration the guest says how much the balloon holds.
const ACTUAL: usize = 4;

/// Steps of a batch on each queue. The most costly ones are [`NUMBERS`] ranges of one page each.
const STEPS: usize = 4;
/// Page numbers read in one step.
const NUMBERS: usize = 256;
/// Bytes of reported memory given back in one step.
const REPORTED_STEP: u64 = 8 << 20;

/// A balloon.
#[derive(Debug)]
pub struct Balloon {
    memory_pages: u32,
    /// Pages that it is to hold, and pages that the guest says it holds.
    config: [u8; 8],
    reporting: bool,
    inflating: Work,
    reported: Work,
    inflated_pages: u64,
    deflated_pages: u64,
    refused_pages: u64,
    reported_bytes: u64,
}

/// A chain that is being worked off, if `busy`.
#[derive(Debug, Default)]
struct Work {
    chain: Chain,
    busy: bool,
    /// Bytes of page numbers, or whole buffers, that are done.
    done: u64,
    /// Bytes of the present buffer that are done.
    within: u64,
}

impl Work {
    /// Begins the next chain, if there is one.
    fn begin(&mut self, port: &mut Port<'_>) -> Result<bool, Fault> {
        while !port.pop(&mut self.chain)? {
            if !port.listen()? {
                return Ok(false);
            }
        }
        (self.busy, self.done, self.within) = (true, 0, 0);
        Ok(true)
    }

    fn end(&mut self, port: &mut Port<'_>) -> Result<(), Fault> {
        self.busy = false;
        port.push(self.chain.head, 0)
    }
}

impl Balloon {
    /// A balloon that is to hold `mib` of `memory_bytes`.
    pub fn new(mib: u64, memory_bytes: u64) -> Self {
        let mut balloon = Self {
            memory_pages: u32::try_from(memory_bytes / PAGE_BYTES).unwrap_or(u32::MAX),
            config: [0; 8],
            reporting: false,
            inflating: Work::default(),
            reported: Work::default(),
            inflated_pages: 0,
            deflated_pages: 0,
            refused_pages: 0,
            reported_bytes: 0,
        };
        balloon.set_target(mib);
        balloon
    }

    fn set_target(&mut self, mib: u64) {
        let pages = mib.saturating_mul((1 << 20) / PAGE_BYTES);
        let pages = u32::try_from(pages).unwrap_or(u32::MAX);
        let pages = pages.min(self.memory_pages);
        self.config[..ACTUAL].copy_from_slice(&pages.to_le_bytes());
    }

    fn config_word(&self, at: usize) -> u64 {
        let word = self.config[at..].first_chunk();
        word.map_or(0, |word| u64::from(u32::from_le_bytes(*word)))
    }

    /// Gives pages back that the guest has put into the balloon. Whether there may be more.
    fn inflate(&mut self, port: &mut Port<'_>) -> Result<bool, Fault> {
        for _ in 0..STEPS {
            if !self.inflating.busy {
                if !self.inflating.begin(port)? {
                    return Ok(false);
                }
                if !self.inflating.chain.writable.is_empty() {
                    return Err(port.fault(QueueError::Direction));
                }
            }
            let mut bytes = [0; NUMBERS * NUMBER_BYTES];
            let work = &mut self.inflating;
            let len = read_at(&work.chain, work.done, port.ram(), &mut bytes)
                .map_err(|error| port.fault(error))?;
            work.done += len as u64;
            if len < bytes.len() {
                work.end(port)?;
            }
            for run in runs(parse(&bytes[..len])) {
                self.take(run, port.ram());
            }
        }
        Ok(true)
    }

    fn take(&mut self, run: Range, ram: &GuestRam) {
        match ram.discard(run) {
            Ok(bytes) => self.inflated_pages += bytes / PAGE_BYTES,
            Err(_) => self.refused_pages += run.len / PAGE_BYTES,
        }
    }

    /// Counts pages that the guest takes out of the balloon: it may use them without asking.
    fn deflate(&mut self, port: &mut Port<'_>) -> Result<bool, Fault> {
        let mut work = Work::default();
        for _ in 0..STEPS {
            if !work.begin(port)? {
                return Ok(false);
            }
            if !work.chain.writable.is_empty() {
                return Err(port.fault(QueueError::Direction));
            }
            self.deflated_pages += total(&work.chain.readable) / NUMBER_BYTES as u64;
            work.end(port)?;
        }
        Ok(true)
    }

    /// Gives free pages back that the guest reports: buffers that it will not look into before they
    /// are used, for whatever they then hold.
    fn report(&mut self, port: &mut Port<'_>) -> Result<bool, Fault> {
        let mut left = STEPS as u64 * REPORTED_STEP;
        for _ in 0..NUMBERS {
            if !self.reported.busy {
                if !self.reported.begin(port)? {
                    return Ok(false);
                }
                if !self.reported.chain.readable.is_empty() {
                    return Err(port.fault(QueueError::Direction));
                }
            }
            let work = &mut self.reported;
            let Some(buffer) = work.chain.writable.get(work.done as usize) else {
                work.end(port)?;
                continue;
            };
            let rest = Range {
                start: buffer.address.0 + work.within,
                len: u64::from(buffer.len) - work.within,
            };
            // Cut where pages end, so that none is lost between two steps.
            let cut = (rest.start + REPORTED_STEP.min(left)) / PAGE_BYTES * PAGE_BYTES;
            let len = (cut - rest.start).min(rest.len);
            let part = Range { len, ..rest };
            let given = port.ram().discard(part);
            self.reported_bytes += given.map_err(|_| port.fault(QueueError::Rings))?;
            left -= len;
            if len == rest.len {
                (work.done, work.within) = (work.done + 1, 0);
            } else {
                work.within += len;
            }
            if left < PAGE_BYTES {
                break;
            }
        }
        Ok(true)
    }
}

impl Backend for Balloon {
    fn identity(&self) -> Identity {
        Identity {
            id: device_id::BALLOON,
            tag: "balloon".to_owned(),
            features: F_DEFLATE_ON_OOM | F_REPORTING,
            queue_sizes: vec![QUEUE_SIZE; 3],
        }
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    /// Only how much the balloon holds can be written, as a whole and within memory.
    fn write_config(&mut self, offset: usize, data: &[u8]) -> bool {
        let (ACTUAL, Ok(word)) = (offset, <[u8; 4]>::try_from(data)) else {
            return false;
        };
        let sound = u32::from_le_bytes(word) <= self.memory_pages;
        if sound {
            self.config[ACTUAL..].copy_from_slice(&word);
        }
        sound
    }

    fn start(&mut self, features: u64) {
        self.reporting = features & F_REPORTING != 0;
    }

    fn serve(&mut self, queues: &mut Queues<'_>, _now: Nanos) -> Result<Progress, Fault> {
        let mut more = false;
        if let Some(mut port) = queues.get(INFLATE) {
            more |= self.inflate(&mut port)?;
        }
        if let Some(mut port) = queues.get(DEFLATE) {
            more |= self.deflate(&mut port)?;
        }
        if self.reporting
            && let Some(mut port) = queues.get(REPORTING)
        {
            more |= self.report(&mut port)?;
        }
        Ok(if more { Progress::More } else { Progress::Done })
    }

    fn stop(&mut self) -> bool {
        self.inflating.busy = false;
        self.reported.busy = false;
        // The driver begins with an empty balloon (virtio 1.2, 5.5.5).
        self.config[ACTUAL..].fill(0);
        true
    }

    fn order(&mut self, order: Order) -> bool {
        let Order::Balloon(mib) = order else {
            return false;
        };
        self.set_target(mib);
        true
    }

    fn counters(&self) -> Vec<Counter> {
        vec![
            ("target_pages", self.config_word(0)),
            ("actual_pages", self.config_word(ACTUAL)),
            ("inflated_pages", self.inflated_pages),
            ("deflated_pages", self.deflated_pages),
            ("refused_pages", self.refused_pages),
            ("reported_bytes", self.reported_bytes),
        ]
    }
}
