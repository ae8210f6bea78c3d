//! Interrupts: the IDT, the local APIC with its timer, and the I/O APIC.
//!
//! An interrupt is counted by its vector and nothing else; who wants to know compares counts. Only
//! the first processor takes any.

use core::sync::atomic::{AtomicU32, Ordering};

use super::low::{cli, outb, sti, wait};
use crate::cases::low::{load, rdtsc, store};

/// Interrupts so far, by vector. Counted by `entry.S`.
#[unsafe(no_mangle)]
static COUNTS: [AtomicU32; 256] = [const { AtomicU32::new(0) }; 256];

/// Not 0: there was an interrupt since the last rest. Set by `entry.S`.
#[unsafe(no_mangle)]
static PENDING: AtomicU32 = AtomicU32::new(0);

/// Vector of input 0 of the I/O APIC.
const FIRST_LINE: u32 = 0x30;
const TIMER: u32 = 0x70;
const SPURIOUS: u32 = 0xff;

/// Registers of the local APIC (Intel SDM 3A, 11.4.1).
mod local {
    const BASE: u64 = 0xfee0_0000;
    pub const ID: u64 = BASE + 0x20;
    pub const SPURIOUS: u64 = BASE + 0xf0;
    pub const COMMAND: u64 = BASE + 0x300;
    pub const TIMER: u64 = BASE + 0x320;
    pub const INITIAL_COUNT: u64 = BASE + 0x380;
    pub const CURRENT_COUNT: u64 = BASE + 0x390;
    pub const DIVIDE: u64 = BASE + 0x3e0;
}

/// Index and data of the I/O APIC (82093AA, 3.1).
mod io {
    pub const INDEX: u64 = 0xfec0_0000;
    pub const DATA: u64 = INDEX + 0x10;
}

const ENABLED: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
/// One count of the timer is a nanosecond: KVM's bus has 1 GHz.
const DIVIDE_BY_1: u32 = 0b1011;

#[repr(C, align(16))]
struct Tables {
    idt: [[u64; 2]; 256],
    /// The task state segment, in words of 4 bytes.
    tss: [u32; 26],
    interrupt_stack: [u8; 4096],
}

static mut TABLES: Tables = Tables {
    idt: [[0; 2]; 256],
    tss: [0; 26],
    interrupt_stack: [0; 4096],
};

unsafe extern "C" {
    static stubs: [[u8; 16]; 256];
    static mut gdt: [u64; 6];
    static trampoline: u8;
    static trampoline_end: u8;
}

/// Where the other processors begin, a page below 1 MiB.
pub const TRAMPOLINE: u64 = 0x8000;

/// Ticks of the time-stamp counter in 1024 ns.
pub struct Pace(u64);

impl Pace {
    pub fn nanoseconds(&self, ticks: u64) -> u64 {
        (u128::from(ticks) * 1024 / u128::from(self.0)) as u64
    }
}

/// Sets everything up and lets interrupts in; no line is open yet. Tells how fast time passes.
pub fn init() -> Pace {
    load_tables();
    // The two old controllers are there on some machines, and masked.
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    store(local::SPURIOUS, ENABLED | SPURIOUS);
    store(local::DIVIDE, DIVIDE_BY_1);
    store(local::TIMER, MASKED | TIMER);
    let pace = measure();
    store(local::INITIAL_COUNT, 0u32);
    store(local::TIMER, TIMER);
    sti();
    pace
}

/// How fast the time-stamp counter is, by the timer, within 2 percent.
///
/// The processor can be taken away between reading the one and the other, and it is just there that
/// it leaves the guest: so the counter is read before and after the timer, and what lies too far
/// apart is measured again, for longer.
fn measure() -> Pace {
    let mut long: u32 = 8 << 20;
    loop {
        store(local::INITIAL_COUNT, u32::MAX);
        let start = Moment::now();
        let (end, passed) = loop {
            let now = Moment::now();
            let passed = start.count - now.count;
            if passed >= long || now.count == 0 {
                break (now, passed);
            }
        };
        let most = end.after - start.before;
        let uncertain = most - end.before.saturating_sub(start.after);
        if end.count != 0 && (uncertain <= most / 32 || long >= 1 << 31) {
            return Pace((most - uncertain / 2) * 1024 / u64::from(passed));
        }
        long = (long * 2).min(1 << 31);
    }
}

/// A count of the timer, and the time-stamp counter before and after it was read.
struct Moment {
    before: u64,
    count: u32,
    after: u64,
}

impl Moment {
    fn now() -> Self {
        Self {
            before: rdtsc(),
            count: load(local::CURRENT_COUNT),
            after: rdtsc(),
        }
    }
}

fn load_tables() {
    // SAFETY: only this function, called once, by the only processor there is yet, writes here.
    let tables = unsafe { &mut *(&raw mut TABLES) };
    for vector in 0..256 {
        let stub = (&raw const stubs) as u64 + 16 * vector as u64;
        // A 64-bit interrupt gate to segment 8, with the first interrupt stack.
        let gate = stub & 0xffff | 8 << 16 | 1 << 32 | 0x8e << 40 | (stub >> 16 & 0xffff) << 48;
        tables.idt[vector] = [gate, stub >> 32];
    }
    // Not below the interrupted function's stack: what is below its pointer may be in use (System V
    // ABI, 3.2.2).
    let stack_end = (&raw const tables.interrupt_stack) as u64 + 4096;
    tables.tss[9] = stack_end as u32;
    tables.tss[10] = (stack_end >> 32) as u32;
    let tss = (&raw const tables.tss) as u64;
    let limit = size_of_val(&tables.tss) as u64 - 1;
    #[repr(C, packed)]
    struct Pointer(u16, u64);
    let pointer = Pointer(0xfff, (&raw const tables.idt) as u64);
    // SAFETY: the descriptor and the gates are as Intel SDM 3A, 8.2.3 and 7.14.1 say; they stay.
    unsafe {
        let descriptor = limit | (tss & 0xff_ffff) << 16 | 0x89 << 40 | (tss >> 24 & 0xff) << 56;
        gdt[3] = descriptor;
        gdt[4] = tss >> 32;
        core::arch::asm!("lidt [{0}]", "ltr {1:x}", in(reg) &pointer, in(reg) 0x18u32);
    }
}

/// Lets an input of the I/O APIC through, or not.
pub fn open_line(line: u32, open: bool) {
    let first: u32 = load::<u32>(local::ID);
    let mask = if open { 0 } else { MASKED };
    for (register, value) in [(1, first), (0, FIRST_LINE + line | mask)] {
        store(io::INDEX, 0x10 + 2 * line + register);
        store(io::DATA, value);
    }
}

/// How often an input of the I/O APIC has interrupted.
pub fn count(line: u32) -> u32 {
    COUNTS[(FIRST_LINE + line) as usize].load(Ordering::SeqCst)
}

/// Waits for an interrupt that was not waited for yet, at most so many nanoseconds.
pub fn rest(limit: Option<u64>) {
    if let Some(limit) = limit {
        let count = limit.clamp(1, u32::MAX.into()) as u32;
        store(local::INITIAL_COUNT, count);
    }
    cli();
    if PENDING.load(Ordering::SeqCst) == 0 {
        wait();
    }
    PENDING.store(0, Ordering::SeqCst);
    sti();
}

/// Starts all other processors (Intel SDM 3A, 9.4.4.1).
pub fn start_others(wait: impl Fn(u64)) {
    let (from, end) = (&raw const trampoline, &raw const trampoline_end);
    for at in 0..end as u64 - from as u64 {
        store::<u8>(TRAMPOLINE + at, load(from as u64 + at));
    }
    let all_others = 0b11 << 18;
    let asserted = 1 << 14;
    let (init, startup) = (0b101 << 8, 0b110 << 8);
    store::<u32>(local::COMMAND, all_others | asserted | init);
    wait(10_000_000);
    for _ in 0..2 {
        let page = (TRAMPOLINE >> 12) as u32;
        store::<u32>(local::COMMAND, all_others | asserted | startup | page);
        wait(200_000);
    }
}
