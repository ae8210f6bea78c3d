//! A tiny driver for tests of devices: memory, a device, and rings that a test may spoil.
//!
//! It talks to a [`VirtioDevice`] as a guest does: registers, descriptors in memory, doorbells. Each
//! queue has its rings in 64 KiB of its own from [`RINGS`] on; a test's data goes to [`DATA`] on.

use slice_abi::info::Range;
use slice_abi::layout::RAM_BASE;
use virtio_bindings::virtio_ring::{
    VIRTIO_RING_F_INDIRECT_DESC, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
};
use vm_memory::{Bytes, GuestAddress};

use super::backend::Backend;
use super::chain::DESCRIPTOR_SIZE;
use super::device::{Outcome, VirtioDevice};
use super::mmio::{register, status};
use crate::kvm::memory::GuestRam;
use crate::nanos::Nanos;

/// Memory of the guest; untouched pages cost nothing.
pub(crate) const RAM: Range = Range {
    start: RAM_BASE,
    len: 64 << 20,
};
/// Devices may not write below.
pub(crate) const WRITABLE_FROM: u64 = RAM_BASE + 0x1000;
/// Rings of queue 0; queue `n`'s are `n * RING_BYTES` above.
pub(crate) const RINGS: u64 = RAM_BASE + 0x1_0000;
/// Distance between the rings of two queues.
const RING_BYTES: u64 = 0x1_0000;
/// Of the parts of a queue in its room.
const AVAILABLE: u64 = 0x8000;
const USED: u64 = 0xa000;
/// The room of a queue is for this many descriptors.
const LARGEST_QUEUE: u16 = 1024;
/// Memory for a test's own use, to the end of [`RAM`].
pub(crate) const DATA: u64 = RAM_BASE + (1 << 20);

/// A buffer that the driver offers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    address: u64,
    len: u32,
    writable: bool,
}

impl Piece {
    /// The device reads it.
    pub(crate) fn readable(address: u64, len: u32) -> Self {
        Self {
            address,
            len,
            writable: false,
        }
    }

    /// The device writes it.
    pub(crate) fn writable(address: u64, len: u32) -> Self {
        Self {
            writable: true,
            ..Self::readable(address, len)
        }
    }
}

/// One queue as its driver keeps it.
#[derive(Debug, Clone, Copy, Default)]
struct Ring {
    size: u16,
    next_descriptor: u16,
    available: u16,
    used: u16,
}

/// A guest with one device.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) ram: GuestRam,
    pub(crate) device: VirtioDevice,
    /// What the device is told the time is.
    pub(crate) now: Nanos,
    /// What followed when the driver came up.
    pub(crate) first: Outcome,
    rings: Vec<Ring>,
}

impl Driver {
    /// A guest whose driver is up, with every queue at its largest and indirect descriptors.
    pub(crate) fn new(backend: Box<dyn Backend>) -> Self {
        Self::with_features(backend, 0)
    }

    /// The same, having accepted `features` too.
    pub(crate) fn with_features(backend: Box<dyn Backend>, features: u64) -> Self {
        let device = VirtioDevice::new(backend);
        let entry = device.entry(0, 0);
        let mut driver = Self {
            ram: GuestRam::new(&[RAM], &[], WRITABLE_FROM).unwrap(),
            device,
            now: Nanos(1_000_000_000),
            first: Outcome::default(),
            rings: vec![Ring::default(); entry.queue_count as usize],
        };
        driver.bring_up(features);
        driver
    }

    /// Resets the device and brings it up again, with empty rings.
    pub(crate) fn bring_up(&mut self, features: u64) {
        self.set(register::STATUS, 0);
        while self.get(register::STATUS) != 0 {
            // Something still uses guest memory: a driver looks again.
            self.serve();
        }
        self.set(register::STATUS, status::ACKNOWLEDGE | status::DRIVER);
        let features = features | 1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << 32;
        for half in [0, 1] {
            self.set(register::DRIVER_FEATURES_SEL, half);
            self.set(register::DRIVER_FEATURES, (features >> (32 * half)) as u32);
        }
        let ready = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
        self.set(register::STATUS, ready);
        for queue in 0..self.rings.len() {
            self.set_up_queue(queue);
        }
        assert_eq!(self.get(register::STATUS), ready, "features were refused");
        self.first = self.set(register::STATUS, ready | status::DRIVER_OK);
    }

    fn set_up_queue(&mut self, queue: usize) {
        self.set(register::QUEUE_SEL, queue as u32);
        let size = self.get(register::QUEUE_NUM_MAX) as u16;
        assert!(size > 0 && size <= LARGEST_QUEUE);
        self.rings[queue] = Ring {
            size,
            ..Ring::default()
        };
        let base = RINGS + queue as u64 * RING_BYTES;
        self.ram.write_any(&[0; RING_BYTES as usize], base).unwrap();
        self.set(register::QUEUE_NUM, size.into());
        for (low, address) in [
            (register::QUEUE_DESC_LOW, base),
            (register::QUEUE_DRIVER_LOW, base + AVAILABLE),
            (register::QUEUE_DEVICE_LOW, base + USED),
        ] {
            self.set(low, address as u32);
            self.set(low + 4, (address >> 32) as u32);
        }
        self.set(register::QUEUE_READY, 1);
    }

    /// Writes a register.
    pub(crate) fn set(&mut self, register: u64, value: u32) -> Outcome {
        self.device
            .write(register, &value.to_le_bytes(), &self.ram, self.now)
    }

    /// Reads a register.
    pub(crate) fn get(&self, register: u64) -> u32 {
        let mut word = [0; 4];
        self.device.read(register, &mut word);
        u32::from_le_bytes(word)
    }

    /// Makes one chain of these pieces available, without a doorbell. Its head.
    pub(crate) fn offer(&mut self, queue: usize, pieces: &[Piece]) -> u16 {
        let ring = &mut self.rings[queue];
        let (size, head) = (ring.size, ring.next_descriptor);
        assert!(pieces.len() <= size.into());
        ring.next_descriptor = (head + pieces.len() as u16) % size;
        for (i, piece) in (0..).zip(pieces) {
            let (index, next) = ((head + i) % size, (head + i + 1) % size);
            let last = usize::from(i) + 1 == pieces.len();
            let flags = if last { 0 } else { VRING_DESC_F_NEXT }
                | if piece.writable {
                    VRING_DESC_F_WRITE
                } else {
                    0
                };
            self.put_descriptor(queue, index, (piece.address, piece.len, flags, next));
        }
        self.make_available(queue, head);
        head
    }

    /// Writes one descriptor: address, length, flags, next.
    pub(crate) fn put_descriptor(
        &self,
        queue: usize,
        index: u16,
        (address, len, flags, next): (u64, u32, u32, u16),
    ) {
        let mut raw = [0; DESCRIPTOR_SIZE as usize];
        raw[..8].copy_from_slice(&address.to_le_bytes());
        raw[8..12].copy_from_slice(&len.to_le_bytes());
        raw[12..14].copy_from_slice(&(flags as u16).to_le_bytes());
        raw[14..].copy_from_slice(&next.to_le_bytes());
        let at = RINGS + queue as u64 * RING_BYTES + u64::from(index) * DESCRIPTOR_SIZE;
        self.write(at, &raw);
    }

    /// Makes the chain that begins at `head` available.
    pub(crate) fn make_available(&mut self, queue: usize, head: u16) {
        let ring = self.rings[queue];
        let at = RINGS + queue as u64 * RING_BYTES + AVAILABLE;
        self.write(
            at + 4 + 2 * u64::from(ring.available % ring.size),
            &head.to_le_bytes(),
        );
        self.set_available_index(queue, ring.available.wrapping_add(1));
    }

    /// Sets the available index to whatever a test likes.
    pub(crate) fn set_available_index(&mut self, queue: usize, index: u16) {
        self.rings[queue].available = index;
        let at = RINGS + queue as u64 * RING_BYTES + AVAILABLE;
        self.write(at + 2, &index.to_le_bytes());
    }

    /// Rings the doorbell of a queue.
    pub(crate) fn ring(&mut self, queue: usize) -> Outcome {
        self.set(register::QUEUE_NOTIFY, queue as u32)
    }

    /// Has the device serve a batch, as when a source or a moment woke it.
    pub(crate) fn serve(&mut self) -> Outcome {
        self.device.serve(&self.ram, self.now)
    }

    /// Notes that each source may be ready and serves until there is no more to do at once.
    pub(crate) fn settle(&mut self) -> Outcome {
        for source in 0..self.device.sources().len() {
            self.device.ready(source);
        }
        loop {
            let outcome = self.serve();
            if !outcome.more {
                return outcome;
            }
        }
    }

    /// The next chain that came back: its head and how much was written.
    pub(crate) fn used(&mut self, queue: usize) -> Option<(u16, u32)> {
        let base = RINGS + queue as u64 * RING_BYTES + USED;
        let index = u16::from_le_bytes(self.read(base + 2, 2).try_into().unwrap());
        let ring = &mut self.rings[queue];
        if index == ring.used {
            return None;
        }
        let at = base + 4 + 8 * u64::from(ring.used % ring.size);
        ring.used = ring.used.wrapping_add(1);
        let element = u64::from_le_bytes(self.read(at, 8).try_into().unwrap());
        Some((element as u16, (element >> 32) as u32))
    }

    /// All chains that came back.
    pub(crate) fn take_used(&mut self, queue: usize) -> Vec<(u16, u32)> {
        std::iter::from_fn(|| self.used(queue)).collect()
    }

    /// Writes guest memory, as the guest.
    pub(crate) fn write(&self, address: u64, bytes: &[u8]) {
        self.ram.write_any(bytes, address).unwrap();
    }

    /// Reads guest memory.
    pub(crate) fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram
            .read_slice(&mut bytes, GuestAddress(address))
            .unwrap();
        bytes
    }

    /// One of the device's counters.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.device.status().counters[name]
    }

    /// Whether the guest sees that the device has failed.
    pub(crate) fn needs_reset(&self) -> bool {
        self.get(register::STATUS) & status::NEEDS_RESET != 0
    }
}

/// Expects that a device refuses a chain of these pieces on `queue`, and works after a reset.
pub(crate) fn expect_fault(backend: Box<dyn Backend>, queue: usize, pieces: &[Piece]) {
    let mut driver = Driver::new(backend);
    driver.offer(queue, pieces);
    expect_failed(&mut driver, queue);
}

/// Expects that the device fails at the next doorbell, costs nothing more, and is mended by reset.
fn expect_failed(driver: &mut Driver, queue: usize) {
    let before = driver.counter("faults");
    let outcome = driver.ring(queue);
    let fault = outcome.fault.clone().expect("no fault was latched");
    assert!(outcome.notify && !outcome.more, "{outcome:?}");
    assert_eq!(fault.queue, queue);
    assert!(driver.needs_reset());
    assert_eq!(driver.counter("faults"), before + 1);
    let batches = driver.counter("batches");
    assert!(driver.ring(queue).ignored);
    assert_eq!(driver.serve(), Outcome::default());
    assert_eq!(driver.counter("batches"), batches);
    driver.bring_up(0);
    assert!(!driver.needs_reset());
    assert_eq!(driver.first.fault, None);
}

/// Breaks the rules of split rings on each of `queues`, those that the device looks at whenever
/// its doorbell rings, and expects a latched fault each time.
pub(crate) fn refuses_hostile_rings(queues: &[usize], make: impl Fn() -> Box<dyn Backend>) {
    const NEXT: u32 = VRING_DESC_F_NEXT;
    const WRITE: u32 = VRING_DESC_F_WRITE;
    const INDIRECT: u32 = VRING_DESC_F_INDIRECT;
    let end = RAM.end();
    for &queue in queues {
        let mut driver = Driver::new(make());
        let size = driver.rings[queue].size;
        let alone = [
            (0, 16, WRITE, 0),
            (DATA, 0, WRITE, 0),
            (DATA, u32::MAX, WRITE, 0),
            (end, 16, WRITE, 0),
            (end - 8, 16, WRITE, 0),
            (end - 8, 16, 0, 0),
            (u64::MAX - 7, 16, 0, 0),
            (RAM_BASE, 16, WRITE, 0),
            (WRITABLE_FROM - 8, 16, WRITE, 0),
            (DATA, 16, NEXT, 0),
            (DATA, 16, NEXT, size),
            (DATA, 0, INDIRECT, 0),
            (DATA, 17, INDIRECT, 0),
            (end - 16, 32, INDIRECT, 0),
            (DATA, 16, INDIRECT | NEXT, 1),
        ];
        for descriptor in alone {
            driver.put_descriptor(queue, 0, descriptor);
            driver.make_available(queue, 0);
            expect_failed(&mut driver, queue);
        }
        driver.put_descriptor(queue, 0, (DATA, 16, WRITE | NEXT, 1));
        driver.put_descriptor(queue, 1, (DATA, 16, 0, 0));
        driver.make_available(queue, 0);
        expect_failed(&mut driver, queue);
        driver.make_available(queue, size);
        expect_failed(&mut driver, queue);
        for index in [size + 1, u16::MAX] {
            driver.set_available_index(queue, index);
            expect_failed(&mut driver, queue);
        }
    }
}
