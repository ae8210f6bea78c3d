//! What every case needs of its machine, here of a computer: memory, devices, time, rest and an end.
//!
//! The memory map and the command line are PVH's; devices are those that the command line names as
//! `virtio_mmio.device=SIZE@ADDRESS:LINE`.

use core::sync::atomic::{AtomicU32, Ordering};

use slice_abi::device::DeviceEntry;
use slice_abi::info::Range;

use super::interrupts::{self, Pace};
use super::low;
use crate::cases::low::{load, rdtsc, store};
use crate::cases::virtio::reg;

/// Where RAM of every machine ends, or goes on above devices.
const HOLE: u64 = 0xc000_0000;

/// Ends the guest with the status written.
pub const EXIT_PORT: u16 = 0xf4;

const MAX_DEVICES: usize = 24;
const MAX_COMMAND_LINE: usize = 2048;

/// Registers that only a guest with interrupts uses.
const INTERRUPT_STATUS: u64 = 0x60;
const INTERRUPT_ACK: u64 = 0x64;

/// Offsets in PVH's start info, and in its memory map.
mod start_info {
    pub const COMMAND_LINE: u64 = 24;
    pub const MEMORY_MAP: u64 = 40;
    pub const MEMORY_MAP_ENTRIES: u64 = 48;
    pub const ENTRY: u64 = 24;
    pub const RAM: u32 = 1;
    pub const ACPI: u32 = 3;
}

pub struct Guest {
    heap: Range,
    image: Range,
    command_line: [u8; MAX_COMMAND_LINE],
    devices: [DeviceEntry; MAX_DEVICES],
    device_count: usize,
    /// Line of each device.
    lines: [u32; MAX_DEVICES],
    /// Interrupts of each line that were seen to, by device.
    seen: [AtomicU32; MAX_DEVICES],
    pace: Pace,
    /// The counter when this began.
    start: u64,
}

impl Guest {
    /// Reads what the machine says, and sets its interrupts up.
    pub fn new(start_info: u64, image_end: u64) -> Self {
        let mut command_line = [0; MAX_COMMAND_LINE];
        let at: u64 = load(start_info + start_info::COMMAND_LINE);
        for (at, byte) in (at..).zip(&mut command_line) {
            *byte = load(at);
            if *byte == 0 {
                break;
            }
        }
        let image = Range {
            start: 0x20_0000,
            len: image_end - 0x20_0000,
        };
        let heap_start = image_end.next_multiple_of(4096);
        let mut guest = Self {
            heap: Range {
                start: heap_start,
                len: end_of_ram(start_info) - heap_start,
            },
            image,
            command_line,
            devices: [DeviceEntry::default(); MAX_DEVICES],
            device_count: 0,
            lines: [0; MAX_DEVICES],
            seen: [const { AtomicU32::new(0) }; MAX_DEVICES],
            pace: interrupts::init(),
            start: rdtsc(),
        };
        guest.find_devices();
        guest
    }

    fn find_devices(&mut self) {
        for at in 0..MAX_COMMAND_LINE {
            let Some(device) = self.command_line[at..].strip_prefix(b"virtio_mmio.device=") else {
                continue;
            };
            let mut parts = device.split(|&byte| matches!(byte, b'@' | b':' | b' ' | 0));
            let _size = parts.next();
            let window = number(parts.next().unwrap_or(b""));
            let line = number(parts.next().unwrap_or(b"")) as u32;
            if let Some(entry) = device_at(window) {
                self.devices[self.device_count] = entry;
                self.lines[self.device_count] = line;
                self.device_count += 1;
                interrupts::open_line(line, true);
            }
        }
    }

    pub fn devices(&self) -> &[DeviceEntry] {
        &self.devices[..self.device_count]
    }

    /// The input of the I/O APIC that a device is connected to.
    pub fn line(&self, device: &DeviceEntry) -> u32 {
        let same = |(entry, _): &(&DeviceEntry, &u32)| entry.window == device.window;
        let found = self.devices().iter().zip(&self.lines).find(same);
        found.map_or(0, |(_, &line)| line)
    }

    /// A byte of a device's configuration space.
    pub fn config(&self, device: &DeviceEntry, offset: u64) -> u8 {
        load(device.window + reg::CONFIG + offset)
    }

    /// There is no other place than its register that could tell that a device has failed.
    pub fn tells_failure(&self, _: &DeviceEntry) -> bool {
        true
    }

    /// Memory for rings and buffers, to the end of all memory.
    pub fn heap(&self) -> Range {
        self.heap
    }

    /// Where this program is.
    pub fn text(&self) -> Range {
        self.image
    }

    /// Rests until something happens, or until then; it may come back early. Interrupts that the
    /// devices have asked for are acknowledged.
    pub fn rest(&self, until: Option<u64>) {
        interrupts::rest(until.map(|until| until.saturating_sub(self.now())));
        let lines = self.lines.iter().zip(&self.seen);
        for (device, (&line, seen)) in self.devices().iter().zip(lines) {
            let count = interrupts::count(line);
            if seen.swap(count, Ordering::Relaxed) != count {
                acknowledge(device);
            }
        }
    }

    /// Has the other processors run beside this one, all of them.
    pub fn wake(&self, _: u64) {
        crate::share(self);
        interrupts::start_others(|nanoseconds| {
            let until = self.now() + nanoseconds;
            while self.now() < until {
                core::hint::spin_loop();
            }
        });
    }

    pub fn exit(&self, status: u64) -> ! {
        end(status as u8)
    }

    /// What follows `--` on the command line, word by word. Devices may be told there, too.
    pub fn argument(&self, index: usize) -> &[u8] {
        let text = self.command_line.split(|&byte| byte == 0).next();
        let words = text.unwrap_or(b"").split(|&byte| byte == b' ');
        let words = words.skip_while(|&word| word != b"--").skip(1);
        let mut words = words.filter(|word| !word.is_empty() && !word.starts_with(b"virtio_mmio."));
        words.nth(index).unwrap_or(b"")
    }

    pub fn now(&self) -> u64 {
        self.pace.nanoseconds(rdtsc() - self.start)
    }
}

/// Ends the guest, or at least stops this processor.
pub fn end(status: u8) -> ! {
    low::outb(EXIT_PORT, status);
    loop {
        low::cli();
        low::hlt();
    }
}

/// Why a device has interrupted: bit 0 for used buffers, bit 1 for its configuration (virtio 1.2,
/// 4.2.2).
pub fn reasons(device: &DeviceEntry) -> u32 {
    load(device.window + INTERRUPT_STATUS)
}

/// Acknowledges reasons.
pub fn acknowledge_these(device: &DeviceEntry, reasons: u32) {
    store(device.window + INTERRUPT_ACK, reasons);
}

/// Acknowledges all there are.
pub fn acknowledge(device: &DeviceEntry) {
    match reasons(device) {
        0 => {}
        reasons => acknowledge_these(device, reasons),
    }
}

/// One past the last byte of RAM below the hole. The tables of ACPI are there for whoever reads them.
fn end_of_ram(start_info: u64) -> u64 {
    let map: u64 = load(start_info + start_info::MEMORY_MAP);
    let count: u32 = load(start_info + start_info::MEMORY_MAP_ENTRIES);
    let mut end = 0;
    for at in (0..count.into()).map(|index: u64| map + index * start_info::ENTRY) {
        let (start, len, kind) = (load::<u64>(at), load::<u64>(at + 8), load::<u32>(at + 16));
        if matches!(kind, start_info::RAM | start_info::ACPI) && start < HOLE {
            end = end.max(start + len);
        }
    }
    end
}

/// What a window's registers say of its device, just reset; there may be none.
fn device_at(window: u64) -> Option<DeviceEntry> {
    let read = |register| load::<u32>(window + register);
    store(window + reg::STATUS, 0u32);
    let id = read(reg::DEVICE_ID);
    if id == 0 {
        return None;
    }
    let feature = |half: u32| {
        store(window + reg::DEVICE_FEATURES_SEL, half);
        u64::from(read(reg::DEVICE_FEATURES))
    };
    let features = feature(0) | feature(1) << 32;
    store(window + reg::QUEUE_SEL, 0u32);
    Some(DeviceEntry {
        id,
        queue_size_max: read(reg::QUEUE_NUM_MAX),
        window,
        features,
        ..DeviceEntry::default()
    })
}

/// Decimal, or hexadecimal after `0x`.
fn number(text: &[u8]) -> u64 {
    let (digits, base) = match text.strip_prefix(b"0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    digits.iter().fold(0, |number, &digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            _ => (digit | 0x20) - b'a' + 10,
        };
        number * base + u64::from(digit)
    })
}
