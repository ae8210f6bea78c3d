//! The control window. Each write leaves the guest.
#![allow(unsafe_code, reason = "registers are written where the info page says")]

use core::arch::asm;

use slice_abi::control::{EXIT, IDLE, WAKE, YIELD};

use super::identity::info;

/// Rests until a used ring moves, a wake comes, or the deadline passes; or returns early.
pub(crate) fn idle(deadline_ns: Option<u64>) {
    write(IDLE, deadline_ns.map_or(0, |ns| ns.max(1)));
}

pub(crate) fn wake(vcpu: usize) {
    write(WAKE, vcpu as u64);
}

pub(crate) fn yield_now() {
    write(YIELD, 0);
}

pub(crate) fn exit(status: u8) -> ! {
    loop {
        write(EXIT, status.into());
    }
}

fn write(register: u64, value: u64) {
    // SAFETY: the ABI has the register there and takes any value. The compiler is left to believe
    // that memory changes, which it does: others ran, and shared pages moved on.
    unsafe {
        asm!(
            "mov [{}], {}",
            in(reg) info().control + register,
            in(reg) value,
            options(nostack, preserves_flags),
        );
    }
}
