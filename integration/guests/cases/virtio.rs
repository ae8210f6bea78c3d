//! Any device's queues, driven by hand, so that they can be driven wrongly.

use core::sync::atomic::{Ordering, fence};

use slice_abi::device::{DeviceEntry, STATUS_NEEDS_RESET};
use slice_abi::layout::PAGE_SIZE;

use super::low::{load, store};
use super::status;
use crate::guest::Guest;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// Indirect descriptors, which every device offers.
pub const F_INDIRECT: u64 = 1 << 28;
const F_VERSION_1: u64 = 1 << 32;

/// Registers of a virtio device over MMIO (virtio 1.2, 4.2.2).
pub mod reg {
    pub const MAGIC: u64 = 0x000;
    pub const VERSION: u64 = 0x004;
    pub const DEVICE_ID: u64 = 0x008;
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
    pub const CONFIG_GENERATION: u64 = 0x0fc;
    pub const CONFIG: u64 = 0x100;
}

/// Bits of the status register.
pub mod bit {
    pub const ACKNOWLEDGE: u32 = 1;
    pub const DRIVER: u32 = 2;
    pub const DRIVER_OK: u32 = 4;
    pub const FEATURES_OK: u32 = 8;
    /// As far as a driver comes before it says that it is up.
    pub const AGREED: u32 = ACKNOWLEDGE | DRIVER | FEATURES_OK;
}

/// Rings are of this size, or of the device's largest.
const QUEUE_SIZE: u32 = 64;
/// Queues of a device that are used here.
const QUEUES: u64 = 3;
/// Room of one queue: its descriptors, then the rings.
const QUEUE_ROOM: u64 = 3 * PAGE_SIZE;
const AVAIL: u64 = PAGE_SIZE;
const USED: u64 = 2 * PAGE_SIZE;

/// A descriptor.
#[derive(Clone, Copy, Default)]
pub struct Desc {
    pub addr: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

impl Desc {
    /// The device reads it.
    pub fn text(addr: u64, len: u32) -> Self {
        Self {
            addr,
            len,
            flags: 0,
            next: 0,
        }
    }

    /// The device writes it.
    pub fn room(addr: u64, len: u32) -> Self {
        Self::text(addr, len).with(WRITE, 0)
    }

    pub fn with(self, flags: u16, next: u16) -> Self {
        Self {
            flags,
            next,
            ..self
        }
    }
}

/// A device of which mostly one queue is used.
#[derive(Clone, Copy)]
pub struct Device<'a> {
    pub guest: &'a Guest,
    pub entry: &'a DeviceEntry,
    /// The queue that cases are about.
    pub queue: u32,
    /// Feature bits to agree on, beside that of virtio 1.
    pub features: u64,
}

impl<'a> Device<'a> {
    pub fn new(guest: &'a Guest, entry: &'a DeviceEntry, queue: u32) -> Self {
        Self {
            guest,
            entry,
            queue,
            features: 0,
        }
    }

    /// The same device, another of its queues.
    pub fn on(self, queue: u32) -> Self {
        Self { queue, ..self }
    }

    /// The same, with these features, too, agreed on when it starts.
    pub fn featuring(self, features: u64) -> Self {
        Self {
            features: self.features | features,
            ..self
        }
    }

    pub fn size(&self) -> u16 {
        self.entry.queue_size_max.min(QUEUE_SIZE) as u16
    }

    /// Where the descriptor table of the queue lies; the other rings follow.
    pub fn table(&self) -> u64 {
        let start = self.guest.heap().start.next_multiple_of(PAGE_SIZE);
        start + u64::from(self.queue) * QUEUE_ROOM
    }

    fn avail(&self) -> u64 {
        self.table() + AVAIL
    }

    pub fn used(&self) -> u64 {
        self.table() + USED
    }

    /// Memory for buffers, to the end of the heap.
    pub fn data(&self) -> u64 {
        self.on(0).table() + QUEUES * QUEUE_ROOM
    }

    pub fn read(&self, register: u64) -> u32 {
        load(self.entry.window + register)
    }

    pub fn write(&self, register: u64, value: u32) {
        store(self.entry.window + register, value);
    }

    pub fn write_address(&self, register: u64, address: u64) {
        self.write(register, address as u32);
        self.write(register + 4, (address >> 32) as u32);
    }

    /// A byte of the configuration space.
    pub fn config(&self, offset: u64) -> u8 {
        self.guest.config(self.entry, offset)
    }

    pub fn notify(&self) {
        fence(Ordering::SeqCst);
        self.write(reg::QUEUE_NOTIFY, self.queue);
    }

    pub fn reset(&self) {
        self.write(reg::STATUS, 0);
        if !self.wait(|d| d.read(reg::STATUS) == 0) {
            self.guest.exit(status::RESET_HAD_NO_EFFECT);
        }
    }

    /// Resets the device and says which features are wanted. Whether it agrees.
    pub fn agree(&self, features: u64) -> bool {
        self.reset();
        self.write(reg::STATUS, bit::ACKNOWLEDGE);
        self.write(reg::STATUS, bit::ACKNOWLEDGE | bit::DRIVER);
        for half in [0, 1] {
            self.write(reg::DRIVER_FEATURES_SEL, half);
            self.write(reg::DRIVER_FEATURES, (features >> (32 * half)) as u32);
        }
        self.write(reg::STATUS, bit::AGREED);
        self.read(reg::STATUS) & bit::FEATURES_OK != 0
    }

    pub fn negotiate(&self) {
        if !self.agree(self.features | F_VERSION_1) {
            self.guest.exit(status::FEATURES_REFUSED);
        }
    }

    /// Tells the device where the queue's rings are, which are empty.
    pub fn place_queue(&self) {
        for offset in (0..QUEUE_ROOM).step_by(8) {
            store::<u64>(self.table() + offset, 0);
        }
        self.write(reg::QUEUE_SEL, self.queue);
        self.write(reg::QUEUE_NUM, self.size().into());
        self.write_address(reg::QUEUE_DESC, self.table());
        self.write_address(reg::QUEUE_DRIVER, self.avail());
        self.write_address(reg::QUEUE_DEVICE, self.used());
    }

    /// Brings the device up with the queue as it should be.
    pub fn start(&self) {
        self.start_with(&[self.queue]);
    }

    /// Brings the device up with these queues.
    pub fn start_with(&self, queues: &[u32]) {
        self.negotiate();
        for &queue in queues {
            self.on(queue).place_queue();
            self.write(reg::QUEUE_READY, 1);
        }
        self.write(reg::STATUS, bit::AGREED | bit::DRIVER_OK);
    }

    pub fn describe(&self, index: u64, desc: &Desc) {
        self.describe_in(self.table(), index, desc);
    }

    /// Writes a descriptor of any table.
    pub fn describe_in(&self, table: u64, index: u64, desc: &Desc) {
        let at = table + index * 16;
        store(at, desc.addr);
        store(at + 8, desc.len);
        store(at + 12, desc.flags);
        store(at + 14, desc.next);
    }

    /// Gives the chain that starts with descriptor 0 to the device, the descriptors as they are.
    pub fn submit(&self, chain: &[Desc]) {
        for (index, desc) in (0..).zip(chain) {
            self.describe(index, desc);
        }
        self.offer(0, 1);
    }

    /// The same, each descriptor followed by the next.
    pub fn submit_linked(&self, chain: &[Desc]) {
        for (index, desc) in (0u16..).zip(chain) {
            let last = usize::from(index) + 1 == chain.len();
            let next = if last { 0 } else { NEXT };
            self.describe(index.into(), &desc.with(desc.flags | next, index + 1));
        }
        self.offer(0, 1);
    }

    /// Names `head` as the next chain and moves the available index on by `step`.
    pub fn offer(&self, head: u16, step: u16) {
        let idx = self.avail_idx();
        let slot = u64::from(idx % self.size());
        store(self.avail() + 4 + 2 * slot, head);
        fence(Ordering::SeqCst);
        store(self.avail() + 2, idx.wrapping_add(step));
        self.notify();
    }

    /// Makes the chain from descriptor 0 available once more, without telling.
    pub fn queue_again(&self) {
        self.queue_one(0);
    }

    /// Makes the chain from `head` available, without telling.
    pub fn queue_one(&self, head: u16) {
        let idx = self.avail_idx();
        store(self.avail() + 4 + 2 * u64::from(idx % self.size()), head);
        fence(Ordering::SeqCst);
        store(self.avail() + 2, idx.wrapping_add(1));
    }

    pub fn avail_idx(&self) -> u16 {
        load(self.avail() + 2)
    }

    /// Asks to be notified when the used index passes `idx`, where that was agreed on (virtio 1.2,
    /// 2.7.7.1).
    pub fn ask_for(&self, idx: u16) {
        store(self.avail() + 4 + 2 * u64::from(self.size()), idx);
        fence(Ordering::SeqCst);
    }

    /// Makes every entry of the ring name descriptor 0, and all of them available.
    pub fn offer_all(&self) {
        store(self.avail() + 2, self.size());
        self.notify();
    }

    pub fn used_idx(&self) -> u16 {
        load(self.used() + 2)
    }

    /// The chain that came back as number `index`.
    pub fn used_head(&self, index: u16) -> u16 {
        load::<u32>(self.used() + 4 + 8 * u64::from(index % self.size())) as u16
    }

    /// How much the device says it wrote into the chain that came back as number `index`.
    pub fn used_len(&self, index: u16) -> u32 {
        load(self.used() + 8 + 8 * u64::from(index % self.size()))
    }

    /// Waits until `count` chains have come back in all.
    pub fn await_used(&self, count: u16) -> bool {
        self.wait(|d| d.used_idx() == count)
    }

    /// Whether the device asks for a reset, in its register and wherever else it is told.
    pub fn needs_reset(&self) -> bool {
        let told = self.read(reg::STATUS) & STATUS_NEEDS_RESET != 0;
        if told && !self.guest.tells_failure(self.entry) {
            self.guest.exit(status::STATE_LAGS);
        }
        told
    }

    pub fn fill(&self, at: u64, bytes: &[u8]) {
        for (offset, &byte) in (0..).zip(bytes) {
            store(at + offset, byte);
        }
    }

    /// Waits until `condition` holds, at most for a few seconds.
    pub fn wait(&self, condition: impl Fn(&Self) -> bool) -> bool {
        let deadline = self.guest.now() + 5_000_000_000;
        while !condition(self) {
            let now = self.guest.now();
            if now > deadline {
                return false;
            }
            self.guest.rest(Some(now + 1_000_000));
        }
        true
    }
}
