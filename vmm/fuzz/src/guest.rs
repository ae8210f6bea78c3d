//! A guest with one device, whose every deed is read from the input.

use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use slice_abi::device::{CONFIG_BYTES, DeviceState};
use slice_abi::info::Range;
use slice_abi::layout::RAM_BASE;
use virtio_bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
};
use vm_memory::{Bytes, GuestAddress};
use vmm::devices::virtio::backend::{Backend, Order};
use vmm::devices::virtio::device::{Outcome, VirtioDevice};
use vmm::devices::virtio::mmio::{register, status};
use vmm::kvm::memory::GuestRam;
use vmm::nanos::Nanos;

use crate::outside::ignore_closed_pipes;

/// Memory of the guest.
pub const RAM: Range = Range {
    start: RAM_BASE,
    len: 1 << 20,
};
/// Devices may not write below.
pub const WRITABLE_FROM: u64 = RAM_BASE + 0x1000;
/// Rings of queue 0; those of queue `n` lie `n * RING_ROOM` above.
const RINGS: u64 = RAM_BASE + 0x1_0000;
const RING_ROOM: u64 = 0x4000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
/// Memory for buffers, to the end of [`RAM`].
pub const DATA: u64 = RAM_BASE + 0x4_0000;
/// What the memory holds that devices may not write.
const TEXT: u8 = 0xa5;
/// Deeds in one input.
const DEEDS: usize = 96;
/// Batches after which a device that gets no new work must have come to rest.
const ENOUGH_BATCHES: usize = 20_000;
/// How long what a device has begun may take the host.
const PATIENCE: Duration = Duration::from_secs(10);

/// Memory as a guest has it.
///
/// # Panics
/// If it cannot be had.
pub fn ram() -> GuestRam {
    let ram = GuestRam::new(&[RAM], &[], WRITABLE_FROM).expect("memory is there");
    let text = [TEXT; (WRITABLE_FROM - RAM_BASE) as usize];
    ram.write_any(&text, RAM_BASE).expect("it is memory");
    ram
}

/// A guest.
#[derive(Debug)]
pub struct Guest {
    ram: GuestRam,
    device: VirtioDevice,
    state: DeviceState,
    now: Nanos,
    sizes: Vec<u16>,
    next: u16,
}

/// Does to a device of this kind what the input says; `outside` does what its host may do.
pub fn drive(data: &[u8], backend: Box<dyn Backend>, outside: impl FnMut(&mut Unstructured)) {
    ignore_closed_pipes();
    let mut guest = Guest::new(backend);
    let mut input = Unstructured::new(data);
    // An input that ends is at its end, whatever it was about to say.
    let _ = guest.live(&mut input, outside);
    guest.come_to_rest();
    guest.end();
}

impl Guest {
    fn new(backend: Box<dyn Backend>) -> Self {
        let sizes = backend.identity().queue_sizes;
        Self {
            ram: ram(),
            device: VirtioDevice::new(backend),
            state: DeviceState {
                status: AtomicU32::new(0),
                generation: AtomicU32::new(0),
                config: [const { AtomicU32::new(0) }; CONFIG_BYTES / 4],
            },
            now: Nanos(1_000_000_000),
            sizes,
            next: 0,
        }
    }

    fn live(
        &mut self,
        input: &mut Unstructured,
        mut outside: impl FnMut(&mut Unstructured),
    ) -> Result<()> {
        self.bring_up(input)?;
        for _ in 0..DEEDS {
            if input.is_empty() {
                break;
            }
            match input.arbitrary::<u8>()? % 16 {
                0..=3 => self.offer(input)?,
                4 => self.offer_indirect(input)?,
                5 => self.spoil_rings(input)?,
                6..=8 => {
                    let queue = input.arbitrary::<u8>()? % 6;
                    self.set(register::QUEUE_NOTIFY, queue.into());
                }
                9 => self.serve(),
                10 => self.write_register(input)?,
                11 => self.read_register(input)?,
                12 => {
                    self.now.0 += u64::from(input.arbitrary::<u16>()?) << 14;
                    self.serve();
                }
                13 | 14 => {
                    outside(input);
                    for source in 0..self.device.sources().len() {
                        self.device.ready(source);
                    }
                    self.serve();
                }
                _ => self.steer(input)?,
            }
            self.device.publish_state(&self.state);
        }
        Ok(())
    }

    /// Resets the device and brings it up with most of what it offers.
    fn bring_up(&mut self, input: &mut Unstructured) -> Result<()> {
        self.reset();
        let offered = self.device.entry(0, 0).features;
        // Event indices are left out now and then: they make queues quiet.
        let without = input.arbitrary::<u32>()? & input.arbitrary::<u32>()?;
        let features = offered & !u64::from(without & !(1 << VIRTIO_RING_F_EVENT_IDX));
        self.set(register::STATUS, status::ACKNOWLEDGE | status::DRIVER);
        for half in [0, 1] {
            self.set(register::DRIVER_FEATURES_SEL, half);
            self.set(register::DRIVER_FEATURES, (features >> (32 * half)) as u32);
        }
        let agreed = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
        self.set(register::STATUS, agreed);
        let smaller = input.arbitrary::<u8>()? % 8;
        for queue in 0..self.sizes.len() {
            let base = RINGS + queue as u64 * RING_ROOM;
            let zeros = [0; RING_ROOM as usize];
            self.ram.write_any(&zeros, base).expect("rings are memory");
            self.set(register::QUEUE_SEL, queue as u32);
            let size = (self.get(register::QUEUE_NUM_MAX) >> smaller).clamp(1, 256);
            self.sizes[queue] = size as u16;
            self.set(register::QUEUE_NUM, size);
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
        self.set(register::STATUS, agreed | status::DRIVER_OK);
        Ok(())
    }

    fn reset(&mut self) {
        self.set(register::STATUS, 0);
        let began = Instant::now();
        while self.get(register::STATUS) != 0 {
            assert!(began.elapsed() < PATIENCE, "a reset does not end");
            self.serve();
        }
    }

    fn set(&mut self, at: u64, value: u32) {
        self.write(at, &value.to_le_bytes());
    }

    fn write(&mut self, at: u64, data: &[u8]) {
        let outcome = self.device.write(at, data, &self.ram, self.now);
        self.judge(&outcome);
    }

    fn get(&self, at: u64) -> u32 {
        let mut word = [0; 4];
        self.device.read(at, &mut word);
        u32::from_le_bytes(word)
    }

    fn serve(&mut self) {
        let outcome = self.device.serve(&self.ram, self.now);
        self.judge(&outcome);
    }

    fn judge(&mut self, outcome: &Outcome) {
        if let Some(fault) = &outcome.fault {
            assert!(!fault.to_string().is_empty());
            assert!(outcome.notify && !outcome.more);
            assert_ne!(self.get(register::STATUS) & status::NEEDS_RESET, 0);
            assert_eq!(self.device.serve(&self.ram, self.now), Outcome::default());
        }
    }

    fn write_register(&mut self, input: &mut Unstructured) -> Result<()> {
        let at = u64::from(input.arbitrary::<u16>()? % 0x140);
        let value = input.arbitrary::<u64>()?.to_le_bytes();
        let width = [4, 4, 4, 1, 2, 8][usize::from(input.arbitrary::<u8>()? % 6)];
        let at = if width == 4 { at & !3 } else { at };
        self.write(at, &value[..width]);
        Ok(())
    }

    fn read_register(&mut self, input: &mut Unstructured) -> Result<()> {
        let at = u64::from(input.arbitrary::<u16>()? % 0x1000);
        let mut data = [0; 8];
        let width = 1 << (input.arbitrary::<u8>()? % 4);
        self.device.read(at, &mut data[..width]);
        Ok(())
    }

    fn steer(&mut self, input: &mut Unstructured) -> Result<()> {
        match input.arbitrary::<u8>()? % 4 {
            0 => self.bring_up(input)?,
            1 => {
                self.device
                    .order(Order::Balloon(input.arbitrary::<u8>()?.into()));
            }
            2 => {
                let (columns, rows) = input.arbitrary()?;
                self.device.order(Order::ConsoleSize { columns, rows });
            }
            _ => assert!(!self.device.status().tag.is_empty()),
        }
        Ok(())
    }

    /// An address: mostly of buffers, now and then anything.
    fn address(input: &mut Unstructured) -> Result<u64> {
        Ok(match input.arbitrary::<u8>()? % 16 {
            0..=11 => DATA + u64::from(input.arbitrary::<u16>()?) * 8,
            12 => RINGS + u64::from(input.arbitrary::<u16>()?),
            13 => RAM.end() - u64::from(input.arbitrary::<u8>()?),
            14 => RAM_BASE + u64::from(input.arbitrary::<u16>()?),
            _ => input.arbitrary()?,
        })
    }

    fn len(input: &mut Unstructured) -> Result<u32> {
        Ok(match input.arbitrary::<u8>()? % 16 {
            0..=7 => input.arbitrary::<u8>()?.into(),
            8..=11 => input.arbitrary::<u8>()? as u32 * 512,
            12..=14 => input.arbitrary::<u16>()?.into(),
            _ => input.arbitrary()?,
        })
    }

    /// Some descriptors at `table`, each but the last with a next one. Bytes that the device reads
    /// come from the input.
    fn describe(&self, input: &mut Unstructured, table: u64, first: u16, size: u16) -> Result<u16> {
        let count = 1 + u16::from(input.arbitrary::<u8>()? % 6);
        let count = count.min(size);
        let written = u16::from(input.arbitrary::<u8>()? % 8);
        for i in 0..count {
            let (address, mut len) = (Self::address(input)?, Self::len(input)?);
            let mut flags = if i + 1 == count { 0 } else { VRING_DESC_F_NEXT };
            if i >= written {
                flags |= VRING_DESC_F_WRITE;
            } else {
                let count = usize::from(input.arbitrary::<u8>()? % 129);
                let bytes = input.bytes(count)?;
                // Outside memory it is the device's to find out.
                let _ = self.ram.write_slice(bytes, GuestAddress(address));
                if len == 0 {
                    len = bytes.len() as u32;
                }
            }
            let (index, next) = ((first + i) % size, (first + i + 1) % size);
            self.put(table, index, (address, len, flags, next));
        }
        Ok(count)
    }

    fn put(&self, table: u64, index: u16, (address, len, flags, next): (u64, u32, u32, u16)) {
        let raw = u128::from(address)
            | u128::from(len) << 64
            | u128::from(flags & 0xffff) << 96
            | u128::from(next) << 112;
        let at = table.wrapping_add(u64::from(index) * 16);
        // A table may lie anywhere; a guest, too, cannot write where devices may not.
        let _ = self.ram.write_slice(&raw.to_le_bytes(), GuestAddress(at));
    }

    fn queue(&self, input: &mut Unstructured) -> Result<(u64, u16)> {
        let queue = usize::from(input.arbitrary::<u8>()?) % self.sizes.len();
        Ok((RINGS + queue as u64 * RING_ROOM, self.sizes[queue]))
    }

    fn offer(&mut self, input: &mut Unstructured) -> Result<()> {
        let (base, size) = self.queue(input)?;
        let head = self.next % size;
        let count = self.describe(input, base, head, size)?;
        self.next = self.next.wrapping_add(count);
        self.make_available(base, size, head);
        Ok(())
    }

    fn offer_indirect(&mut self, input: &mut Unstructured) -> Result<()> {
        let (base, size) = self.queue(input)?;
        let table = Self::address(input)?;
        let count = self.describe(input, table, 0, 64)?;
        let head = self.next % size;
        let flags = VRING_DESC_F_INDIRECT | u32::from(input.ratio(1, 16)?);
        let len = u32::from(count) * 16 + u32::from(input.ratio(1, 16)?);
        self.put(base, head, (table, len, flags, 0));
        self.next = self.next.wrapping_add(1);
        self.make_available(base, size, head);
        Ok(())
    }

    fn make_available(&mut self, base: u64, size: u16, head: u16) {
        let at = GuestAddress(base + AVAILABLE + 2);
        let index: u16 = self.ram.read_obj(at).expect("rings are memory");
        let slot = base + AVAILABLE + 4 + 2 * u64::from(index % size);
        let put = |at, word: u16| self.ram.write_any(&word.to_le_bytes(), at);
        put(slot, head).expect("rings are memory");
        put(at.0, index.wrapping_add(1)).expect("rings are memory");
    }

    /// Writes whatever anywhere in the rings, or to the buffers.
    fn spoil_rings(&mut self, input: &mut Unstructured) -> Result<()> {
        let (base, _) = self.queue(input)?;
        let at = match input.arbitrary::<u8>()? % 4 {
            0 => base + u64::from(input.arbitrary::<u8>()?) * 2,
            1 => base + AVAILABLE + u64::from(input.arbitrary::<u8>()? % 64),
            2 => base + AVAILABLE + 4 + 2 * 256,
            _ => DATA + u64::from(input.arbitrary::<u16>()?) * 8,
        };
        let len = usize::from(input.arbitrary::<u8>()? % 24);
        let bytes = input.bytes(len)?;
        let _ = self.ram.write_any(bytes, at);
        Ok(())
    }

    /// Without new work every device comes to rest.
    fn come_to_rest(&mut self) {
        for _ in 0..ENOUGH_BATCHES {
            let outcome = self.device.serve(&self.ram, self.now);
            self.judge(&outcome);
            if !outcome.more {
                return;
            }
        }
        panic!("it does not come to rest: {:?}", self.device.status());
    }

    fn end(&mut self) {
        self.reset();
        assert!(!self.device.is_active());
        let mut text = [0; (WRITABLE_FROM - RAM_BASE) as usize];
        let read = self.ram.read_slice(&mut text, GuestAddress(RAM_BASE));
        read.expect("it is memory");
        assert!(
            text.iter().all(|&byte| byte == TEXT),
            "a device wrote where none may"
        );
    }
}
