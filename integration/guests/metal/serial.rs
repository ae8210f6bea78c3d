//! The 16550, by polling.

use super::low::{inb, outb};

const DATA: u16 = 0x3f8;
const INTERRUPT_ENABLE: u16 = DATA + 1;
const LINE_STATUS: u16 = DATA + 5;

const DATA_READY: u8 = 1 << 0;
const ROOM_TO_SEND: u8 = 1 << 5;

pub fn print(text: &[u8]) {
    for &byte in text {
        while inb(LINE_STATUS) & ROOM_TO_SEND == 0 {}
        outb(DATA, byte);
    }
}

pub fn print_number(number: u64) {
    if number >= 10 {
        print_number(number / 10);
    }
    print(&[b'0' + (number % 10) as u8]);
}

/// The next byte that has come, if one has.
pub fn read() -> Option<u8> {
    (inb(LINE_STATUS) & DATA_READY != 0).then(|| inb(DATA))
}

/// Has it interrupt when a byte has come.
pub fn interrupt_on_input() {
    outb(INTERRUPT_ENABLE, 1);
}
