//! What only a slice can do wrong: its clock, and the control window.

use slice_abi::control;

use crate::cases::low::{load, store};
use crate::cases::verdict::Verdict;
use crate::cases::virtio::Device;
use crate::guest::Guest;

/// Why a guest ends early, beside what every guest knows.
mod status {
    pub const READ_NOT_ZERO: u64 = 15;
    pub const IDLE_TOO_LONG: u64 = 16;
    pub const CLOCK_WENT_BACK: u64 = 19;
    pub const CLOCK_JUMPED: u64 = 20;
}

/// More than any processor keeps a sliver waiting, less than it is paused in a test.
const JUMP_NS: u64 = 1_000_000_000;

/// A slice's devices are asked for nothing that others' are not.
pub fn run(_: &Device, _: &[u8]) -> Option<Verdict> {
    None
}

impl Guest {
    /// What vCPU 0 does.
    pub fn run(&self, case: &[u8]) {
        match case {
            b"control-misuse" => self.control_misuse(),
            b"wake-missing" => {
                for index in [1, 31, 32, 1 << 31, u64::MAX] {
                    self.wake(index);
                }
            }
            b"idle-past" => self.idle_past(),
            b"idle-max" => loop {
                self.rest(Some(u64::MAX));
            },
            b"exit-from-1" => {
                self.wake(1);
                loop {
                    self.rest(None);
                }
            }
            b"flood" => loop {
                self.control(control::YIELD, 0);
            },
            b"sleep-through-ends" => self.sleep_through_ends(),
            b"features" => self.use_features(),
            b"clock" => self.watch_clock(|| {}),
            b"clock-flood" => self.watch_clock(|| self.console().flood()),
            _ => self.run_case(case),
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
            self.rest(Some(deadline));
        }
        if self.now() - start > 5_000_000_000 {
            self.exit(status::IDLE_TOO_LONG);
        }
    }

    /// Reads the clock for ever, doing something in between.
    fn watch_clock(&self, between: impl Fn()) -> ! {
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
}
