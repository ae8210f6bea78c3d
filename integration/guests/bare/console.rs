//! The console's transmit queue, driven by hand, so that it can be driven wrongly.

use core::sync::atomic::{Ordering, fence};

use slice_abi::control;

use crate::guest::Guest;
use crate::low::{load, store};
use crate::status;

pub const QUEUE_SIZE: u16 = 64;
pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;
pub const NEEDS_RESET: u32 = 64;

/// Registers of a virtio device over MMIO (virtio 1.2, 4.2.2).
pub mod reg {
    pub const DEVICE_FEATURES: u64 = 0x010;
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub const DRIVER_FEATURES: u64 = 0x020;
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub const QUEUE_SEL: u64 = 0x030;
    pub const QUEUE_NUM_MAX: u64 = 0x034;
    pub const QUEUE_NUM: u64 = 0x038;
    pub const QUEUE_READY: u64 = 0x044;
    pub const QUEUE_NOTIFY: u64 = 0x050;
    pub const STATUS: u64 = 0x070;
    pub const QUEUE_DESC: u64 = 0x080;
    pub const QUEUE_DRIVER: u64 = 0x090;
    pub const QUEUE_DEVICE: u64 = 0x0a0;
}

/// Where things lie in the heap, from its start.
pub mod layout {
    pub const AVAIL: u64 = 0x1000;
    pub const USED: u64 = 0x2000;
    pub const DATA: u64 = 0x3000;
}

pub struct Desc {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Desc {
    pub fn text(addr: u64, len: u32) -> Self {
        Self {
            addr,
            len,
            flags: 0,
            next: 0,
        }
    }

    pub fn with(self, flags: u16, next: u16) -> Self {
        Self {
            flags,
            next,
            ..self
        }
    }
}

/// The console's transmit queue, driven by hand.
pub struct Console<'a> {
    guest: &'a Guest,
    pub window: u64,
    /// Where the rings are, and the data after them: see [`layout`].
    pub ram: u64,
}

impl<'a> Console<'a> {
    pub fn new(guest: &'a Guest, window: u64) -> Self {
        Self {
            guest,
            window,
            ram: guest.info.heap.start,
        }
    }

    pub fn read(&self, register: u64) -> u32 {
        load(self.window + register)
    }

    pub fn write(&self, register: u64, value: u32) {
        store(self.window + register, value);
    }

    pub fn write_address(&self, register: u64, address: u64) {
        self.write(register, address as u32);
        self.write(register + 4, (address >> 32) as u32);
    }

    pub fn notify(&self, queue: u32) {
        fence(Ordering::SeqCst);
        self.write(reg::QUEUE_NOTIFY, queue);
    }

    /// Resets the device and agrees with it on VIRTIO_F_VERSION_1 alone.
    pub fn negotiate(&self) {
        self.write(reg::STATUS, 0);
        if !self.wait(|c| c.read(reg::STATUS) == 0) {
            self.guest.exit(status::RESET_HAD_NO_EFFECT);
        }
        self.write(reg::STATUS, 1);
        self.write(reg::STATUS, 1 | 2);
        for (half, features) in [(0, 0), (1, 1)] {
            self.write(reg::DRIVER_FEATURES_SEL, half);
            self.write(reg::DRIVER_FEATURES, features);
        }
        self.write(reg::STATUS, 1 | 2 | 8);
        if self.read(reg::STATUS) & 8 == 0 {
            self.guest.exit(status::FEATURES_REFUSED);
        }
    }

    pub fn place_queue(&self) {
        for offset in (0..layout::DATA).step_by(8) {
            store::<u64>(self.ram + offset, 0);
        }
        self.write(reg::QUEUE_SEL, 1);
        self.write(reg::QUEUE_NUM, QUEUE_SIZE.into());
        self.write_address(reg::QUEUE_DESC, self.ram);
        self.write_address(reg::QUEUE_DRIVER, self.ram + layout::AVAIL);
        self.write_address(reg::QUEUE_DEVICE, self.ram + layout::USED);
    }

    /// Brings the device up with a queue as it should be.
    pub fn start(&self) {
        self.negotiate();
        self.place_queue();
        self.write(reg::QUEUE_READY, 1);
        self.write(reg::STATUS, 1 | 2 | 8 | 4);
    }

    /// Brings the device up with a queue that `spoil` made wrong. Whether the device would not
    /// have it: the queue never became ready, or the device asks for a reset once it is used.
    pub fn bad_queue(&self, spoil: impl Fn(&Self)) -> bool {
        self.negotiate();
        self.place_queue();
        spoil(self);
        self.write(reg::QUEUE_READY, 1);
        let ready = self.read(reg::QUEUE_READY) == 1;
        self.write(reg::STATUS, 1 | 2 | 8 | 4);
        self.submit(&[Desc::text(self.ram + layout::DATA, 1)]);
        !ready || self.wait(|c| c.read(reg::STATUS) & NEEDS_RESET != 0)
    }

    pub fn describe(&self, index: u64, desc: &Desc) {
        let at = self.ram + index * 16;
        store(at, desc.addr);
        store(at + 8, desc.len);
        store(at + 12, desc.flags);
        store(at + 14, desc.next);
    }

    /// Gives the chain that starts with descriptor 0 to the device.
    pub fn submit(&self, chain: &[Desc]) {
        for (index, desc) in (0..).zip(chain) {
            self.describe(index, desc);
        }
        self.offer(0, 1);
    }

    /// Names `head` as the next chain and moves the available index on by `step`.
    pub fn offer(&self, head: u16, step: u16) {
        let avail = self.ram + layout::AVAIL;
        let idx = load::<u16>(avail + 2);
        store(avail + 4 + 2 * u64::from(idx % QUEUE_SIZE), head);
        fence(Ordering::SeqCst);
        store(avail + 2, idx.wrapping_add(step));
        self.notify(1);
    }

    pub fn used_idx(&self) -> u16 {
        load(self.ram + layout::USED + 2)
    }

    /// Resets the device and prints with it.
    pub fn recover(&self) {
        self.print(b"recovered\n");
    }

    /// Brings the device up anew and prints `text`.
    pub fn print(&self, text: &[u8]) {
        self.start();
        for (offset, &byte) in (0..).zip(text) {
            store(self.ram + layout::DATA + offset, byte);
        }
        self.submit(&[Desc::text(self.ram + layout::DATA, text.len() as u32)]);
        if !self.wait(|c| c.used_idx() == 1) {
            self.guest.exit(status::NOT_PRINTED);
        }
    }

    /// Prints a mebibyte as one buffer and does not wait for it.
    pub fn flood(&self) {
        self.start();
        self.submit(&[Desc::text(self.ram + layout::DATA, 1 << 20)]);
    }

    /// Waits until `condition` holds, at most for a few seconds.
    pub fn wait(&self, condition: impl Fn(&Self) -> bool) -> bool {
        let deadline = self.guest.now() + 5_000_000_000;
        while !condition(self) {
            let now = self.guest.now();
            if now > deadline {
                return false;
            }
            self.guest.control(control::IDLE, now + 1_000_000);
        }
        true
    }
}
