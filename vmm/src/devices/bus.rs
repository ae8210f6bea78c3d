//! Finds the device that a guest's access to a register window means.
//!
//! Windows are pages, one per device, from [`low::DEVICES`] on. Registers take aligned accesses of
//! four bytes (virtio 1.2, 4.2.2.2); everything else is ignored, reads as zeros and is counted.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use slice_abi::device::{DEVICE_WINDOW_SIZE, DeviceEntry};

use super::output::Patience;
use super::virtio::console::{Console, Outcome};
use crate::boot::slice::layout::low;
use crate::boot::slice::load::device_window;
use crate::kvm::memory::GuestRam;

/// The devices of one sliver.
#[derive(Debug, Default)]
pub struct Bus {
    devices: Vec<Slot>,
    ignored: AtomicU64,
}

#[derive(Debug)]
struct Slot {
    device: Mutex<Console>,
    fault_told: AtomicBool,
}

impl Bus {
    /// A bus with these devices, in the order of the device table.
    pub fn new(devices: Vec<Console>) -> Self {
        let slot = |device| Slot {
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
        let entry = |(index, slot): (usize, &Slot)| lock(&slot.device).entry(device_window(index));
        self.devices.iter().enumerate().map(entry).collect()
    }

    /// Answers a guest's read.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0);
        match (self.find(address), <&mut [u8; 4]>::try_from(data)) {
            (Some((slot, offset)), Ok(word)) if offset.is_multiple_of(4) => {
                *word = lock(&slot.device).read(offset).to_le_bytes();
            }
            _ => self.ignore(),
        }
    }

    /// Does a guest's write. `true` if a used ring moved.
    pub fn write(
        &self,
        address: u64,
        data: &[u8],
        ram: &GuestRam,
        patience: &mut dyn Patience,
    ) -> bool {
        let (Some((slot, offset)), Ok(word)) = (self.find(address), <[u8; 4]>::try_from(data))
        else {
            self.ignore();
            return false;
        };
        if !offset.is_multiple_of(4) {
            self.ignore();
            return false;
        }
        let value = u32::from_le_bytes(word);
        let outcome = lock(&slot.device).write(offset, value, ram, patience);
        match outcome {
            Outcome::Nothing => {}
            Outcome::UsedRingMoved => return true,
            Outcome::Ignored => self.ignore(),
            Outcome::Failed(error) => {
                self.ignore();
                // Once per device: a driver that fails and resets for ever must not fill a log.
                if !slot.fault_told.swap(true, Ordering::Relaxed) {
                    eprintln!(
                        "slicevmm: console: queue stopped until the guest resets it: {error}"
                    );
                }
            }
        }
        false
    }

    /// Counts an access that means nothing.
    pub fn ignore(&self) {
        self.ignored.fetch_add(1, Ordering::Relaxed);
    }

    /// Accesses that meant nothing, so far.
    pub fn ignored(&self) -> u64 {
        self.ignored.load(Ordering::Relaxed)
    }

    fn find(&self, address: u64) -> Option<(&Slot, u64)> {
        let offset = address.checked_sub(low::DEVICES)?;
        let slot = self.devices.get((offset / DEVICE_WINDOW_SIZE) as usize)?;
        Some((slot, offset % DEVICE_WINDOW_SIZE))
    }
}

/// A device is left in a sound state by everything it does: a panic elsewhere does not spoil it.
fn lock(device: &Mutex<Console>) -> std::sync::MutexGuard<'_, Console> {
    device
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
