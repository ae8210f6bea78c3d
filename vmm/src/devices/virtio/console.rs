//! The console device (virtio 1.2, 5.3): what the guest prints goes to an [`Output`].
//!
//! One port, no multiport. A batch never waits: what does not go through stays where it is until
//! the output has room again.

use slice_abi::device::device_id;
use vm_memory::{Bytes, GuestAddress};

use super::backend::{
    Backend, Counter, Fault, Identity, Interest, Nanos, Port, Progress, Queues, Source,
};
use super::chain::Chain;
use super::queue::QueueError;
use crate::devices::output::{Output, PIECE};
use crate::kvm::memory::GuestRam;

/// Index of the transmit queue; queue 0 receives.
const TRANSMIT: usize = 1;
/// Descriptors of each queue.
const QUEUE_SIZE: u16 = 64;
/// Pieces of output, whole chains or parts of one, in a batch.
const PIECES: usize = 64;

/// A console.
#[derive(Debug)]
pub struct Console {
    /// The chain being printed, if `printing`, and the bytes of it that have been.
    chain: Chain,
    done: u64,
    printing: bool,
    output: Output,
    printed_bytes: u64,
}

impl Console {
    /// A console that prints to `output`.
    pub fn new(output: Output) -> Self {
        Self {
            chain: Chain::default(),
            done: 0,
            printing: false,
            output,
            printed_bytes: 0,
        }
    }

    /// Prints one piece of the present chain, or gives it back if it is done. `false` if there is
    /// no room for output.
    fn print(&mut self, port: &mut Port<'_>) -> Result<bool, Fault> {
        let mut piece = [0; PIECE];
        let len = read_piece(&self.chain, self.done, port.ram(), &mut piece)
            .map_err(|error| port.fault(error))?;
        if len == 0 {
            self.printing = false;
            port.push(self.chain.head, 0)?;
            return Ok(true);
        }
        let written = self.output.write(&piece[..len]) as u64;
        self.done += written;
        self.printed_bytes += written;
        Ok(written > 0)
    }
}

impl Backend for Console {
    fn identity(&self) -> Identity {
        Identity {
            id: device_id::CONSOLE,
            tag: "console".to_owned(),
            features: 0,
            queue_sizes: vec![QUEUE_SIZE, QUEUE_SIZE],
        }
    }

    fn start(&mut self, _features: u64) {}

    fn serve(&mut self, queues: &mut Queues<'_>, _now: Nanos) -> Result<Progress, Fault> {
        let Some(mut port) = queues.get(TRANSMIT) else {
            return Ok(Progress::Done);
        };
        for _ in 0..PIECES {
            if !self.printing {
                if !port.pop(&mut self.chain)? {
                    if port.listen()? {
                        continue;
                    }
                    return Ok(Progress::Done);
                }
                if !self.chain.writable.is_empty() {
                    return Err(port.fault(QueueError::Direction));
                }
                (self.printing, self.done) = (true, 0);
            }
            if !self.print(&mut port)? {
                return Ok(Progress::Waiting);
            }
        }
        Ok(Progress::More)
    }

    fn stop(&mut self) -> bool {
        self.printing = false;
        true
    }

    fn sources(&self) -> Vec<Source<'_>> {
        vec![Source {
            fd: self.output.fd(),
            interest: Interest::Write,
        }]
    }

    fn counters(&self) -> Vec<Counter> {
        vec![("printed_bytes", self.printed_bytes)]
    }
}

/// Copies what follows the first `done` bytes of a chain, as much as fits into `piece`.
fn read_piece(
    chain: &Chain,
    done: u64,
    ram: &GuestRam,
    piece: &mut [u8],
) -> Result<usize, QueueError> {
    let (mut skip, mut filled) = (done, 0);
    for buffer in &chain.readable {
        let len = u64::from(buffer.len);
        if skip >= len {
            skip -= len;
            continue;
        }
        let part = (len - skip).min((piece.len() - filled) as u64) as usize;
        let at = GuestAddress(buffer.address.0 + skip);
        ram.read_slice(&mut piece[filled..filled + part], at)
            .map_err(|_| QueueError::Rings)?;
        (skip, filled) = (0, filled + part);
    }
    Ok(filled)
}
