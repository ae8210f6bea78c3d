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
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;

use super::identity::{current_vcpu, vcpu_block};
use super::{console, control};
use crate::frames::Frames;
use crate::time;

/// The status of a sliver that panicked, as Rust programs have it.
const PANICKED: u8 = 101;

/// How long others that panic leave the first one to its last words.
const LAST_WORDS: Duration = Duration::from_secs(1);

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    /// The vCPU that panicked first: its index and 1.
    static FIRST: AtomicUsize = AtomicUsize::new(0);
    let me = current_vcpu();
    match FIRST.compare_exchange(0, 1 + me, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => {}
        // Who panics while panicking has nothing more to say.
        Err(first) if first == 1 + me => control::exit(PANICKED),
        Err(_) => {
            // The first ends the sliver, unless what it waits for is here.
            time::sleep(LAST_WORDS);
            control::exit(PANICKED)
        }
    }
    if let Some(mut console) = console::seize() {
        let _ = write!(console, "vCPU {me} panicked at ");
        if let Some(location) = info.location() {
            let _ = write!(console, "{location}");
        }
        let _ = write!(console, ":\n{}\nbacktrace:", info.message());
        for address in backtrace() {
            let _ = write!(console, " {address:#x}");
        }
        let _ = console.write_str("\n");
        console.flush();
    }
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
