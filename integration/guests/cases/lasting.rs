//! Cases that go on until somebody steers the sliver, or that are not about one device.

use slice_abi::device::device_id;
use slice_abi::layout::PAGE_SIZE;

use super::console;
use super::low::{load, store};
use super::rings;
use super::status;
use super::virtio::{Desc, Device, NEXT, reg};
use crate::guest::Guest;

impl Guest {
    /// What vCPU 0 does, if its machine has no case of its own of that name.
    pub fn run_case(&self, case: &[u8]) {
        match case {
            b"print-tail" => self.console().print(b"no newline"),
            b"print-flood" => loop {
                self.console().flood();
            },
            b"idle" => {
                self.console().recover();
                loop {
                    self.rest(None);
                }
            }
            b"busy" => self.spin(),
            b"status" => self.exit(self.number(1)),
            b"print-gigabytes" => self.print_gigabytes(),
            b"fill-and-fail" => self.fill_and_fail(),
            b"clog-beside" => self.clog_beside(),
            b"fail-beside" => self.await_failure(),
            b"read-heap" => self.touch_heap(|at| {
                load::<u64>(at);
            }),
            b"write-heap" => self.touch_heap(|at| store::<u64>(at, 1)),
            b"beat" => self.beat(),
            _ if case.starts_with(b"egress") => self.egress(case),
            _ => {
                self.flood(case);
                self.hostile_case(case);
            }
        }
    }

    /// What vCPUs other than the first do.
    pub fn run_beside(&self, case: &[u8]) -> ! {
        match case {
            b"clog-beside" => loop {
                self.console().read(reg::STATUS);
            },
            b"fail-beside" => self.fail_beside(),
            b"busy-all" => self.spin(),
            b"changed-in-flight" => rings::change_in_flight(self),
            _ => self.exit(self.number(1)),
        }
    }

    pub fn console(&self) -> Device<'_> {
        self.device(device_id::CONSOLE, console::TRANSMIT)
    }

    /// The first device of this type, and one of its queues.
    pub fn device(&self, id: u32, queue: u32) -> Device<'_> {
        match self.devices().iter().find(|device| device.id == id) {
            Some(entry) => Device::new(self, entry, queue),
            None => self.exit(status::NO_DEVICE),
        }
    }

    /// The number that an argument is.
    pub fn number(&self, index: usize) -> u64 {
        let digits = self.argument(index).iter();
        digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
    }

    /// Rests for so long, or until something happens.
    pub fn rest_for(&self, nanoseconds: u64) {
        self.rest(Some(self.now() + nanoseconds));
    }

    /// Gives the device a full queue of chains that each print gigabytes, by one doorbell.
    pub fn print_gigabytes(&self) -> ! {
        let console = self.console();
        console.start();
        let data = console.data();
        let len = (self.heap().end() - data) as u32;
        let size = console.size();
        for index in 0..size {
            let next = if index == size - 1 { 0 } else { NEXT };
            let desc = Desc::text(data, len).with(next, index + 1);
            console.describe(index.into(), &desc);
        }
        console.offer_all();
        self.spin()
    }

    /// Fills a pipe to its last byte, and then lets the queue fail.
    pub fn fill_and_fail(&self) -> ! {
        let console = self.console();
        console.start();
        let data = console.data();
        console.submit(&[Desc::text(data, 1 << 16)]);
        console.submit(&[Desc::text(data, 1).with(NEXT, 0)]);
        self.spin()
    }

    /// Prints without end beside a vCPU that uses the console, too.
    pub fn clog_beside(&self) -> ! {
        self.wake(1);
        loop {
            self.console().flood();
        }
    }

    /// Sleeps until the console has failed, which no other event tells.
    pub fn await_failure(&self) {
        let console = self.console();
        console.start();
        self.wake(1);
        while !console.needs_reset() {
            self.rest(None);
        }
    }

    /// Lets the console fail, once vCPU 0 has had time to fall asleep.
    fn fail_beside(&self) -> ! {
        let until = self.now() + 300_000_000;
        while self.now() < until {
            core::hint::spin_loop();
        }
        let console = self.console();
        console.submit(&[Desc::text(console.data(), 1).with(NEXT, 0)]);
        self.spin()
    }

    /// Touches as many MiB of the heap as the second argument says, page by page.
    pub fn touch_heap(&self, touch: impl Fn(u64)) {
        let start = self.heap().start.next_multiple_of(PAGE_SIZE);
        for at in (start..start + (self.number(1) << 20)).step_by(PAGE_SIZE as usize) {
            touch(at);
        }
    }

    pub fn spin(&self) -> ! {
        loop {
            core::hint::spin_loop();
        }
    }
}
