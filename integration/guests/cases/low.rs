//! Where the compiler needs help: registers, instructions, and what a libc would give.

use core::arch::asm;
use core::ptr::{read_volatile, write_volatile};

pub fn load<T>(address: u64) -> T {
    // SAFETY: every address used here is a window or memory that the machine gave to this guest, which
    // has no other code; a wrong one would end the sliver with a fault, which fails the test.
    unsafe { read_volatile(address as *const T) }
}

pub fn store<T>(address: u64, value: T) {
    // SAFETY: as in `load`.
    unsafe { write_volatile(address as *mut T, value) }
}

pub fn rdtsc() -> u64 {
    // SAFETY: every machine lets its guest read the counter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

// The compiler may call these; there is no libc.

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's.
    unsafe {
        asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _)
    };
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    // SAFETY: the caller's.
    unsafe { asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("al") byte as u8) };
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    for at in 0..len {
        // SAFETY: the caller's; volatile, or the compiler would call this function for the loop.
        let (a, b) = unsafe { (read_volatile(a.add(at)), read_volatile(b.add(at))) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    // SAFETY: the caller's.
    unsafe { memcmp(a, b, len) }
}

#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
