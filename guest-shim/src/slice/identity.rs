//! What the info page says, and which vCPU asks.
#![allow(
    unsafe_code,
    reason = "the info page tells addresses of other shared pages"
)]

use core::arch::asm;
use core::mem::offset_of;
use core::ptr;
use core::slice;
use core::sync::atomic::{AtomicPtr, Ordering};

use slice_abi::info::{InfoPage, NAME_BYTES};
use slice_abi::quota::QuotaPage;
use slice_abi::vcpu::VcpuBlock;

static INFO: AtomicPtr<InfoPage> = AtomicPtr::new(ptr::null_mut());

/// Notes where the page is; once, before anything else.
pub(super) fn set_info(page: &'static InfoPage) {
    INFO.store(ptr::from_ref(page).cast_mut(), Ordering::Release);
}

/// The info page: all that a sliver is told about itself. Only in a slice.
pub fn info() -> &'static InfoPage {
    // SAFETY: set from a reference before the program begins; the page lasts and never changes.
    unsafe { &*INFO.load(Ordering::Relaxed) }
}

/// The block of the vCPU that asks.
pub(super) fn vcpu_block() -> VcpuBlock {
    let block: *const VcpuBlock;
    // SAFETY: the ABI puts the block's address at the `fs` base; nothing here changes either.
    unsafe {
        asm!(
            "mov {}, fs:[{this}]",
            out(reg) block,
            this = const offset_of!(VcpuBlock, this),
            options(pure, readonly, nostack, preserves_flags),
        );
        *block
    }
}

pub(crate) fn current_vcpu() -> usize {
    let index: usize;
    // SAFETY: as above. Code never changes its vCPU, so the index is a constant to it.
    unsafe {
        asm!(
            "mov {}, fs:[{index}]",
            out(reg) index,
            index = const offset_of!(VcpuBlock, index),
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    index
}

pub(crate) fn vcpu_count() -> usize {
    info().vcpu_count as usize
}

pub(crate) fn sliver_name() -> &'static str {
    name(&info().sliver_name)
}

pub(crate) fn slice_name() -> &'static str {
    name(&info().slice_name)
}

pub(crate) fn quota_page() -> Option<&'static QuotaPage> {
    // SAFETY: the ABI has the page there for as long as the sliver lives; it is made of atomics.
    Some(unsafe { &*(info().quota as *const QuotaPage) })
}

pub(crate) fn args() -> Args {
    let range = info().args;
    // SAFETY: the ABI has the arguments there, read-only, for as long as the sliver lives.
    let bytes = unsafe { slice::from_raw_parts(range.start as *const u8, range.len as usize) };
    Args {
        bytes,
        left: info().arg_count as usize,
    }
}

/// Strings one after another, each ended by a NUL.
#[derive(Debug, Clone)]
pub(crate) struct Args {
    bytes: &'static [u8],
    left: usize,
}

impl Iterator for Args {
    type Item = &'static str;

    fn next(&mut self) -> Option<&'static str> {
        self.left = self.left.checked_sub(1)?;
        let end = self.bytes.iter().position(|&byte| byte == 0)?;
        let arg = &self.bytes[..end];
        self.bytes = &self.bytes[end + 1..];
        Some(text(arg))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

fn name(bytes: &'static [u8; NAME_BYTES]) -> &'static str {
    text(bytes.split(|&byte| byte == 0).next().unwrap_or_default())
}

/// The ABI promises UTF-8; a monitor that breaks it gets an empty string shown.
fn text(bytes: &'static [u8]) -> &'static str {
    str::from_utf8(bytes).unwrap_or_default()
}
