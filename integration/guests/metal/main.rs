//! A kernel that is no kernel: entered as PVH says, alone in ring 0, it does what the first word
//! after `--` on its command line says. It shares the cases of hostile guests with the guest on the
//! bare ABI, takes interrupts, and has cases of its own about those and about ports.
//!
//! It ends with status 0 if the monitor bore what it did, an exception with 128 and its vector, a
//! panic with 127, anything else with one of `status`.
#![no_std]
#![no_main]

#[path = "../cases/mod.rs"]
mod cases;
mod ends;
mod guest;
mod interrupts;
mod lines;
mod low;
mod own;
mod ports;
mod serial;

use core::arch::global_asm;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use cases::low::load;
use guest::Guest;

global_asm!(
    include_str!("entry.S"),
    main = sym main,
    beside = sym beside,
    exception = sym exception,
    trampoline = const interrupts::TRAMPOLINE,
    options(att_syntax)
);

/// Processors other than the first that have begun. Counted by `entry.S`.
#[unsafe(no_mangle)]
static ARRIVED: AtomicU32 = AtomicU32::new(0);

/// What the first processor knows, for the others.
static GUEST: AtomicPtr<Guest> = AtomicPtr::new(core::ptr::null_mut());

extern "C" fn main(start_info: u64, image_end: u64) -> ! {
    let guest = Guest::new(start_info, image_end);
    guest.run(guest.argument(0));
    guest.exit(0)
}

/// Shows the guest to the other processors. It lives as long as the machine: `main` never returns.
fn share(guest: &Guest) {
    GUEST.store((&raw const *guest).cast_mut(), Ordering::SeqCst);
}

/// Other processors that have begun.
fn arrived() -> u32 {
    ARRIVED.load(Ordering::SeqCst)
}

/// Another processor, which takes no interrupts.
extern "C" fn beside(_number: u32) -> ! {
    // SAFETY: it was shared before this processor was started, and is never changed.
    let guest = unsafe { &*GUEST.load(Ordering::SeqCst) };
    match guest.argument(0) {
        b"smp" => loop {
            low::hlt();
        },
        case => guest.run_beside(case),
    }
}

/// An exception: what lies at `stack` is its vector, then an error code if it has one.
extern "C" fn exception(stack: u64) -> ! {
    let vector: u64 = load(stack);
    serial::print(b"exception ");
    serial::print_number(vector);
    let with_error = matches!(vector, 8 | 10..=14 | 17 | 21);
    serial::print(b" at ");
    serial::print_number(load(stack + if with_error { 16 } else { 8 }));
    serial::print(b"\n");
    guest::end(128 | vector as u8)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    if let Some(place) = info.location() {
        serial::print(b"panicked in ");
        serial::print(place.file().as_bytes());
        serial::print(b", line ");
        serial::print_number(place.line().into());
        serial::print(b"\n");
    }
    guest::end(127)
}
