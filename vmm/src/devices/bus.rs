//! Finds the device that a guest's access to a register window means.
//!
//! Windows are pages, one per device, from [`low::DEVICES`] on. Registers take aligned accesses of
//! four bytes (virtio 1.2, 4.2.2.2); everything else is ignored, reads as zeros and is counted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use slice_abi::device::{DEVICE_WINDOW_SIZE, DeviceEntry};

use super::output::Room;
use super::virtio::console::{Console, Outcome};
use super::virtio::mmio::register;
use crate::boot::slice::layout::low;
use crate::boot::slice::load::{device_state, device_window};
use crate::kvm::memory::GuestRam;
use crate::say::say;

/// The devices of one sliver.
#[derive(Debug, Default)]
pub struct Bus {
    devices: Vec<Slot>,
    ignored: AtomicU64,
}

#[derive(Debug)]
struct Slot {
    device: Mutex<Console>,
    room: Room,
    fault_told: AtomicBool,
}

/// What a guest's write came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Idle vCPUs must look at their rings.
    pub wake: bool,
    /// The device with more to do, after a checkpoint and [`Bus::wait_for_room`].
    pub unfinished: Option<usize>,
}

impl Bus {
    /// A bus with these devices, in the order of the device table.
    pub fn new(devices: Vec<Console>) -> Self {
        let slot = |device: Console| Slot {
            room: device.room(),
            device: Mutex::new(device),
            fault_told: AtomicBool::new(false),
        };
        Self {
            devices: devices.into_iter().map(slot).collect(),
            ignored: AtomicU64::new(0),
        }
    }

    /// The device table.
    pub fn entries(&self) -> Vec<DeviceEntry> {
        let entry = |index| {
            self.lock(index)
                .entry(device_window(index), device_state(index))
        };
        (0..self.devices.len()).map(entry).collect()
    }

    /// Answers a guest's read.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0);
        match (self.find(address), <&mut [u8; 4]>::try_from(data)) {
            // No device has a configuration space: it reads as zeros, in any width.
            (Some((_, offset)), _) if offset >= register::CONFIG => {}
            (Some((index, offset)), Ok(word)) if offset.is_multiple_of(4) => {
                *word = self.lock(index).read(offset).to_le_bytes();
            }
            _ => self.ignore(),
        }
    }

    /// Does a guest's write.
    pub fn write(&self, address: u64, data: &[u8], ram: &GuestRam) -> Done {
        match (self.find(address), <[u8; 4]>::try_from(data)) {
            (Some((index, offset)), Ok(word)) if offset.is_multiple_of(4) => {
                let outcome = self
                    .lock(index)
                    .write(offset, u32::from_le_bytes(word), ram);
                self.done(index, outcome)
            }
            _ => {
                self.ignore();
                Done::default()
            }
        }
    }

    /// Goes on with what device `index` had not finished.
    pub fn go_on(&self, index: usize, ram: &GuestRam) -> Done {
        let outcome = self.lock(index).go_on(ram);
        self.done(index, outcome)
    }

    /// Waits, outside of any lock, until device `index` may get further.
    pub fn wait_for_room(&self, index: usize) {
        self.devices[index].room.wait();
    }

    fn done(&self, index: usize, outcome: Outcome) -> Done {
        match outcome {
            Outcome::Nothing => Done::default(),
            Outcome::UsedRingMoved => Done {
                wake: true,
                unfinished: None,
            },
            Outcome::Unfinished { moved } => Done {
                wake: moved,
                unfinished: Some(index),
            },
            Outcome::Ignored => {
                self.ignore();
                Done::default()
            }
            Outcome::Failed(error) => {
                self.ignore();
                // Once per device: a driver that fails and resets for ever must not fill a log.
                if !self.devices[index].fault_told.swap(true, Ordering::Relaxed) {
                    say(&format!(
                        "console: queue stopped until the guest resets it: {error}"
                    ));
                }
                // A vCPU may wait for a completion that will not come: it has to look.
                Done {
                    wake: true,
                    unfinished: None,
                }
            }
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
        let offset = address.checked_sub(low::DEVICES)?;
        let index = (offset / DEVICE_WINDOW_SIZE) as usize;
        (index < self.devices.len()).then_some((index, offset % DEVICE_WINDOW_SIZE))
    }

    /// A device is left sound by everything it does: a panic elsewhere does not spoil it.
    fn lock(&self, index: usize) -> MutexGuard<'_, Console> {
        let device = &self.devices[index].device;
        device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
