//! What every case needs of the ABI: arguments, time, the control window, the devices.

use slice_abi::clock::ClockRecord;
use slice_abi::control;
use slice_abi::device::{DeviceEntry, device_id};
use slice_abi::info::InfoPage;

use crate::console::TRANSMIT;
use crate::low::{rdtsc, store};
use crate::status;
use crate::virtio::Device;

pub struct Guest {
    pub info: &'static InfoPage,
}

impl Guest {
    pub fn new(info: &'static InfoPage) -> Self {
        Self { info }
    }

    pub fn console(&self) -> Device<'_> {
        self.device(device_id::CONSOLE, TRANSMIT)
    }

    /// The first device of this type, and one of its queues.
    pub fn device(&self, id: u32, queue: u32) -> Device<'_> {
        match self.devices().find(|device| device.id == id) {
            Some(entry) => Device::new(self, entry, queue),
            None => self.exit(status::NO_DEVICE),
        }
    }

    fn devices(&self) -> impl Iterator<Item = &DeviceEntry> {
        self.info
            .devices
            .iter()
            .take(self.info.device_count as usize)
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

    pub fn number(&self, index: usize) -> u64 {
        let digits = self.argument(index).iter();
        digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
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
