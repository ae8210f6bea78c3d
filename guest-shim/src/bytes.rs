//! `memcpy`, `memmove`, `memset`, `memcmp`, `bcmp` and `strlen`, which compiled code and `core`
//! call and a libc would bring.
//!
//! All but comparing is written in assembly, because a compiler may turn a loop that copies into a
//! call of `memcpy`. Copying and filling take short lengths with two overlapping accesses, middle ones
//! with a vector loop, and long ones with string instructions where the processor is quick at it.
#![allow(unsafe_code, reason = "functions on raw memory, by their C contracts")]

#[cfg(test)]
mod tests;

use core::arch::naked_asm;
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};

/// From this length on string instructions win, if they are quick at all.
const STRING_MIN: usize = 2048;

/// Whether the processor has fast `rep movsb` and `rep stosb` (ERMS).
static FAST_STRINGS: AtomicBool = AtomicBool::new(false);

/// Tells whether long copies should use string instructions.
pub(crate) fn set_fast_strings(fast: bool) {
    FAST_STRINGS.store(fast, Ordering::Relaxed);
}

/// `memmove`, which is as good a `memcpy`: short lengths read all before they write, and for the
/// others the direction is one comparison.
#[unsafe(naked)]
#[cfg_attr(not(test), unsafe(export_name = "memmove"))]
unsafe extern "C" fn copy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "cmp rdx, 16",
        "jb 7f",
        "cmp rdx, 32",
        "ja 2f",
        // 16 to 32.
        "movups xmm0, [rsi]",
        "movups xmm1, [rsi + rdx - 16]",
        "movups [rdi], xmm0",
        "movups [rdi + rdx - 16], xmm1",
        "ret",
        // More: both ends are read before anything is written.
        "2:",
        "movups xmm0, [rsi]",
        "movups xmm1, [rsi + 16]",
        "movups xmm2, [rsi + rdx - 32]",
        "movups xmm3, [rsi + rdx - 16]",
        "mov rcx, rdi",
        "sub rcx, rsi",
        "cmp rcx, rdx",
        "jb 5f",
        "cmp rdx, {string_min}",
        "jb 3f",
        "cmp byte ptr [rip + {fast}], 0",
        "jne 6f",
        // Upwards; the end that was read first goes last.
        "3:",
        "lea r8, [rdi + rdx - 32]",
        "4:",
        "movups xmm0, [rsi]",
        "movups xmm1, [rsi + 16]",
        "movups [rdi], xmm0",
        "movups [rdi + 16], xmm1",
        "add rsi, 32",
        "add rdi, 32",
        "cmp rdi, r8",
        "jb 4b",
        "movups [r8], xmm2",
        "movups [r8 + 16], xmm3",
        "ret",
        // Downwards, when the target begins inside the source; the beginning goes last.
        "5:",
        "lea r8, [rdi + 32]",
        "add rsi, rdx",
        "add rdi, rdx",
        "20:",
        "movups xmm2, [rsi - 32]",
        "movups xmm3, [rsi - 16]",
        "movups [rdi - 32], xmm2",
        "movups [rdi - 16], xmm3",
        "sub rsi, 32",
        "sub rdi, 32",
        "cmp rdi, r8",
        "ja 20b",
        "movups [rax], xmm0",
        "movups [rax + 16], xmm1",
        "ret",
        "6:",
        "mov rcx, rdx",
        "rep movsb",
        "ret",
        // Less than 16.
        "7:",
        "cmp edx, 8",
        "jb 8f",
        "mov rcx, [rsi]",
        "mov r8, [rsi + rdx - 8]",
        "mov [rdi], rcx",
        "mov [rdi + rdx - 8], r8",
        "ret",
        "8:",
        "cmp edx, 4",
        "jb 9f",
        "mov ecx, [rsi]",
        "mov r8d, [rsi + rdx - 4]",
        "mov [rdi], ecx",
        "mov [rdi + rdx - 4], r8d",
        "ret",
        // 1 to 3: the first, the middle and the last byte cover all.
        "9:",
        "test edx, edx",
        "je 22f",
        "mov r9, rdx",
        "shr r9, 1",
        "movzx ecx, byte ptr [rsi]",
        "movzx r8d, byte ptr [rsi + rdx - 1]",
        "movzx r10d, byte ptr [rsi + r9]",
        "mov [rdi], cl",
        "mov [rdi + rdx - 1], r8b",
        "mov [rdi + r9], r10b",
        "22:",
        "ret",
        string_min = const STRING_MIN,
        fast = sym FAST_STRINGS,
    )
}

/// `memcpy`.
#[cfg(not(test))]
#[unsafe(naked)]
#[unsafe(export_name = "memcpy")]
unsafe extern "C" fn copy_apart(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    naked_asm!("jmp {copy}", copy = sym copy)
}

/// `memset`.
#[unsafe(naked)]
#[cfg_attr(not(test), unsafe(export_name = "memset"))]
unsafe extern "C" fn fill(to: *mut u8, value: i32, len: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "movzx esi, sil",
        "mov rcx, 0x0101010101010101",
        "imul rsi, rcx",
        "cmp rdx, 16",
        "jb 5f",
        "movq xmm0, rsi",
        "punpcklqdq xmm0, xmm0",
        "cmp rdx, 32",
        "ja 2f",
        "movups [rdi], xmm0",
        "movups [rdi + rdx - 16], xmm0",
        "ret",
        "2:",
        "cmp rdx, {string_min}",
        "jb 3f",
        "cmp byte ptr [rip + {fast}], 0",
        "jne 4f",
        "3:",
        "lea r8, [rdi + rdx - 32]",
        "20:",
        "movups [rdi], xmm0",
        "movups [rdi + 16], xmm0",
        "add rdi, 32",
        "cmp rdi, r8",
        "jb 20b",
        "movups [r8], xmm0",
        "movups [r8 + 16], xmm0",
        "ret",
        "4:",
        "mov r8, rdi",
        "mov eax, esi",
        "mov rcx, rdx",
        "rep stosb",
        "mov rax, r8",
        "ret",
        // Less than 16.
        "5:",
        "cmp edx, 8",
        "jb 6f",
        "mov [rdi], rsi",
        "mov [rdi + rdx - 8], rsi",
        "ret",
        "6:",
        "cmp edx, 4",
        "jb 7f",
        "mov [rdi], esi",
        "mov [rdi + rdx - 4], esi",
        "ret",
        "7:",
        "test edx, edx",
        "je 8f",
        "mov r9, rdx",
        "shr r9, 1",
        "mov [rdi], sil",
        "mov [rdi + r9], sil",
        "mov [rdi + rdx - 1], sil",
        "8:",
        "ret",
        string_min = const STRING_MIN,
        fast = sym FAST_STRINGS,
    )
}

/// `memcmp`: by words, and the first that differ by their bytes in order.
///
/// # Safety
///
/// As in C: `len` bytes can be read at both.
#[cfg_attr(not(test), unsafe(export_name = "memcmp"))]
unsafe extern "C" fn compare(a: *const u8, b: *const u8, len: usize) -> i32 {
    let mut at = 0;
    while at + 8 <= len {
        // SAFETY: `at + 8 <= len`.
        let (x, y) = unsafe { (word(a.add(at)), word(b.add(at))) };
        if x != y {
            return if x < y { -1 } else { 1 };
        }
        at += 8;
    }
    while at < len {
        // SAFETY: `at < len`.
        let (x, y) = unsafe { (*a.add(at), *b.add(at)) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
        at += 1;
    }
    0
}

/// Eight bytes, the first the most significant.
///
/// # Safety
///
/// They can be read.
unsafe fn word(at: *const u8) -> u64 {
    // SAFETY: as the caller promises.
    u64::from_be(unsafe { ptr::read_unaligned(at.cast()) })
}

/// `bcmp`: only whether they differ, for which `memcmp` will do.
#[cfg(not(test))]
#[unsafe(naked)]
#[unsafe(export_name = "bcmp")]
unsafe extern "C" fn differ(a: *const u8, b: *const u8, len: usize) -> i32 {
    naked_asm!("jmp {compare}", compare = sym compare)
}

/// `strlen`.
#[unsafe(naked)]
#[cfg_attr(not(test), unsafe(export_name = "strlen"))]
unsafe extern "C" fn length(text: *const u8) -> usize {
    naked_asm!(
        "mov rax, rdi",
        "2:",
        "cmp byte ptr [rax], 0",
        "je 3f",
        "inc rax",
        "jmp 2b",
        "3:",
        "sub rax, rdi",
        "ret",
    )
}
