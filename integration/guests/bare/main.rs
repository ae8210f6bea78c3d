//! A guest on the bare ABI, without the runtime: it does what its first argument says, most of
//! which no guest should do, and then shows that it still lives.
//!
//! It ends with status 0 if the monitor bore what it did as the ABI says; any other status is one
//! of `status`.
#![no_std]
#![no_main]

#[path = "../cases/mod.rs"]
mod cases;
mod features;
mod guest;
mod own;
mod thief;

use core::arch::{asm, global_asm};

use slice_abi::info::InfoPage;

use guest::Guest;

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

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Without the info page at hand the exit register is out of reach: an exception says as much.
    // SAFETY: ends the sliver.
    unsafe { asm!("ud2", options(noreturn)) }
}
