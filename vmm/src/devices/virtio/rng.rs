//! The entropy device (virtio 1.2, 5.4): fills the guest's buffers from the host's generator.
//!
//! What one chain and one second can cost is capped: a guest that wants more is given less, or
//! later, and seeds a generator of its own.

use rustix::rand::{GetRandomFlags, getrandom};
use slice_abi::device::device_id;

use super::backend::{BATCH, Backend, Counter, Fault, Identity, Progress, Queues};
use super::chain::Chain;
use super::queue::QueueError;
use super::transfer::{total, write_at};
use crate::nanos::Nanos;
use crate::net::bucket::Bucket;

/// Descriptors of the only queue.
const QUEUE_SIZE: u16 = 16;
/// Bytes that one chain is given at most; the used length tells how many they were.
const LARGEST_GIFT: u64 = 64 << 10;
/// Bytes a second.
const RATE: u64 = 1 << 20;
/// Bytes at once.
const BURST: u64 = 256 << 10;
/// Bytes asked of the host's generator at once.
const PIECE: usize = 4096;

/// An entropy source.
#[derive(Debug)]
pub struct Rng {
    chain: Chain,
    bucket: Bucket,
    random_bytes: u64,
    waits: u64,
}

impl Rng {
    /// A source that has given nothing yet.
    pub fn new() -> Self {
        Self {
            chain: Chain::default(),
            bucket: Bucket::new(RATE, BURST),
            random_bytes: 0,
            waits: 0,
        }
    }
}

impl Default for Rng {
    fn default() -> Self {
        Self::new()
    }
}

impl Backend for Rng {
    fn identity(&self) -> Identity {
        Identity {
            id: device_id::ENTROPY,
            tag: "rng".to_owned(),
            features: 0,
            queue_sizes: vec![QUEUE_SIZE],
        }
    }

    fn start(&mut self, _features: u64) {}

    fn serve(&mut self, queues: &mut Queues<'_>, now: Nanos) -> Result<Progress, Fault> {
        let Some(mut port) = queues.get(0) else {
            return Ok(Progress::Done);
        };
        for _ in 0..BATCH {
            if !port.pop(&mut self.chain)? {
                if port.listen()? {
                    continue;
                }
                return Ok(Progress::Done);
            }
            if !self.chain.readable.is_empty() {
                return Err(port.fault(QueueError::Direction));
            }
            let wanted = total(&self.chain.writable).min(LARGEST_GIFT);
            if self.bucket.available(now) < wanted {
                port.unpop(1);
                self.waits += 1;
                return Ok(Progress::At(self.bucket.ready_at(wanted, now)));
            }
            let mut given = 0;
            while given < wanted {
                let mut piece = [0; PIECE];
                let len = (wanted - given).min(PIECE as u64) as usize;
                // Waits only while the host has just been switched on. A host without a generator
                // gives nothing, and the used length says so.
                let Ok(len) = getrandom(&mut piece[..len], GetRandomFlags::empty()) else {
                    break;
                };
                write_at(&self.chain, given, port.ram(), &piece[..len])
                    .map_err(|error| port.fault(error))?;
                given += len as u64;
            }
            self.bucket.take(given);
            self.random_bytes += given;
            port.push(self.chain.head, given as u32)?;
        }
        Ok(Progress::More)
    }

    fn counters(&self) -> Vec<Counter> {
        vec![("random_bytes", self.random_bytes), ("waits", self.waits)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::virtio::mmio::register;
    use crate::devices::virtio::testing::{self, DATA, Driver, Piece};

    #[test]
    fn a_buffer_is_filled_to_its_length() {
        let mut driver = Driver::new(Box::new(Rng::new()));
        let head = driver.offer(
            0,
            &[Piece::writable(DATA, 100), Piece::writable(DATA + 200, 28)],
        );
        driver.ring(0);
        assert_eq!(driver.used(0), Some((head, 128)));
        assert_ne!(driver.read(DATA, 100), [0; 100]);
        assert_ne!(driver.read(DATA + 200, 28), [0; 28]);
        assert_eq!(driver.read(DATA + 228, 28), [0; 28]);
    }

    #[test]
    fn a_chain_is_given_no_more_than_the_largest_gift() {
        let mut driver = Driver::new(Box::new(Rng::new()));
        let head = driver.offer(0, &[Piece::writable(DATA, 1 << 20)]);
        driver.ring(0);
        assert_eq!(driver.used(0), Some((head, LARGEST_GIFT as u32)));
        assert_eq!(driver.read(DATA + LARGEST_GIFT, 64), [0; 64]);
    }

    #[test]
    fn a_greedy_guest_waits_for_exactly_what_is_missing() {
        let mut driver = Driver::new(Box::new(Rng::new()));
        for _ in 0..BURST / LARGEST_GIFT + 1 {
            driver.offer(0, &[Piece::writable(DATA, LARGEST_GIFT as u32)]);
        }
        let outcome = driver.ring(0);
        let at = outcome.again_at.unwrap();
        // What else its driver writes, at every interrupt, does not make it forget the moment.
        assert_eq!(driver.set(register::INTERRUPT_ACK, 1).again_at, Some(at));
        assert_eq!(
            at.0 - driver.now.0,
            (LARGEST_GIFT * 1_000_000_000).div_ceil(RATE)
        );
        assert_eq!(driver.take_used(0).len() as u64, BURST / LARGEST_GIFT);
        driver.now = Nanos(at.0 - 1);
        assert_eq!(driver.serve().again_at, Some(at));
        driver.now = at;
        assert_eq!(driver.settle().again_at, None);
        assert_eq!(driver.take_used(0).len(), 1);
    }

    #[test]
    fn a_reset_ends_the_wait_of_a_greedy_guest() {
        let mut driver = Driver::new(Box::new(Rng::new()));
        for _ in 0..BURST / LARGEST_GIFT + 1 {
            driver.offer(0, &[Piece::writable(DATA, LARGEST_GIFT as u32)]);
        }
        assert!(driver.ring(0).again_at.is_some());
        assert_eq!(driver.set(register::STATUS, 0).again_at, None);
    }

    #[test]
    fn a_chain_to_be_read_is_a_fault() {
        testing::expect_fault(Box::new(Rng::new()), 0, &[Piece::readable(DATA, 8)]);
        let mixed = [Piece::readable(DATA, 8), Piece::writable(DATA, 8)];
        testing::expect_fault(Box::new(Rng::new()), 0, &mixed);
    }

    #[test]
    fn hostile_rings_stop_the_device_until_reset() {
        testing::refuses_hostile_rings(&[0], || Box::new(Rng::new()));
    }
}
