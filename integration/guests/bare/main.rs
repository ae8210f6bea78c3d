//! A guest on the bare ABI, without the runtime: it does what its first argument says, most of
//! which no guest should do, and then shows that it still lives.
//!
//! It ends with status 0 if the monitor bore what it did as the ABI says; any other status is one
//! of [`status`].
#![no_std]
#![no_main]

mod block;
mod console;
mod features;
mod guest;
mod lasting;
mod low;
mod memory;
mod net;
mod registers;
mod rings;
mod subject;
mod verdict;
mod virtio;
mod vsock;

use core::arch::global_asm;

use slice_abi::control;
use slice_abi::info::InfoPage;

use guest::Guest;
use low::{load, store};

/// Why a guest ends early.
mod status {
    pub const NO_DEVICE: u64 = 10;
    pub const FEATURES_REFUSED: u64 = 11;
    pub const NO_NEEDS_RESET: u64 = 12;
    pub const RESET_HAD_NO_EFFECT: u64 = 13;
    pub const NOT_PRINTED: u64 = 14;
    pub const READ_NOT_ZERO: u64 = 15;
    pub const IDLE_TOO_LONG: u64 = 16;
    pub const BAD_QUEUE_ACCEPTED: u64 = 17;
    pub const UNKNOWN_CASE: u64 = 18;
    pub const CLOCK_WENT_BACK: u64 = 19;
    pub const CLOCK_JUMPED: u64 = 20;
    pub const STATE_LAGS: u64 = 21;
    pub const DOES_NOT_WORK_AGAIN: u64 = 22;
}

// The note, and an entry that leaves the stack as the C convention wants it.
global_asm!(
    ".pushsection .note.slice, \"a\", @note",
    ".balign 4",
    ".long 6, 16, 1",
    ".asciz \"SLICE\"",
    ".balign 4",
    ".long {abi}, 0",
    ".quad 0",
    ".popsection",
    ".globl _start",
    "_start:",
    "call {main}",
    "ud2",
    abi = const slice_abi::ABI_VERSION,
    main = sym main,
);

extern "C" fn main(info: &'static InfoPage, vcpu: u64) -> ! {
    let guest = Guest::new(info);
    if vcpu != 0 {
        guest.run_beside(guest.argument(0));
    }
    guest.run(guest.argument(0));
    guest.exit(0)
}

impl Guest {
    fn run(&self, case: &[u8]) {
        match case {
            b"control-misuse" => self.control_misuse(),
            b"print-tail" => self.console().print(b"no newline"),
            b"print-flood" => loop {
                self.console().flood();
            },
            b"wake-missing" => {
                for index in [1, 31, 32, 1 << 31, u64::MAX] {
                    self.control(control::WAKE, index);
                }
            }
            b"idle-past" => self.idle_past(),
            b"idle" => {
                self.console().recover();
                self.idle_for_ever();
            }
            b"idle-max" => loop {
                self.control(control::IDLE, u64::MAX);
            },
            b"exit-from-1" => {
                self.control(control::WAKE, 1);
                self.idle_for_ever();
            }
            b"flood" => loop {
                self.control(control::YIELD, 0);
            },
            b"busy" => loop {
                core::hint::spin_loop();
            },
            b"features" => self.use_features(),
            b"status" => self.exit(self.number(1)),
            b"clock" => self.watch_clock(|| {}),
            b"clock-flood" => self.watch_clock(|| self.console().flood()),
            b"print-gigabytes" => self.print_gigabytes(),
            b"fill-and-fail" => self.fill_and_fail(),
            b"clog-beside" => self.clog_beside(),
            b"fail-beside" => self.await_failure(),
            b"read-heap" => self.touch_heap(|at| {
                load::<u64>(at);
            }),
            b"write-heap" => self.touch_heap(|at| store::<u64>(at, 1)),
            b"beat" => self.beat(),
            _ => self.hostile_case(case),
        }
    }

    fn idle_for_ever(&self) -> ! {
        loop {
            self.control(control::IDLE, 0);
        }
    }

    fn control_misuse(&self) {
        let window = self.info.control;
        for offset in [control::IDLE, control::EXIT, control::YIELD, control::WAKE] {
            store::<u8>(window + offset, 1);
            store::<u16>(window + offset, 1);
            store::<u32>(window + offset, 1);
            store::<u64>(window + offset + 4, 1);
            if load::<u64>(window + offset) != 0 || load::<u8>(window + offset) != 0 {
                self.exit(status::READ_NOT_ZERO);
            }
        }
        for offset in [0x20, 0x28, 0x800, 0xff8] {
            store::<u64>(window + offset, 1);
        }
    }

    fn idle_past(&self) {
        let start = self.now();
        for deadline in [1, start / 2, start] {
            self.control(control::IDLE, deadline);
        }
        if self.now() - start > 5_000_000_000 {
            self.exit(status::IDLE_TOO_LONG);
        }
    }
}
