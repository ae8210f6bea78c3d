//! Receive chains that were taken from the queue and wait for a frame.
//!
//! They are taken as a frame needs them, used in order, and what a frame leaves over serves the
//! next: no chain is taken twice.

use std::collections::VecDeque;

use super::frame::{HEADER_BYTES, Header};
use crate::devices::guest_io::{Iovecs, ToGuest, Unreachable};
use crate::devices::virtio::backend::{Fault, Port};
use crate::devices::virtio::chain::Chain;
use crate::devices::virtio::queue::QueueError;
use crate::devices::virtio::transfer;
use crate::kvm::memory::GuestRam;

/// The chains.
#[derive(Debug, Default)]
pub(super) struct Stock {
    held: VecDeque<Held>,
    /// Used ones, whose memory is used again.
    spare: Vec<Chain>,
    /// What the chains hold together.
    bytes: u64,
    /// Descriptors that they have together.
    descriptors: usize,
}

#[derive(Debug)]
struct Held {
    chain: Chain,
    bytes: u64,
}

impl Stock {
    /// Takes chains until they hold `wanted` bytes together, as far as there are chains.
    pub(super) fn fill(&mut self, port: &mut Port<'_>, wanted: u64) -> Result<(), Fault> {
        while self.bytes < wanted && !self.is_all_there_can_be(port.size()) {
            let mut chain = self.spare.pop().unwrap_or_default();
            if !port.pop(&mut chain)? {
                self.spare.push(chain);
                break;
            }
            if !chain.readable.is_empty() {
                return Err(port.fault(QueueError::Direction));
            }
            let bytes = transfer::total(&chain.writable);
            // Virtio 1.2, 5.1.6.3.1: room for the header in each, at least.
            if bytes < HEADER_BYTES as u64 {
                return Err(port.fault(QueueError::Short(bytes)));
            }
            self.bytes += bytes;
            self.descriptors += chain.writable.len();
            self.held.push_back(Held { chain, bytes });
        }
        Ok(())
    }

    /// Whether there are no chains.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Bytes that the chains hold together, one header's room included.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of a frame, with its header, that the chains can hold: all of them if it may lie in
    /// several.
    pub(super) fn room(&self, mergeable: bool) -> u64 {
        match mergeable {
            true => self.bytes,
            false => self.held.front().map_or(0, |held| held.bytes),
        }
    }

    /// Whether a driver with a queue of `size` descriptors may have no more to give. One that uses
    /// indirect descriptors may, but this is also as many vectors as one call should get.
    pub(super) fn is_all_there_can_be(&self, size: u16) -> bool {
        self.descriptors >= usize::from(size)
    }

    /// Adds the first chains, about as many as hold `wanted` bytes, to `vectors`, but for their first
    /// `skip` bytes. Gives the bytes that they hold, with those.
    pub(super) fn offer(
        &self,
        vectors: &mut Iovecs<'_, ToGuest>,
        mut skip: u64,
        wanted: u64,
    ) -> Result<u64, Unreachable> {
        let mut offered = 0;
        for held in &self.held {
            if offered >= wanted {
                break;
            }
            vectors.add(&held.chain.writable, skip, u64::MAX)?;
            offered += held.bytes;
            skip = skip.saturating_sub(held.bytes);
        }
        Ok(offered)
    }

    /// Copies `bytes` behind the first `offset` bytes of the chains.
    pub(super) fn copy_in(
        &self,
        offset: u64,
        mut bytes: &[u8],
        ram: &GuestRam,
    ) -> Result<(), QueueError> {
        let mut skip = offset;
        for held in &self.held {
            if skip >= held.bytes {
                skip -= held.bytes;
                continue;
            }
            let copied = transfer::write_at(&held.chain, skip, ram, bytes)?;
            (bytes, skip) = (&bytes[copied..], 0);
            if bytes.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Gives back the first chains, which hold a frame of `total` bytes, after writing its header.
    pub(super) fn use_up(
        &mut self,
        port: &mut Port<'_>,
        mut header: Header,
        total: u64,
    ) -> Result<(), Fault> {
        let sizes = self.held.iter().map(|held| held.bytes);
        header.buffers = chains_for(total, sizes);
        if let Some(first) = self.held.front() {
            transfer::write_at(&first.chain, 0, port.ram(), &header.bytes())
                .map_err(|error| port.fault(error))?;
        }
        let (mut left, count) = (total, usize::from(header.buffers));
        for held in self.held.drain(..count) {
            let written = left.min(held.bytes);
            port.push(held.chain.head, written as u32)?;
            left -= written;
            self.bytes -= held.bytes;
            self.descriptors -= held.chain.writable.len();
            self.spare.push(held.chain);
        }
        Ok(())
    }
}

/// How many chains of these sizes a frame of `total` bytes fills.
fn chains_for(total: u64, sizes: impl Iterator<Item = u64>) -> u16 {
    let (mut left, mut count) = (total, 0);
    for size in sizes {
        if left == 0 {
            break;
        }
        left = left.saturating_sub(size);
        count += 1;
    }
    count
}
