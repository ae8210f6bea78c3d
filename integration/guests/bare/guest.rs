//! What every case needs of its machine, here of the ABI: memory, devices, time, rest and an end.

use slice_abi::clock::ClockRecord;
use slice_abi::control;
use slice_abi::device::{DeviceEntry, STATUS_NEEDS_RESET};
use slice_abi::info::{InfoPage, Range};

use crate::cases::low::{load, rdtsc, store};

pub struct Guest {
    pub info: &'static InfoPage,
}

impl Guest {
    pub fn new(info: &'static InfoPage) -> Self {
        Self { info }
    }

    pub fn devices(&self) -> &[DeviceEntry] {
        &self.info.devices[..self.info.device_count as usize]
    }

    /// A byte of a device's configuration space, as memory tells it.
    pub fn config(&self, device: &DeviceEntry, offset: u64) -> u8 {
        load(device.state + 8 + offset)
    }

    /// Whether memory, too, tells that a device has failed.
    pub fn tells_failure(&self, device: &DeviceEntry) -> bool {
        load::<u32>(device.state) & STATUS_NEEDS_RESET != 0
    }

    /// Memory for rings and buffers, to the end of all memory.
    pub fn heap(&self) -> Range {
        self.info.heap
    }

    /// Where this program is.
    pub fn text(&self) -> Range {
        self.info.memory[0].range
    }

    /// Rests until something happens, or until then; it may come back early.
    pub fn rest(&self, until: Option<u64>) {
        self.control(control::IDLE, until.unwrap_or(0));
    }

    /// Has another vCPU run beside this one.
    pub fn wake(&self, vcpu: u64) {
        self.control(control::WAKE, vcpu);
    }

    pub fn control(&self, register: u64, value: u64) {
        store(self.info.control + register, value);
    }

    pub fn exit(&self, status: u64) -> ! {
        loop {
            self.control(control::EXIT, status);
        }
    }

    pub fn argument(&self, index: usize) -> &[u8] {
        let args = self.info.args;
        // SAFETY: the info page says that these bytes are there, readable and constant.
        let bytes =
            unsafe { core::slice::from_raw_parts(args.start as *const u8, args.len as usize) };
        bytes.split(|&byte| byte == 0).nth(index).unwrap_or(b"")
    }

    pub fn now(&self) -> u64 {
        // SAFETY: the info page says that the record is there; it lives as long as the sliver.
        let record = unsafe { &*(self.info.clock as *const ClockRecord) };
        loop {
            let (seq, reading) = record.begin();
            let tsc = rdtsc();
            if !record.retry(seq) {
                return reading.monotonic_ns(tsc);
            }
        }
    }
}
