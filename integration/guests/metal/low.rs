//! Instructions of ring 0: ports, interrupts on and off, and rest.

use core::arch::asm;

/// Reads a byte.
pub fn inb(port: u16) -> u8 {
    let value;
    // SAFETY: a read of a port changes no memory of this guest.
    unsafe { asm!("in al, dx", out("al") value, in("dx") port, options(nostack)) };
    value
}

/// Reads two bytes.
pub fn inw(port: u16) -> u16 {
    let value;
    // SAFETY: as above.
    unsafe { asm!("in ax, dx", out("ax") value, in("dx") port, options(nostack)) };
    value
}

/// Reads four bytes.
pub fn inl(port: u16) -> u32 {
    let value;
    // SAFETY: as above.
    unsafe { asm!("in eax, dx", out("eax") value, in("dx") port, options(nostack)) };
    value
}

/// Writes a byte.
pub fn outb(port: u16, value: u8) {
    // SAFETY: no device behind a port writes to memory of this guest.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack)) };
}

/// Writes two bytes.
pub fn outw(port: u16, value: u16) {
    // SAFETY: as above.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack)) };
}

/// Writes four bytes.
pub fn outl(port: u16, value: u32) {
    // SAFETY: as above.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack)) };
}

/// Reads bytes, one after another, by one instruction.
pub fn insb(port: u16, into: &mut [u8]) {
    // SAFETY: writes `into` and nothing else.
    unsafe {
        asm!("rep insb", in("dx") port, inout("rdi") into.as_mut_ptr() => _,
            inout("rcx") into.len() => _, options(nostack));
    }
}

/// Writes bytes, one after another, by one instruction.
pub fn outsb(port: u16, bytes: &[u8]) {
    // SAFETY: reads `bytes` and nothing else.
    unsafe {
        asm!("rep outsb", in("dx") port, inout("rsi") bytes.as_ptr() => _,
            inout("rcx") bytes.len() => _, options(nostack));
    }
}

/// Lets interrupts in.
pub fn sti() {
    // SAFETY: what interrupts run keeps every register and has a stack of its own.
    unsafe { asm!("sti", options(nostack)) };
}

/// Keeps interrupts out.
pub fn cli() {
    // SAFETY: changes nothing else.
    unsafe { asm!("cli", options(nostack)) };
}

/// Lets interrupts in and waits for one; none comes in between.
pub fn wait() {
    unsafe extern "C" {
        fn sti_hlt();
    }
    // SAFETY: as in `sti`; it is in `entry.S` and changes nothing else.
    unsafe { sti_hlt() };
}

/// Waits for an interrupt, for ever if they are kept out.
pub fn hlt() {
    // SAFETY: as in `sti`.
    unsafe { asm!("hlt", options(nostack)) };
}
