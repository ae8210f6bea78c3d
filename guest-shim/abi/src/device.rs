//! The device table: virtio 1.2 devices over MMIO, each in a page of its own.
//!
//! A window is laid out as virtio 1.2, 4.2.2 says, version 2 (no legacy interface). Registers take
//! aligned accesses of 4 bytes, the configuration space from offset 0x100 on any width; other
//! accesses are ignored, read as 0 and are counted. There are no interrupts: a guest polls its used
//! rings and sleeps in [`control::IDLE`](crate::control::IDLE), which returns when a device would
//! interrupt a guest that takes interrupts.
//!
//! A register access leaves the guest, and on some hosts that costs as much as copying a hundred
//! kilobytes. The table therefore repeats what is constant about a device (its id, the features it
//! offers, the size of its queues), and each entry names a [`DeviceState`] in memory that repeats
//! what changes: a driver needs no reads of registers at all. One that prefers to read them finds
//! the same there. [`control::IDLE`](crate::control::IDLE) is a doorbell for every queue: a guest
//! that is about to rest needs no other.

use core::sync::atomic::AtomicU32;

/// Bytes of a device's window.
pub const DEVICE_WINDOW_SIZE: u64 = 4096;

/// Room for a tag, NUL-padded.
pub const TAG_BYTES: usize = 16;

/// Virtio device types (virtio 1.2, chapter 5) that a sliver may find in its table.
pub mod device_id {
    /// Network card.
    pub const NET: u32 = 1;
    /// Block device.
    pub const BLOCK: u32 = 2;
    /// Console.
    pub const CONSOLE: u32 = 3;
    /// Entropy source.
    pub const ENTROPY: u32 = 4;
    /// Memory balloon.
    pub const BALLOON: u32 = 5;
    /// Socket device.
    pub const VSOCK: u32 = 19;
}

/// One device.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceEntry {
    /// One of [`device_id`].
    pub id: u32,
    /// Queues it has.
    pub queue_count: u32,
    /// The largest size each queue may be given.
    pub queue_size_max: u32,
    /// Must be ignored.
    pub reserved: u32,
    /// Address of its window.
    pub window: u64,
    /// Feature bits it offers.
    pub features: u64,
    /// Address of its [`DeviceState`].
    pub state: u64,
    /// What it is for, UTF-8, NUL-padded: `console`, `net0`, `disk0`.
    pub tag: [u8; TAG_BYTES],
}

/// Bytes of configuration space that a [`DeviceState`] repeats.
pub const CONFIG_BYTES: usize = 120;

/// What of a device may change, in memory, read-only, brought up to date by the monitor.
///
/// `IDLE` returns when one of them changes. Read `generation`, then what is wanted of `config`,
/// then `generation` again: if it is odd or has changed, the monitor is writing, read again.
#[repr(C)]
#[derive(Debug)]
pub struct DeviceState {
    /// Its status register. The bit [`STATUS_NEEDS_RESET`] says that it has failed.
    pub status: AtomicU32,
    /// Twice its configuration generation; odd while `config` is being written.
    pub generation: AtomicU32,
    /// The beginning of its configuration space, zeros where it has none, in words as laid out in
    /// memory (virtio's configuration spaces are little endian).
    pub config: [AtomicU32; CONFIG_BYTES / 4],
}

/// Of the status register: the device has failed and works again only after a reset.
pub const STATUS_NEEDS_RESET: u32 = 64;

const _: () = {
    assert!(size_of::<DeviceEntry>() == 56);
    assert!(core::mem::offset_of!(DeviceEntry, window) == 16);
    assert!(core::mem::offset_of!(DeviceEntry, tag) == 40);
    assert!(size_of::<DeviceState>() == 128);
    assert!(size_of::<DeviceState>() * crate::info::MAX_DEVICES == 4096);
};
