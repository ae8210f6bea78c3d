//! The console device (virtio 1.2, 5.3): what the guest prints goes to an [`Output`].
//!
//! One port, no multiport, no configuration space in use. Transmit buffers are served when the
//! guest rings the doorbell, on the vCPU that rang: output costs its own slice, nobody else.

use slice_abi::device::{DeviceEntry, TAG_BYTES, device_id};
use vm_memory::Bytes;

use super::chain::{Buffer, Chain};
use super::mmio::{Effect, Transport};
use super::queue::{QueueError, RunningQueue};
use crate::devices::output::{Output, PIECE, Patience};
use crate::kvm::memory::GuestRam;

/// Index of the transmit queue; queue 0 receives.
const TRANSMIT: usize = 1;
/// Descriptors of each queue.
const QUEUE_SIZE: u16 = 64;
/// Chains served per doorbell before the device looks whether it should stop.
const BATCH: usize = QUEUE_SIZE as usize;

/// A console: its registers, its running transmit queue, and where output goes.
#[derive(Debug)]
pub struct Console {
    transport: Transport,
    transmit: Option<RunningQueue>,
    output: Output,
}

/// What the outside must know of a register access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    Nothing,
    /// A used ring moved: idle vCPUs must look.
    UsedRingMoved,
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
            output,
        }
    }

    /// Its entry in the device table.
    pub fn entry(&self, window: u64) -> DeviceEntry {
        let mut tag = [0; TAG_BYTES];
        tag[..7].copy_from_slice(b"console");
        DeviceEntry {
            id: self.transport.device_id(),
            queue_count: self.transport.queues().len() as u32,
            queue_size_max: u32::from(QUEUE_SIZE),
            reserved: 0,
            window,
            features: self.transport.device_features(),
            tag,
        }
    }

    /// Reads a register.
    pub fn read(&self, offset: u64) -> u32 {
        self.transport.read(offset)
    }

    /// Writes a register and does what follows from it.
    pub fn write(
        &mut self,
        offset: u64,
        value: u32,
        ram: &GuestRam,
        patience: &mut dyn Patience,
    ) -> Outcome {
        match self.transport.write(offset, value) {
            Effect::None => Outcome::Nothing,
            Effect::Ignored => Outcome::Ignored,
            Effect::Reset => {
                self.transmit = None;
                Outcome::Nothing
            }
            Effect::Activate => self.checked(|console| console.activate(ram)),
            Effect::Notify(TRANSMIT) => self.checked(|console| console.transmit(ram, patience)),
            Effect::Notify(_) => Outcome::Nothing,
        }
    }

    fn checked(
        &mut self,
        action: impl FnOnce(&mut Self) -> Result<Outcome, QueueError>,
    ) -> Outcome {
        action(self).unwrap_or_else(|error| {
            self.transmit = None;
            self.transport.needs_reset();
            Outcome::Failed(error)
        })
    }

    fn activate(&mut self, ram: &GuestRam) -> Result<Outcome, QueueError> {
        // The receive queue is checked, too: a driver should learn of its mistake at once.
        for (index, config) in self
            .transport
            .queues()
            .iter()
            .enumerate()
            .filter(|(_, q)| q.ready)
        {
            let queue = config.start(ram)?;
            if index == TRANSMIT {
                self.transmit = Some(queue);
            }
        }
        Ok(Outcome::Nothing)
    }

    fn transmit(
        &mut self,
        ram: &GuestRam,
        patience: &mut dyn Patience,
    ) -> Result<Outcome, QueueError> {
        let Some(queue) = &mut self.transmit else {
            return Ok(Outcome::Ignored);
        };
        let mut moved = false;
        for _ in 0..BATCH {
            let Some(chain) = queue.pop(ram)? else { break };
            print(&chain, ram, &mut self.output, patience)?;
            queue.push(ram, &chain, 0)?;
            moved = true;
        }
        Ok(if moved {
            Outcome::UsedRingMoved
        } else {
            Outcome::Nothing
        })
    }
}

fn print(
    chain: &Chain,
    ram: &GuestRam,
    output: &mut Output,
    patience: &mut dyn Patience,
) -> Result<(), QueueError> {
    if !chain.writable.is_empty() {
        return Err(QueueError::Direction);
    }
    let mut piece = [0; PIECE];
    for &Buffer { address, len } in &chain.readable {
        let mut done = 0;
        while done < len {
            let part = &mut piece[..PIECE.min((len - done) as usize)];
            let at = vm_memory::GuestAddress(address.0 + u64::from(done));
            ram.read_slice(part, at).map_err(|_| QueueError::Rings)?;
            if !patience.go_on() {
                return Ok(());
            }
            output.write(part, patience);
            done += part.len() as u32;
        }
    }
    Ok(())
}
