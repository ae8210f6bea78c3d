//! Ways in which a computer ends or rests, and the least that it can do besides.

use core::arch::asm;

use super::low::{cli, hlt, outb, outw, sti};
use super::{arrived, interrupts, serial};
use crate::guest::Guest;

/// Ports of the machine (`vmm/README.md`).
mod port {
    pub const I8042_COMMAND: u16 = 0x64;
    pub const PANIC: u16 = 0x505;
    pub const SLEEP_CONTROL: u16 = 0x600;
    pub const RESET: u16 = 0x602;
    pub const POWER_OFF: u16 = 0x604;
}

/// Soft off, now (ACPI 6.5, 4.8.3.7).
const SLEEP: u8 = 1 << 5 | 5 << 2;

/// Line of the 16550.
const SERIAL_LINE: u32 = 4;

/// Ends the echo.
const END_OF_TEXT: u8 = 4;

/// For how long other processors are waited for after the last one has come, in nanoseconds.
const NO_MORE: u64 = 300_000_000;

impl Guest {
    /// What the first processor does.
    pub fn run(&self, case: &[u8]) {
        match case {
            b"hello" => serial::print(b"hello\n"),
            b"poweroff" => self.ending(|| outb(port::SLEEP_CONTROL, SLEEP)),
            b"poweroff-bochs" => self.ending(|| outw(port::POWER_OFF, 0x2000)),
            b"reboot" => self.ending(|| outb(port::RESET, 1)),
            b"reboot-8042" => self.ending(|| outb(port::I8042_COMMAND, 0xfe)),
            b"triple-fault" => triple_fault(),
            b"panic" => {
                serial::print(b"Kernel panic - not syncing: it was told to\n");
                self.ending(|| outb(port::PANIC, 1));
            }
            b"exception" => {
                // SAFETY: ends the guest.
                unsafe { asm!("ud2") }
            }
            b"spin" => self.spin(),
            b"halt" => stop(),
            b"rest" => {
                serial::print(b"resting\n");
                loop {
                    self.rest(None);
                }
            }
            b"echo" => self.echo(),
            b"smp" => self.count_processors(),
            _ => self.run_case(case),
        }
    }

    /// Does what ends the machine; it must not go on for long.
    fn ending(&self, end: impl FnOnce()) {
        end();
        let until = self.now() + 1_000_000_000;
        while self.now() < until {
            core::hint::spin_loop();
        }
        serial::print(b"it goes on\n");
        self.exit(1);
    }

    /// Says what comes, byte by byte, at rest in between.
    fn echo(&self) {
        interrupts::open_line(SERIAL_LINE, true);
        serial::interrupt_on_input();
        sti();
        serial::print(b"ready\n");
        loop {
            while let Some(byte) = serial::read() {
                if byte == END_OF_TEXT {
                    return;
                }
                serial::print(&[byte]);
            }
            interrupts::rest(None);
        }
    }

    fn count_processors(&self) {
        self.wake(1);
        let (mut last, mut since) = (arrived(), self.now());
        while self.now() - since < NO_MORE {
            if arrived() != last {
                (last, since) = (arrived(), self.now());
            }
            self.rest_for(NO_MORE / 10);
        }
        serial::print_number(u64::from(last) + 1);
        serial::print(b" processors\n");
    }
}

/// Rests with interrupts kept out: nothing wakes it.
fn stop() -> ! {
    serial::print(b"halting\n");
    loop {
        cli();
        hlt();
    }
}

/// An exception that nobody can take.
fn triple_fault() {
    serial::print(b"faulting\n");
    let nothing = [0u16; 5];
    // SAFETY: ends the machine.
    unsafe { asm!("lidt [{0}]", "ud2", in(reg) &nothing) }
}
