//! Where every vCPU begins.
#![allow(
    unsafe_code,
    reason = "the first instructions, and the word of the ABI on registers"
)]

use core::arch::{asm, global_asm};

use slice_abi::ABI_VERSION;
use slice_abi::info::{INFO_MAGIC, InfoPage, cpu_feature};
use slice_abi::vcpu::VcpuBlock;

use super::identity;
use crate::{bytes, vcpu};

// `rbp` is 0 at the outermost frame: there a backtrace ends.
global_asm!(
    ".pushsection .text._start, \"ax\", @progbits",
    ".globl _start",
    ".type _start, @function",
    "_start:",
    "rdtsc",
    "shl rdx, 32",
    "or rax, rdx",
    "mov fs:[{entry_tsc}], rax",
    "xor ebp, ebp",
    "call {start}",
    "ud2",
    ".size _start, . - _start",
    ".popsection",
    entry_tsc = const core::mem::offset_of!(VcpuBlock, entry_tsc),
    start = sym start,
);

unsafe extern "Rust" {
    /// The program; `entry!` makes it.
    safe fn slice_main() -> u8;
}

/// First of vCPU 0 alone, then of each other when it is first woken.
///
/// # Safety
///
/// `page` and `index` are what the ABI passes in `rdi` and `rsi`.
unsafe extern "C" fn start(page: &'static InfoPage, index: u64) -> ! {
    if index != 0 {
        vcpu::work();
    }
    let ours = page.magic == INFO_MAGIC
        && page.abi_version == ABI_VERSION
        && page.size as usize >= size_of::<InfoPage>();
    if !ours {
        // Nothing in the page can be trusted, not even where to write a status.
        // SAFETY: an invalid instruction ends the sliver.
        unsafe { asm!("ud2", options(noreturn)) }
    }
    identity::set_info(page);
    bytes::set_fast_strings(page.cpu_features & cpu_feature::ERMS != 0);
    crate::exit(slice_main())
}
