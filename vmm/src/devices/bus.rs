//! Finds the device that a guest's access to a register window means, and sees to what follows.
//!
//! Windows are pages, one per device, one after another. A native guest reads in memory what has
//! changed and idle vCPUs are woken for it; a legacy one takes an interrupt (see [`Wiring`]).
//! Registers take aligned accesses of four bytes (virtio 1.2, 4.2.2.2), configuration spaces any;
//! everything else is ignored, reads as zeros and is counted.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slice_abi::device::{DEVICE_WINDOW_SIZE, DeviceEntry};
use slice_abi::info::MAX_DEVICES;

use super::virtio::backend::{Backend, Order, Source};
use super::virtio::device::{Outcome, VirtioDevice};
use crate::boot::legacy::DeviceWindow;
use crate::boot::legacy::map::interrupt;
use crate::boot::slice::load::device_state;
use crate::control::proto::DeviceStatus;
use crate::kvm::interrupts::InterruptLine;
use crate::kvm::system::SystemArea;
use crate::kvm::vm::Vm;
use crate::nanos::Nanos;
use crate::say::say;

/// No moment.
const NEVER: u64 = u64::MAX;

/// The devices of one sliver.
#[derive(Debug)]
pub struct Bus {
    devices: Vec<Slot>,
    /// Guest physical address of the first window.
    base: u64,
    /// What a native guest reads of its devices.
    states: Option<Arc<SystemArea>>,
    ignored: AtomicU64,
}

/// How the guest hears from its devices and they from it.
#[derive(Debug)]
pub enum Wiring {
    /// Through memory, and by exits.
    Memory(Arc<SystemArea>),
    /// By an interrupt of each device and, where there is one, by its doorbell.
    Lines(Vec<Line>),
}

/// What connects a device with a legacy guest.
#[derive(Debug)]
pub struct Line {
    /// Interrupts the guest.
    pub interrupt: InterruptLine,
    /// Becomes ready when the guest notifies a queue.
    pub doorbell: OwnedFd,
}

#[derive(Debug)]
struct Slot {
    device: Mutex<VirtioDevice>,
    /// Whether it has anything to serve at all.
    active: AtomicBool,
    /// When it wants to be served at the latest, in nanoseconds.
    again_at: AtomicU64,
    fault_told: AtomicBool,
    /// Whether its sources are watched.
    attended: AtomicBool,
    /// Sources that became ready, a bit each, and that the device does not know of yet.
    ready: AtomicU64,
    /// Whether a thread serves it. Others do not wait for that: they leave word in `wanted`.
    serving: AtomicBool,
    /// Whether it is to be served again by the thread that serves it.
    wanted: AtomicBool,
    line: Option<Line>,
    /// Rings of its doorbell that were heard of, at least one for each that was served.
    rings: AtomicU64,
}

/// Some of a sliver's devices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceSet(u32);

const _: () = assert!(MAX_DEVICES == u32::BITS as usize);

impl DeviceSet {
    /// All there can be.
    pub const ALL: Self = Self(u32::MAX);

    /// Adds device `index`.
    pub fn insert(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    /// Adds those of another set.
    pub fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether it is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn contains(self, index: usize) -> bool {
        self.0 & 1 << index != 0
    }
}

/// What has to follow what was done for a guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Idle vCPUs must look at their rings.
    pub notify: bool,
    /// Devices with more to serve at once, after a checkpoint.
    pub unfinished: DeviceSet,
    /// Something waits for a source or a moment: somebody has to attend to that.
    pub attend: bool,
    /// A device was left to the thread that serves it already.
    pub left: bool,
}

impl Done {
    /// Adds what else was done.
    fn add(&mut self, other: Self) {
        self.notify |= other.notify;
        self.unfinished.add(other.unfinished);
        self.attend |= other.attend;
        self.left |= other.left;
    }
}

impl Bus {
    /// A bus with these devices, in this order, whose windows begin at `base`.
    pub fn new(backends: Vec<Box<dyn Backend>>, base: u64) -> Self {
        let slot = |backend| Slot {
            device: Mutex::new(VirtioDevice::new(backend)),
            active: AtomicBool::new(false),
            again_at: AtomicU64::new(NEVER),
            fault_told: AtomicBool::new(false),
            attended: AtomicBool::new(false),
            ready: AtomicU64::new(0),
            serving: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            line: None,
            rings: AtomicU64::new(0),
        };
        Self {
            devices: backends.into_iter().map(slot).collect(),
            base,
            states: None,
            ignored: AtomicU64::new(0),
        }
    }

    /// Connects the devices with the guest.
    pub fn wire(&mut self, wiring: Wiring) {
        match wiring {
            Wiring::Memory(states) => {
                for index in 0..self.devices.len() {
                    self.lock(index).publish_state(states.device_state(index));
                }
                self.states = Some(states);
            }
            Wiring::Lines(lines) => {
                for (slot, line) in self.devices.iter_mut().zip(lines) {
                    slot.line = Some(line);
                }
            }
        }
    }

    /// The device table of a native guest.
    pub fn entries(&self) -> Vec<DeviceEntry> {
        let entry = |index| {
            self.lock(index)
                .entry(self.window(index), device_state(index))
        };
        (0..self.devices.len()).map(entry).collect()
    }

    /// The devices as a legacy guest finds them.
    pub fn windows(&self) -> Vec<DeviceWindow> {
        let window = |index| DeviceWindow {
            id: self.lock(index).id(),
            base: self.window(index),
            interrupt: interrupt::device(index),
        };
        (0..self.devices.len()).map(window).collect()
    }

    fn window(&self, index: usize) -> u64 {
        self.base + index as u64 * DEVICE_WINDOW_SIZE
    }

    /// Calls `watch` with each doorbell and its device.
    pub fn doorbells<E>(
        &self,
        mut watch: impl FnMut(usize, BorrowedFd<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for (index, slot) in self.devices.iter().enumerate() {
            if let Some(line) = &slot.line {
                watch(index, line.doorbell.as_fd())?;
            }
        }
        Ok(())
    }

    /// Answers a guest's read. Where there is no device all bits are ones, as on a PC.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        let found = self.find(address);
        data.fill(if found.is_some() { 0 } else { 0xff });
        let answered = found.is_some_and(|(index, offset)| self.lock(index).read(offset, data));
        if !answered {
            self.ignore();
        }
    }

    /// Does a guest's write.
    pub fn write(&self, address: u64, data: &[u8], vm: &Vm, now: Nanos) -> Done {
        match self.find(address) {
            Some((index, offset)) => {
                self.with(index, |device| device.write(offset, data, vm.ram(), now))
            }
            None => {
                self.ignore();
                Done::default()
            }
        }
    }

    /// Serves one batch of each device of `set` that has anything to serve. One that another thread
    /// serves is left to that: it sees to it that what is there now is served, too.
    pub fn serve(&self, set: DeviceSet, vm: &Vm, now: Nanos) -> Done {
        let mut done = Done::default();
        for (index, slot) in self.devices.iter().enumerate() {
            if !set.contains(index) || !slot.active.load(Ordering::Acquire) {
                continue;
            }
            // What is wanted is said first and who serves looks last, so that one sees the other.
            slot.wanted.store(true, Ordering::SeqCst);
            if slot.serving.swap(true, Ordering::SeqCst) {
                done.left = true;
                continue;
            }
            slot.wanted.store(false, Ordering::SeqCst);
            done.add(self.with(index, |device| device.serve(vm.ram(), now)));
            slot.serving.store(false, Ordering::SeqCst);
            if slot.wanted.load(Ordering::SeqCst) {
                done.unfinished.insert(index);
            }
        }
        done
    }

    /// The devices whose moment has come.
    pub fn due(&self, now: Nanos) -> DeviceSet {
        let mut set = DeviceSet::default();
        for (index, slot) in self.devices.iter().enumerate() {
            if slot.again_at.load(Ordering::Relaxed) <= now.0 {
                set.insert(index);
            }
        }
        set
    }

    /// The next moment at which a device wants to be served.
    pub fn again_at(&self) -> Option<Nanos> {
        self.again_after(Nanos(0))
    }

    /// The next moment after `now` at which a device wants to be served.
    pub fn again_after(&self, now: Nanos) -> Option<Nanos> {
        let moments = self.devices.iter();
        moments
            .map(|slot| slot.again_at.load(Ordering::Relaxed))
            .filter(|moment| *moment > now.0 && *moment != NEVER)
            .min()
            .map(Nanos)
    }

    /// Notes that the doorbell of device `index` was rung.
    pub fn rang(&self, index: usize) {
        if let Some(slot) = self.devices.get(index) {
            slot.rings.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that a source of device `index` became ready. Its next batch knows of it.
    pub fn ready(&self, index: usize, source: usize) {
        if let Some(slot) = self.devices.get(index) {
            slot.ready.fetch_or(1 << source, Ordering::SeqCst);
        }
    }

    /// Calls `watch` with each source, its device and its number, of devices whose sources were not
    /// given out before.
    pub fn watch_sources<E>(
        &self,
        mut watch: impl FnMut(usize, usize, Source<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for (index, slot) in self.devices.iter().enumerate() {
            // Looked at first without its lock, which another thread may hold for long.
            if slot.attended.load(Ordering::Acquire) || !slot.active.load(Ordering::Acquire) {
                continue;
            }
            let device = self.lock(index);
            if slot.attended.swap(true, Ordering::AcqRel) {
                continue;
            }
            for (number, source) in device.sources().into_iter().enumerate() {
                watch(index, number, source)?;
            }
        }
        Ok(())
    }

    /// Does what an operator asks of whichever device it concerns. `None` if there is none.
    pub fn order(&self, order: Order) -> Option<Done> {
        (0..self.devices.len()).find_map(|index| {
            let mut device = self.lock(index);
            device.order(order).then(|| Done {
                notify: self.tell(index, &mut device, false),
                ..Done::default()
            })
        })
    }

    /// Tells the guest what has come of a device: that there are used buffers if `used`, and what
    /// changed beside. Whether idle vCPUs must look at their rings for it.
    fn tell(&self, index: usize, device: &mut VirtioDevice, used: bool) -> bool {
        if let Some(line) = &self.devices[index].line {
            if device.interrupt(used) {
                line.interrupt.trigger();
            }
            return false;
        }
        let states = self.states.as_ref();
        let changed = states.is_some_and(|states| device.publish_state(states.device_state(index)));
        used || changed
    }

    /// How each device does.
    pub fn status(&self) -> Vec<DeviceStatus> {
        let status = |(index, slot): (usize, &Slot)| {
            let mut status = self.lock(index).status();
            // A legacy guest's rings do not pass the device's registers.
            if let Some(doorbells) = status.counters.get_mut("doorbells") {
                *doorbells += slot.rings.load(Ordering::Relaxed);
            }
            status
        };
        self.devices.iter().enumerate().map(status).collect()
    }

    fn with(&self, index: usize, action: impl FnOnce(&mut VirtioDevice) -> Outcome) -> Done {
        let slot = &self.devices[index];
        let mut device = self.lock(index);
        let mut ready = slot.ready.swap(0, Ordering::SeqCst);
        while ready != 0 {
            device.ready(ready.trailing_zeros() as usize);
            ready &= ready - 1;
        }
        let outcome = action(&mut device);
        let again_at = outcome.again_at.map_or(NEVER, |moment| moment.0);
        slot.again_at.store(again_at, Ordering::Relaxed);
        slot.active.store(device.is_active(), Ordering::Release);
        let notify = self.tell(index, &mut device, outcome.notify);
        if outcome.ignored {
            self.ignore();
        }
        if let Some(fault) = outcome.fault {
            self.ignore();
            // Once per device: a driver that fails and resets for ever must not fill a log.
            if !slot.fault_told.swap(true, Ordering::Relaxed) {
                let tag = device.tag();
                say(&format!(
                    "{tag}: stopped until the guest resets it: {fault}"
                ));
            }
        }
        Done {
            notify,
            unfinished: DeviceSet(u32::from(outcome.more) << index),
            attend: outcome.again_at.is_some()
                || outcome.waiting && !slot.attended.load(Ordering::Acquire),
            left: false,
        }
    }

    /// Counts an access that means nothing.
    pub fn ignore(&self) {
        self.ignored.fetch_add(1, Ordering::Relaxed);
    }

    /// Accesses that meant nothing, so far.
    pub fn ignored(&self) -> u64 {
        self.ignored.load(Ordering::Relaxed)
    }

    fn find(&self, address: u64) -> Option<(usize, u64)> {
        let offset = address.checked_sub(self.base)?;
        let index = (offset / DEVICE_WINDOW_SIZE) as usize;
        (index < self.devices.len()).then_some((index, offset % DEVICE_WINDOW_SIZE))
    }

    /// A device is left sound by everything it does: a panic elsewhere does not spoil it.
    fn lock(&self, index: usize) -> MutexGuard<'_, VirtioDevice> {
        let device = &self.devices[index].device;
        device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
