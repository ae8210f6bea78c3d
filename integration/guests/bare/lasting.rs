//! Cases that go on until somebody steers the sliver, and what they watch meanwhile.

use slice_abi::control;
use slice_abi::layout::PAGE_SIZE;

use crate::guest::Guest;
use crate::rings;
use crate::status;
use crate::virtio::{Desc, NEXT, reg};

/// More than any processor keeps a sliver waiting, less than it is paused in a test.
const JUMP_NS: u64 = 1_000_000_000;

impl Guest {
    /// What vCPUs other than the first do.
    pub fn run_beside(&self, case: &[u8]) -> ! {
        match case {
            b"clog-beside" => loop {
                self.console().read(reg::STATUS);
            },
            b"fail-beside" => self.fail_beside(),
            b"changed-in-flight" => rings::change_in_flight(self),
            _ => self.exit(self.number(1)),
        }
    }

    /// Reads the clock for ever, doing something in between.
    pub fn watch_clock(&self, between: impl Fn()) -> ! {
        let mut last = self.now();
        loop {
            between();
            let now = self.now();
            if now < last {
                self.exit(status::CLOCK_WENT_BACK);
            }
            if now - last > JUMP_NS {
                self.exit(status::CLOCK_JUMPED);
            }
            last = now;
        }
    }

    /// Gives the device a full queue of chains that each print gigabytes, by one doorbell.
    pub fn print_gigabytes(&self) -> ! {
        let console = self.console();
        console.start();
        let data = console.data();
        let len = (self.info.heap.end() - data) as u32;
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
        self.control(control::WAKE, 1);
        loop {
            self.console().flood();
        }
    }

    /// Sleeps until the console has failed, which no other event tells.
    pub fn await_failure(&self) {
        let console = self.console();
        console.start();
        self.control(control::WAKE, 1);
        while !console.needs_reset() {
            self.control(control::IDLE, 0);
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
        let start = self.info.heap.start.next_multiple_of(PAGE_SIZE);
        for at in (start..start + (self.number(1) << 20)).step_by(PAGE_SIZE as usize) {
            touch(at);
        }
    }

    fn spin(&self) -> ! {
        loop {
            core::hint::spin_loop();
        }
    }
}
