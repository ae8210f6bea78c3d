//! Does, on request, each thing that ends a sliver: to show what its end looks like.
#![cfg_attr(not(feature = "desktop"), no_std, no_main)]
#![allow(unsafe_code, reason = "it does what must not be done")]

use core::arch::asm;
use core::hint::black_box;
use core::time::Duration;

use guest_shim::time::Instant;
use guest_shim::{args, eprintln, println, vcpu};

const USAGE: &str = "usage: fault null-read | write-text | jump-data | stack-overflow | divide | \
                     invalid-opcode | privileged | beyond-memory | panic | panic-all";

/// A `ret`, where nothing may be executed.
static mut DATA: [u8; 16] = [0xc3; 16];

fn run() -> u8 {
    let mut words = args();
    let (Some(what), None) = (words.next(), words.next()) else {
        return usage();
    };
    let fault: fn() = match what {
        "null-read" => null_read,
        "write-text" => write_text,
        "jump-data" => jump_data,
        "stack-overflow" => stack_overflow,
        "divide" => divide,
        "invalid-opcode" => invalid_opcode,
        "privileged" => privileged,
        "beyond-memory" => beyond_memory,
        "panic" => panic,
        "panic-all" => panic_all,
        _ => return usage(),
    };
    println!("about to: {what}");
    guest_shim::console::flush();
    fault();
    println!("nothing happened");
    1
}

fn usage() -> u8 {
    eprintln!("{USAGE}");
    2
}

#[inline(never)]
fn null_read() {
    read(0);
}

#[inline(never)]
fn write_text() {
    let address = run as fn() -> u8 as usize;
    // SAFETY: text is not writable, so this ends the program.
    unsafe { asm!("mov byte ptr [{}], 0", in(reg) address) };
}

#[inline(never)]
fn jump_data() {
    // SAFETY: data is not executable, so this ends the program.
    unsafe { asm!("call {}", in(reg) &raw mut DATA, clobber_abi("C")) };
}

#[inline(never)]
fn stack_overflow() {
    black_box(dig(black_box(0)));
}

/// Never returns, but nobody can tell: each call needs its frame.
#[allow(unconditional_recursion, reason = "the point of it")]
fn dig(depth: u64) -> u64 {
    let frame = black_box([depth; 8]);
    dig(depth + 1) + black_box(frame)[0]
}

#[inline(never)]
fn divide() {
    // SAFETY: raises a divide error, which ends the program.
    unsafe { asm!("div {0:e}", in(reg) 0, inout("eax") 1 => _, inout("edx") 0 => _) };
}

#[inline(never)]
fn invalid_opcode() {
    // SAFETY: raises an invalid-opcode exception, which ends the program.
    unsafe { asm!("ud2") };
}

#[inline(never)]
fn privileged() {
    // SAFETY: raises a general protection fault outside privilege level 0, which ends the program.
    unsafe { asm!("hlt") };
}

#[inline(never)]
fn beyond_memory() {
    read(memory_end());
}

#[inline(never)]
fn panic() {
    panic!("asked to panic");
}

/// How long all vCPUs print before they panic.
const FLOOD: Duration = Duration::from_millis(50);

/// Every vCPU prints without a pause and then panics, all at about the same time.
#[inline(never)]
fn panic_all() {
    let start = Instant::now();
    let ended = vcpu::on_all(move |part| {
        while start.elapsed() < FLOOD {
            println!("vcpu {part} is {} to panic", "about");
        }
        panic!("asked to panic on vcpu {part}");
    });
    if let Err(busy) = ended {
        eprintln!("{busy}");
    }
}

/// The first byte after all memory.
#[cfg(not(feature = "desktop"))]
fn memory_end() -> u64 {
    guest_shim::info().heap.end()
}

/// Where no process on this architecture has anything: the upper half is not its own.
#[cfg(feature = "desktop")]
fn memory_end() -> u64 {
    1 << 47
}

fn read(address: u64) {
    // SAFETY: nothing is at the addresses this is called with, so it ends the program.
    unsafe { asm!("mov {0}, [{0}]", inout(reg) address => _, options(readonly, nostack)) };
}

guest_shim::entry!(run);
