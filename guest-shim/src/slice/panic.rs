//! Last words: where and why, and the way there; then the sliver ends with status 101.
//!
//! Frame pointers are left as they are until the end: the monitor walks them, too, and knows the
//! image's symbols.
#![allow(
    unsafe_code,
    reason = "frame pointers are followed, and unwinding has names to fill"
)]

use core::arch::asm;
use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};

use super::identity::{current_vcpu, vcpu_block};
use super::{console, control};
use crate::frames::Frames;

/// The status of a sliver that panicked, as Rust programs have it.
const PANICKED: u8 = 101;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // A bit per vCPU: who panics while panicking has nothing more to say.
    static PANICKING: AtomicU32 = AtomicU32::new(0);
    let me = 1 << current_vcpu();
    if PANICKING.fetch_or(me, Ordering::Relaxed) & me != 0 {
        control::exit(PANICKED);
    }
    // SAFETY: the exit below is the next this vCPU does, and each vCPU gets here once.
    let console = unsafe { console::seize() };
    let _ = console.write_str("panicked at ");
    if let Some(location) = info.location() {
        let _ = write!(console, "{location}");
    }
    let _ = write!(console, ":\n{}\nbacktrace:", info.message());
    for address in backtrace() {
        let _ = write!(console, " {address:#x}");
    }
    let _ = console.write_str("\n");
    console.flush();
    control::exit(PANICKED)
}

/// Return addresses from here outwards.
#[inline(always)]
fn backtrace() -> impl Iterator<Item = u64> {
    let rbp: u64;
    // SAFETY: only reads a register.
    unsafe { asm!("mov {}, rbp", out(reg) rbp, options(pure, nomem, nostack, preserves_flags)) };
    let block = vcpu_block();
    let stack = block.stack_low..block.stack_top;
    // SAFETY: the walk asks only for aligned words inside this vCPU's stack.
    Frames::new(rbp, stack, |address| unsafe { *(address as *const u64) })
}

/// Names that the precompiled `core` refers to in its unwinding tables. Nothing unwinds here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// As above.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() {}
