//! The MMIO transport (virtio 1.2, 4.2): brings a device up and rings its doorbells.
//!
//! A register access leaves the guest and may cost tens of microseconds, so there are no reads
//! (the device table of the slice ABI tells what they would) and no writes of what a register
//! holds after reset. A device is in reset when the sliver starts.

#[cfg(test)]
mod tests;

use super::ring::Parts;

/// Feature bit: the device follows virtio 1.0 or later. Every driver must accept it.
pub(crate) const F_VERSION_1: u64 = 1 << 32;

/// Feature bit: both sides say from which index on they want to be told (virtio 1.2, 2.7.7).
pub(crate) const F_EVENT_IDX: u64 = 1 << 29;

/// Feature bit: a chain may be in a table outside the ring (virtio 1.2, 2.7.5.3).
pub(crate) const F_INDIRECT_DESC: u64 = 1 << 28;

/// Registers, as offsets into the window (virtio 1.2, 4.2.2).
mod register {
    pub(super) const DRIVER_FEATURES: u64 = 0x20;
    pub(super) const DRIVER_FEATURES_SEL: u64 = 0x24;
    pub(super) const QUEUE_SEL: u64 = 0x30;
    pub(super) const QUEUE_NUM: u64 = 0x38;
    pub(super) const QUEUE_READY: u64 = 0x44;
    pub(super) const QUEUE_NOTIFY: u64 = 0x50;
    pub(super) const STATUS: u64 = 0x70;
    pub(super) const QUEUE_DESC_LOW: u64 = 0x80;
    pub(super) const QUEUE_DRIVER_LOW: u64 = 0x90;
    pub(super) const QUEUE_DEVICE_LOW: u64 = 0xa0;
    pub(super) const CONFIG: u64 = 0x100;
}

/// Bits of the status register (virtio 1.2, 2.1).
mod status {
    pub(super) const ACKNOWLEDGE: u32 = 1;
    pub(super) const DRIVER: u32 = 2;
    pub(super) const DRIVER_OK: u32 = 4;
    pub(super) const FEATURES_OK: u32 = 8;
}

/// The registers of one device: aligned writes of 32 bits.
pub(crate) trait Window {
    /// Writes a register.
    fn write(&self, offset: u64, value: u32);
}

/// A device between the choice of its features and its start: the time to give it queues.
#[derive(Debug)]
pub(crate) struct Setup<W> {
    window: W,
    selected: u32,
}

/// A device that runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Device<W> {
    window: W,
}

impl<W: Window> Setup<W> {
    /// Takes the device into use with `features`, which must be among those it offers.
    pub(crate) fn negotiate(window: W, features: u64) -> Self {
        let known = status::ACKNOWLEDGE | status::DRIVER;
        window.write(register::STATUS, known);
        let (low, high) = (features as u32, (features >> 32) as u32);
        if low != 0 {
            window.write(register::DRIVER_FEATURES, low);
        }
        if high != 0 {
            window.write(register::DRIVER_FEATURES_SEL, 1);
            window.write(register::DRIVER_FEATURES, high);
        }
        window.write(register::STATUS, known | status::FEATURES_OK);
        Self {
            window,
            selected: 0,
        }
    }

    /// Gives the device queue number `index`. Its memory must not move from now on.
    pub(crate) fn queue(&mut self, index: u32, ring: Parts) {
        if self.selected != index {
            self.window.write(register::QUEUE_SEL, index);
            self.selected = index;
        }
        self.window.write(register::QUEUE_NUM, ring.size().into());
        self.address(register::QUEUE_DESC_LOW, ring.descriptors_address());
        self.address(register::QUEUE_DRIVER_LOW, ring.available_address());
        self.address(register::QUEUE_DEVICE_LOW, ring.used_address());
        self.window.write(register::QUEUE_READY, 1);
    }

    /// Sets the device going.
    pub(crate) fn start(self) -> Device<W> {
        let all = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;
        self.window.write(register::STATUS, all);
        Device {
            window: self.window,
        }
    }

    /// An address goes into two neighbouring registers, the low half first.
    fn address(&self, low_register: u64, address: u64) {
        self.window.write(low_register, address as u32);
        let high = (address >> 32) as u32;
        if high != 0 {
            self.window.write(low_register + 4, high);
        }
    }
}

impl<W: Window> Device<W> {
    /// Tells the device that queue number `index` has something new.
    pub(crate) fn notify(&self, index: u32) {
        self.window.write(register::QUEUE_NOTIFY, index);
    }

    /// Writes a word of the configuration space.
    pub(crate) fn write_config(&self, offset: u64, value: u32) {
        self.window.write(register::CONFIG + offset, value);
    }

    /// Puts the device back into the state it was in when the sliver started. When its status has
    /// become 0 it has let go of all memory, and can be [negotiated](Setup::negotiate) with anew.
    pub(crate) fn reset(self) -> W {
        self.window.write(register::STATUS, 0);
        self.window
    }
}
