//! The console device (virtio 1.2, 5.3): what the guest prints goes to an [`Output`].
//!
//! One port, no multiport, no configuration space in use. Transmit buffers are served when the
//! guest rings the doorbell, on the vCPU that rang: output costs its own slice, nobody else. A turn
//! is bounded and never waits; what is left is told as [`Outcome::Unfinished`], and the vCPU goes on
//! with it after it has looked whether it should.

use slice_abi::device::{DeviceEntry, TAG_BYTES, device_id};
use vm_memory::{Bytes, GuestAddress};

use super::chain::Chain;
use super::mmio::{Effect, Transport};
use super::queue::{QueueError, RunningQueue};
use crate::devices::output::{Output, PIECE, Room};
use crate::kvm::memory::GuestRam;

/// Index of the transmit queue; queue 0 receives.
const TRANSMIT: usize = 1;
/// Descriptors of each queue.
const QUEUE_SIZE: u16 = 64;
/// Pieces of output, whole chains or parts of one, in a turn.
const TURN: usize = 64;

/// A console: its registers, its running transmit queue, and where output goes.
#[derive(Debug)]
pub struct Console {
    transport: Transport,
    transmit: Option<RunningQueue>,
    /// The chain being printed and the bytes of it that have been.
    printing: Option<(Chain, u64)>,
    output: Output,
}

/// What the outside must know of a register access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    Nothing,
    /// A used ring moved: idle vCPUs must look.
    UsedRingMoved,
    /// There is more to do, with [`Console::go_on`].
    Unfinished {
        /// A used ring moved already.
        moved: bool,
    },
    /// The access was not a valid one.
    Ignored,
    /// The device has failed and says so to its driver.
    Failed(QueueError),
}

impl Console {
    /// A console that prints to `output`.
    pub fn new(output: Output) -> Self {
        let transport = Transport::new(device_id::CONSOLE, 0, &[QUEUE_SIZE, QUEUE_SIZE]);
        Self {
            transport,
            transmit: None,
            printing: None,
            output,
        }
    }

    /// Its entry in the device table.
    pub fn entry(&self, window: u64, state: u64) -> DeviceEntry {
        let mut tag = [0; TAG_BYTES];
        tag[..7].copy_from_slice(b"console");
        DeviceEntry {
            id: self.transport.device_id(),
            queue_count: self.transport.queues().len() as u32,
            queue_size_max: u32::from(QUEUE_SIZE),
            reserved: 0,
            window,
            features: self.transport.device_features(),
            state,
            tag,
        }
    }

    /// When its output may take more.
    pub fn room(&self) -> Room {
        self.output.room()
    }

    /// Reads a register.
    pub fn read(&self, offset: u64) -> u32 {
        self.transport.read(offset)
    }

    /// Writes a register and does what follows from it.
    pub fn write(&mut self, offset: u64, value: u32, ram: &GuestRam) -> Outcome {
        match self.transport.write(offset, value) {
            Effect::None => Outcome::Nothing,
            Effect::Ignored => Outcome::Ignored,
            Effect::Reset => {
                self.stop();
                Outcome::Nothing
            }
            Effect::Activate => self.checked(|console| console.activate(ram)),
            Effect::Notify(TRANSMIT) => self.go_on(ram),
            Effect::Notify(_) => Outcome::Nothing,
        }
    }

    /// Prints what waits to be printed, for one turn.
    pub fn go_on(&mut self, ram: &GuestRam) -> Outcome {
        self.checked(|console| console.transmit(ram))
    }

    fn checked(
        &mut self,
        action: impl FnOnce(&mut Self) -> Result<Outcome, QueueError>,
    ) -> Outcome {
        action(self).unwrap_or_else(|error| {
            self.stop();
            self.transport.needs_reset();
            Outcome::Failed(error)
        })
    }

    fn stop(&mut self) {
        self.transmit = None;
        self.printing = None;
    }

    fn activate(&mut self, ram: &GuestRam) -> Result<Outcome, QueueError> {
        // The receive queue is checked, too: a driver should learn of its mistake at once.
        let queues = self.transport.queues().iter().enumerate();
        for (index, config) in queues.filter(|(_, queue)| queue.ready) {
            let queue = config.start(ram)?;
            if index == TRANSMIT {
                self.transmit = Some(queue);
            }
        }
        Ok(Outcome::Nothing)
    }

    fn transmit(&mut self, ram: &GuestRam) -> Result<Outcome, QueueError> {
        let Some(queue) = &mut self.transmit else {
            return Ok(Outcome::Ignored);
        };
        let mut moved = false;
        for _ in 0..TURN {
            let (chain, done) = match self.printing.take() {
                Some(printing) => printing,
                None => match queue.pop(ram)? {
                    Some(chain) if chain.writable.is_empty() => (chain, 0),
                    Some(_) => return Err(QueueError::Direction),
                    None if moved => return Ok(Outcome::UsedRingMoved),
                    None => return Ok(Outcome::Nothing),
                },
            };
            let mut piece = [0; PIECE];
            let len = read_piece(&chain, done, ram, &mut piece)?;
            if len == 0 {
                queue.push(ram, &chain, 0)?;
                moved = true;
                continue;
            }
            let written = self.output.write(&piece[..len]);
            self.printing = Some((chain, done + written as u64));
            if written == 0 {
                break;
            }
        }
        Ok(Outcome::Unfinished { moved })
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
