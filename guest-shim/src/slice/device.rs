//! Devices of the device table: where they are, what they offer, and their registers.
#![allow(unsafe_code, reason = "the info page tells where devices are")]

use core::arch::asm;

use slice_abi::device::{DeviceEntry, DeviceState};

use super::identity::info;
use crate::virtio::mmio::Window;

/// A device of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// Its place in the table.
    pub(crate) index: usize,
    pub(crate) entry: &'static DeviceEntry,
}

/// All devices with this id, in the order of the table.
pub(crate) fn find(id: u32) -> impl Iterator<Item = Found> {
    let page = info();
    let table = &page.devices[..page.device_count as usize];
    let all = table.iter().enumerate();
    all.filter(move |(_, entry)| entry.id == id)
        .map(|(index, entry)| Found { index, entry })
}

impl Found {
    /// Its registers.
    pub(crate) fn registers(&self) -> Registers {
        Registers(self.entry.window)
    }

    /// Its state in memory.
    pub(crate) fn state(&self) -> &'static DeviceState {
        // SAFETY: the ABI has it there for as long as the sliver lives; it is made of atomics.
        unsafe { &*(self.entry.state as *const DeviceState) }
    }

    /// What it is for: `disk0`.
    pub(crate) fn tag(&self) -> &'static str {
        let tag = self.entry.tag.split(|&byte| byte == 0).next();
        str::from_utf8(tag.unwrap_or_default()).unwrap_or_default()
    }
}

/// A device's window in the guest's address space.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Registers(u64);

impl Window for Registers {
    fn write(&self, offset: u64, value: u32) {
        // SAFETY: the device table has the window there. The compiler is left to believe that the
        // device sees and changes memory, which it does.
        unsafe {
            asm!(
                "mov [{}], {:e}",
                in(reg) self.0 + offset,
                in(reg) value,
                options(nostack, preserves_flags),
            );
        }
    }
}
