//! A whole virtio device: the transport's registers, its queues, and a backend behind them.
//!
//! Says after each access or event what has to follow, in an [`Outcome`]. The first thing wrong
//! with a queue stops the device until its driver resets it (virtio 1.2, 2.1.2): it costs nothing
//! more until then.

use std::sync::atomic::{Ordering, fence};

use slice_abi::device::{CONFIG_BYTES, DeviceEntry, DeviceState, TAG_BYTES};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::backend::{Backend, Fault, Identity, Order, Progress, Queues, Source};
use super::mmio::{Effect, Transport, interrupt, register};
use super::queue::RunningQueue;
use crate::control::proto::DeviceStatus;
use crate::kvm::memory::GuestRam;
use crate::nanos::Nanos;

/// Features that every device here offers.
const COMMON_FEATURES: u64 = 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// A device.
#[derive(Debug)]
pub struct VirtioDevice {
    identity: Identity,
    transport: Transport,
    queues: Vec<Option<RunningQueue>>,
    backend: Box<dyn Backend>,
    /// The driver has reset it, and something still uses guest memory.
    draining: bool,
    /// When its backend wants to go on: until the next batch, whatever is written meanwhile.
    again_at: Option<Nanos>,
    config: Vec<u8>,
    generation: u32,
    /// Of which configuration, and of which fault, the driver was told by an interrupt.
    told: (u32, u64),
    doorbells: u64,
    batches: u64,
    faults: u64,
    last_fault: Option<Fault>,
}

/// What has to follow an access or an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The driver wants to be told: idle vCPUs look at their rings.
    pub notify: bool,
    /// There is more to serve at once.
    pub more: bool,
    /// There is more to serve at this moment.
    pub again_at: Option<Nanos>,
    /// It waits for its sources.
    pub waiting: bool,
    /// The access was not a valid one.
    pub ignored: bool,
    /// The device has failed.
    pub fault: Option<Fault>,
}

impl VirtioDevice {
    /// A device as it is after reset.
    pub fn new(backend: Box<dyn Backend>) -> Self {
        let identity = backend.identity();
        let features = identity.features | COMMON_FEATURES;
        Self {
            transport: Transport::new(identity.id, features, &identity.queue_sizes),
            queues: identity.queue_sizes.iter().map(|_| None).collect(),
            config: backend.config().to_vec(),
            identity,
            backend,
            draining: false,
            again_at: None,
            // Memory starts with 0: the first publication writes the configuration.
            generation: 1,
            told: (1, 0),
            doorbells: 0,
            batches: 0,
            faults: 0,
            last_fault: None,
        }
    }

    /// What it is for.
    pub fn tag(&self) -> &str {
        &self.identity.tag
    }

    /// Its entry in the device table.
    pub fn entry(&self, window: u64, state: u64) -> DeviceEntry {
        let mut tag = [0; TAG_BYTES];
        let len = self.identity.tag.len().min(TAG_BYTES - 1);
        tag[..len].copy_from_slice(&self.identity.tag.as_bytes()[..len]);
        let sizes = self.identity.queue_sizes.iter();
        DeviceEntry {
            id: self.identity.id,
            queue_count: self.identity.queue_sizes.len() as u32,
            queue_size_max: sizes.copied().min().unwrap_or(0).into(),
            reserved: 0,
            window,
            features: self.transport.device_features(),
            state,
            tag,
        }
    }

    /// Descriptors that its backend wants watched.
    pub fn sources(&self) -> Vec<Source<'_>> {
        self.backend.sources()
    }

    /// Whether it has anything to do: otherwise nobody needs to look at it.
    pub fn is_active(&self) -> bool {
        self.transport.is_running() || self.draining
    }

    /// Answers a read of any width. `false` if there is nothing to be read in this way.
    pub fn read(&self, offset: u64, data: &mut [u8]) -> bool {
        data.fill(0);
        if let Some(at) = offset.checked_sub(register::CONFIG) {
            let config = usize::try_from(at)
                .ok()
                .and_then(|at| self.config.get(at..));
            let config = config.unwrap_or_default();
            let len = config.len().min(data.len());
            data[..len].copy_from_slice(&config[..len]);
            return true;
        }
        let Ok(word) = <&mut [u8; 4]>::try_from(data) else {
            return false;
        };
        let value = match offset {
            register::CONFIG_GENERATION => self.generation,
            _ => self.transport.read(offset),
        };
        *word = value.to_le_bytes();
        offset.is_multiple_of(4)
    }

    /// Does a write of any width and what follows from it.
    pub fn write(&mut self, offset: u64, data: &[u8], ram: &GuestRam, now: Nanos) -> Outcome {
        let outcome = self.do_write(offset, data, ram, now);
        Outcome {
            again_at: self.again_at,
            ..outcome
        }
    }

    fn do_write(&mut self, offset: u64, data: &[u8], ram: &GuestRam, now: Nanos) -> Outcome {
        let ignored = Outcome {
            ignored: true,
            ..Outcome::default()
        };
        if let Some(at) = offset.checked_sub(register::CONFIG) {
            if !self.transport.is_running() || !self.backend.write_config(at as usize, data) {
                return ignored;
            }
            self.refresh_config();
            return self.serve(ram, now);
        }
        let (Ok(word), true) = (<[u8; 4]>::try_from(data), offset.is_multiple_of(4)) else {
            return ignored;
        };
        match self.transport.write(offset, u32::from_le_bytes(word)) {
            Effect::None => Outcome::default(),
            Effect::Ignored => ignored,
            Effect::Reset => {
                self.stop();
                self.while_draining()
            }
            Effect::Activate => match self.activate(ram) {
                Ok(()) => self.serve(ram, now),
                Err(fault) => self.fail(fault),
            },
            Effect::Notify(_) => {
                self.doorbells += 1;
                self.serve(ram, now)
            }
        }
    }

    /// Source number `source` became ready. Guest memory is left alone.
    pub fn ready(&mut self, source: usize) {
        self.backend.ready(source);
    }

    /// Does what an operator asks; `false` if it is not this device's business.
    pub fn order(&mut self, order: Order) -> bool {
        let mine = self.backend.order(order);
        self.refresh_config();
        mine
    }

    /// Serves one batch.
    pub fn serve(&mut self, ram: &GuestRam, now: Nanos) -> Outcome {
        if self.draining {
            self.finish_drain();
            return self.while_draining();
        }
        if !self.transport.is_running() {
            return Outcome::default();
        }
        self.batches += 1;
        match self.serve_running(ram, now) {
            Ok(outcome) => {
                self.refresh_config();
                outcome
            }
            Err(fault) => self.fail(fault),
        }
    }

    fn serve_running(&mut self, ram: &GuestRam, now: Nanos) -> Result<Outcome, Fault> {
        let mut queues = Queues::new(ram, &mut self.queues);
        let progress = self.backend.serve(&mut queues, now)?;
        let mut notify = false;
        for (index, queue) in self.queues.iter_mut().enumerate() {
            let Some(queue) = queue else { continue };
            let result = queue
                .publish(ram)
                .and_then(|()| queue.wants_notification(ram));
            notify |= result.map_err(|error| Fault {
                queue: index,
                error,
            })?;
        }
        self.again_at = match progress {
            Progress::At(moment) => Some(moment),
            _ => None,
        };
        Ok(Outcome {
            notify,
            more: progress == Progress::More,
            waiting: progress == Progress::Waiting,
            again_at: self.again_at,
            ..Outcome::default()
        })
    }

    fn activate(&mut self, ram: &GuestRam) -> Result<(), Fault> {
        let features = self.transport.driver_features();
        for (index, config) in self.transport.queues().iter().enumerate() {
            // All queues are checked now: a driver should learn of its mistake at once.
            let start = |()| config.start(ram, features);
            let queue = config.ready.then_some(()).map(start).transpose();
            self.queues[index] = queue.map_err(|error| Fault {
                queue: index,
                error,
            })?;
        }
        self.backend.start(features);
        Ok(())
    }

    fn fail(&mut self, fault: Fault) -> Outcome {
        self.queues.fill_with(|| None);
        self.again_at = None;
        // What it still does in guest memory, the guest has allowed it to.
        self.backend.stop();
        self.transport.needs_reset();
        self.faults += 1;
        self.last_fault = Some(fault.clone());
        Outcome {
            // A vCPU may wait for a completion that will not come: it has to look.
            notify: true,
            fault: Some(fault),
            ..Outcome::default()
        }
    }

    fn stop(&mut self) {
        self.queues.fill_with(|| None);
        self.again_at = None;
        self.draining = !self.backend.stop();
        if !self.draining {
            self.transport.finish_reset();
            self.refresh_config();
        }
    }

    fn finish_drain(&mut self) {
        if self.backend.drained() {
            self.draining = false;
            self.transport.finish_reset();
            self.refresh_config();
        }
    }

    /// Its sources tell when nothing uses guest memory any more.
    fn while_draining(&self) -> Outcome {
        Outcome {
            waiting: self.draining,
            ..Outcome::default()
        }
    }

    fn refresh_config(&mut self) {
        if self.config != self.backend.config() {
            self.config.clear();
            self.config.extend(self.backend.config());
            self.generation = self.generation.wrapping_add(1);
        }
    }

    /// What a driver that takes interrupts is to be told: whether there is one, for used buffers if
    /// `used`, or for a change of the configuration or a fault of the device since it was last told.
    pub fn interrupt(&mut self, used: bool) -> bool {
        let told = std::mem::replace(&mut self.told, (self.generation, self.faults));
        if !self.transport.is_driven() {
            return false;
        }
        let mut bits = 0;
        if used {
            bits |= interrupt::USED_BUFFER;
        }
        if told != self.told {
            bits |= interrupt::CONFIGURATION_CHANGE;
        }
        self.transport.raise(bits);
        bits != 0
    }

    /// Type of the device.
    pub fn id(&self) -> u32 {
        self.identity.id
    }

    /// Brings what the guest reads in memory up to date; whether anything changed.
    pub fn publish_state(&self, state: &DeviceState) -> bool {
        let status = self.transport.read(register::STATUS);
        let status_changed = state.status.swap(status, Ordering::Release) != status;
        let generation = self.generation.wrapping_mul(2);
        if state.generation.load(Ordering::Relaxed) == generation {
            return status_changed;
        }
        state
            .generation
            .store(generation.wrapping_sub(1), Ordering::Relaxed);
        fence(Ordering::Release);
        let mut bytes = [0; CONFIG_BYTES];
        let len = self.config.len().min(CONFIG_BYTES);
        bytes[..len].copy_from_slice(&self.config[..len]);
        for (slot, word) in state.config.iter().zip(bytes.as_chunks::<4>().0) {
            slot.store(u32::from_ne_bytes(*word), Ordering::Relaxed);
        }
        state.generation.store(generation, Ordering::Release);
        true
    }

    /// How it does.
    pub fn status(&self) -> DeviceStatus {
        let own = [
            ("doorbells", self.doorbells),
            ("batches", self.batches),
            ("faults", self.faults),
        ];
        let counters = own.into_iter().chain(self.backend.counters());
        DeviceStatus {
            tag: self.identity.tag.clone(),
            up: self.transport.is_running(),
            fault: self.last_fault.as_ref().map(Fault::to_string),
            counters: counters
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::virtio::balloon::Balloon;
    use crate::devices::virtio::testing::Driver;

    #[test]
    fn a_driver_that_is_up_is_interrupted_once_for_each_thing() {
        let mut driver = Driver::new(Box::new(Balloon::new(0, 64 << 20)));
        let status = |driver: &Driver| driver.get(register::INTERRUPT_STATUS);
        driver.device.interrupt(false);
        assert!(!driver.device.interrupt(false));
        assert!(driver.device.interrupt(true));
        assert_eq!(status(&driver), interrupt::USED_BUFFER);
        assert!(driver.device.order(Order::Balloon(8)));
        assert!(driver.device.interrupt(false));
        assert_eq!(status(&driver), 3);
        driver.set(register::INTERRUPT_ACK, 3);
        assert!(!driver.device.interrupt(false));
        assert_eq!(status(&driver), 0);
        driver.set(register::STATUS, 0);
        assert!(driver.device.order(Order::Balloon(9)));
        assert!(!driver.device.interrupt(true));
        assert_eq!(status(&driver), 0);
    }
}
