//! A guest that does one thing wrong, named by its argument, and then shows that it still lives.
//!
//! It ends with status 0 if the monitor bore what it did as the ABI says; any other status is one
//! of [`status`]. It is written on the bare ABI, without the runtime, in one file.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::ptr::{read_volatile, write_volatile};
use core::sync::atomic::{Ordering, fence};

use slice_abi::clock::ClockRecord;
use slice_abi::control;
use slice_abi::device::device_id;
use slice_abi::info::InfoPage;

mod status {
    pub const NO_CONSOLE: u64 = 10;
    pub const FEATURES_REFUSED: u64 = 11;
    pub const NO_NEEDS_RESET: u64 = 12;
    pub const RESET_HAD_NO_EFFECT: u64 = 13;
    pub const NOT_PRINTED: u64 = 14;
    pub const READ_NOT_ZERO: u64 = 15;
    pub const IDLE_TOO_LONG: u64 = 16;
    pub const BAD_QUEUE_ACCEPTED: u64 = 17;
    pub const UNKNOWN_CASE: u64 = 18;
}

// The note, and an entry that leaves the stack as the C convention wants it.
global_asm!(
    ".pushsection .note.slice, \"a\", @note",
    ".balign 4",
    ".long 6, 16, 1",
    ".asciz \"SLICE\"",
    ".balign 4",
    ".long 1, 0",
    ".quad 0",
    ".popsection",
    ".globl _start",
    "_start:",
    "call {main}",
    "ud2",
    main = sym main,
);

extern "C" fn main(info: &'static InfoPage, vcpu: u64) -> ! {
    let guest = Guest { info };
    if vcpu != 0 {
        guest.exit(guest.number(1));
    }
    guest.run(guest.argument(0));
    guest.exit(0)
}

struct Guest {
    info: &'static InfoPage,
}

impl Guest {
    fn run(&self, case: &[u8]) {
        match case {
            b"control-misuse" => self.control_misuse(),
            b"wake-missing" => {
                for index in [1, 31, 32, 1 << 31, u64::MAX] {
                    self.control(control::WAKE, index);
                }
            }
            b"idle-past" => self.idle_past(),
            b"idle-for-ever" => loop {
                self.control(control::IDLE, 0);
            },
            b"idle-max" => loop {
                self.control(control::IDLE, u64::MAX);
            },
            b"exit-from-1" => {
                self.control(control::WAKE, 1);
                loop {
                    self.control(control::IDLE, 0);
                }
            }
            b"flood" => loop {
                self.control(control::YIELD, 0);
            },
            b"busy" => loop {
                core::hint::spin_loop();
            },
            b"status" => self.exit(self.number(1)),
            b"device-holes" => self.device_holes(),
            _ => self.console_case(case),
        }
    }

    fn control_misuse(&self) {
        let window = self.info.control;
        for offset in [control::IDLE, control::EXIT, control::YIELD, control::WAKE] {
            store::<u8>(window + offset, 1);
            store::<u16>(window + offset, 1);
            store::<u32>(window + offset, 1);
            store::<u64>(window + offset + 4, 1);
            if load::<u64>(window + offset) != 0 || load::<u8>(window + offset) != 0 {
                self.exit(status::READ_NOT_ZERO);
            }
        }
        for offset in [0x20, 0x28, 0x800, 0xff8] {
            store::<u64>(window + offset, 1);
        }
    }

    fn idle_past(&self) {
        let start = self.now();
        for deadline in [1, start / 2, start] {
            self.control(control::IDLE, deadline);
        }
        if self.now() - start > 5_000_000_000 {
            self.exit(status::IDLE_TOO_LONG);
        }
    }

    /// Registers of a device that are not there, in widths that are not allowed.
    fn device_holes(&self) {
        let window = self.console().window;
        for offset in (0..0x1000).step_by(0x3c) {
            load::<u8>(window + offset);
            load::<u16>(window + offset);
            load::<u32>(window + offset);
            load::<u64>(window + offset);
        }
        for offset in [0x000, 0x004, 0x008, 0x034, 0x0fc, 0x100, 0x2f0, 0xffc] {
            store::<u8>(window + offset, 0xff);
            store::<u32>(window + offset, u32::MAX);
            store::<u64>(window + offset, u64::MAX);
        }
        self.console().recover();
    }

    fn console_case(&self, case: &[u8]) {
        let console = self.console();
        let refused = match case {
            b"notify-early" => {
                console.negotiate();
                console.notify(1);
                console.notify(7);
                console.write(reg::QUEUE_NOTIFY, u32::MAX);
                true
            }
            b"reset-busy" => {
                console.start();
                for _ in 0..50 {
                    console.submit(&[Desc::text(console.ram + layout::DATA, 4096)]);
                    console.write(reg::STATUS, 0);
                    console.start();
                }
                true
            }
            b"queue-size-0" => console.bad_queue(|c| c.write(reg::QUEUE_NUM, 0)),
            b"queue-size-3" => console.bad_queue(|c| c.write(reg::QUEUE_NUM, 3)),
            b"queue-size-huge" => console.bad_queue(|c| c.write(reg::QUEUE_NUM, 0x1_0000)),
            b"queue-no-addresses" => console.bad_queue(|c| {
                for ring in [reg::QUEUE_DESC, reg::QUEUE_DRIVER, reg::QUEUE_DEVICE] {
                    c.write_address(ring, 0);
                }
            }),
            b"queue-unaligned" => {
                console.bad_queue(|c| c.write_address(reg::QUEUE_DESC, c.ram + 3))
            }
            b"queue-beyond-ram" => {
                console.bad_queue(|c| c.write_address(reg::QUEUE_DRIVER, 1 << 45))
            }
            b"queue-over-the-end" => {
                console.bad_queue(|c| c.write_address(reg::QUEUE_DESC, self.info.heap.end() - 16))
            }
            b"used-ring-in-text" => {
                let text = self.info.memory[0].range.start;
                console.bad_queue(|c| c.write_address(reg::QUEUE_DEVICE, text))
            }
            b"queue-select-missing" => {
                console.negotiate();
                console.write(reg::QUEUE_SEL, 99);
                console.write(reg::QUEUE_NUM, 8);
                console.write(reg::QUEUE_READY, 1);
                console.read(reg::QUEUE_NUM_MAX) == 0 && console.read(reg::QUEUE_READY) == 0
            }
            b"feature-select-missing" => {
                console.negotiate();
                console.write(reg::DEVICE_FEATURES_SEL, 5);
                console.write(reg::DRIVER_FEATURES_SEL, 5);
                console.write(reg::DRIVER_FEATURES, u32::MAX);
                console.read(reg::DEVICE_FEATURES) == 0
            }
            _ => {
                self.chain_case(&console, case);
                true
            }
        };
        if !refused {
            self.exit(status::BAD_QUEUE_ACCEPTED);
        }
        console.recover();
    }

    /// Chains that no device may follow.
    fn chain_case(&self, console: &Console, case: &[u8]) {
        let data = console.ram + layout::DATA;
        let end = self.info.heap.end();
        console.start();
        let must_fail = match case {
            b"loop" => {
                let [a, b] = [1, 0].map(|next| Desc::text(data, 1).with(NEXT, next));
                console.submit(&[a, b]);
                true
            }
            b"loop-to-itself" => {
                console.submit(&[Desc::text(data, 1).with(NEXT, 0)]);
                true
            }
            b"next-out-of-range" => {
                console.submit(&[Desc::text(data, 1).with(NEXT, QUEUE_SIZE)]);
                true
            }
            b"address-beyond-ram" => {
                console.submit(&[Desc::text(1 << 45, 8)]);
                true
            }
            b"address-in-null-page" => {
                console.submit(&[Desc::text(0, 8)]);
                true
            }
            b"address-over-the-end" => {
                console.submit(&[Desc::text(end - 8, 64)]);
                true
            }
            b"address-wraps" => {
                console.submit(&[Desc::text(u64::MAX - 4, 64)]);
                true
            }
            b"length-huge" => {
                console.submit(&[Desc::text(data, u32::MAX)]);
                true
            }
            b"length-zero" => {
                console.submit(&[Desc::text(data, 0)]);
                false
            }
            b"device-writable" => {
                console.submit(&[Desc::text(data, 8).with(WRITE, 0)]);
                false
            }
            b"aliases-the-ring" => {
                console.submit(&[Desc::text(console.ram, 64)]);
                false
            }
            b"indirect-not-negotiated" => {
                console.submit(&[Desc::text(data, 16).with(INDIRECT, 0)]);
                true
            }
            b"avail-forward" => {
                console.offer(0, 1000);
                true
            }
            b"avail-backward" => {
                console.offer(0, u16::MAX);
                true
            }
            b"head-out-of-range" => {
                console.offer(QUEUE_SIZE, 1);
                true
            }
            b"changed-in-flight" => {
                for round in 0..100u64 {
                    console.submit(&[Desc::text(data, 64)]);
                    console.describe(0, &Desc::text(round << 40, u32::MAX));
                }
                false
            }
            _ => self.exit(status::UNKNOWN_CASE),
        };
        let failed = console
            .wait(|c| c.read(reg::STATUS) & NEEDS_RESET != 0 || (!must_fail && c.used_idx() != 0));
        if !failed {
            self.exit(status::NO_NEEDS_RESET);
        }
        // A queue that has failed stays failed, and bothering it does no harm.
        for _ in 0..100 {
            console.notify(1);
        }
    }

    fn console(&self) -> Console<'_> {
        let count = self.info.device_count as usize;
        let mut devices = self.info.devices.iter().take(count);
        match devices.find(|device| device.id == device_id::CONSOLE) {
            Some(device) => Console {
                guest: self,
                window: device.window,
                ram: self.info.heap.start,
            },
            None => self.exit(status::NO_CONSOLE),
        }
    }

    fn control(&self, register: u64, value: u64) {
        store(self.info.control + register, value);
    }

    fn exit(&self, status: u64) -> ! {
        loop {
            self.control(control::EXIT, status);
        }
    }

    fn argument(&self, index: usize) -> &[u8] {
        let args = self.info.args;
        // SAFETY: the info page says that these bytes are there, readable and constant.
        let bytes =
            unsafe { core::slice::from_raw_parts(args.start as *const u8, args.len as usize) };
        bytes.split(|&byte| byte == 0).nth(index).unwrap_or(b"")
    }

    fn number(&self, index: usize) -> u64 {
        let digits = self.argument(index).iter();
        digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
    }

    fn now(&self) -> u64 {
        // SAFETY: the info page says that the record is there; it lives as long as the sliver.
        let record = unsafe { &*(self.info.clock as *const ClockRecord) };
        loop {
            let (seq, reading) = record.begin();
            let tsc = rdtsc();
            if !record.retry(seq) {
                return reading.monotonic_ns(tsc);
            }
        }
    }
}

const QUEUE_SIZE: u16 = 8;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const NEEDS_RESET: u32 = 64;

/// Registers of a virtio device over MMIO (virtio 1.2, 4.2.2).
mod reg {
    pub const DEVICE_FEATURES: u64 = 0x010;
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub const DRIVER_FEATURES: u64 = 0x020;
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub const QUEUE_SEL: u64 = 0x030;
    pub const QUEUE_NUM_MAX: u64 = 0x034;
    pub const QUEUE_NUM: u64 = 0x038;
    pub const QUEUE_READY: u64 = 0x044;
    pub const QUEUE_NOTIFY: u64 = 0x050;
    pub const STATUS: u64 = 0x070;
    pub const QUEUE_DESC: u64 = 0x080;
    pub const QUEUE_DRIVER: u64 = 0x090;
    pub const QUEUE_DEVICE: u64 = 0x0a0;
}

/// Where things lie in the heap, from its start.
mod layout {
    pub const AVAIL: u64 = 0x1000;
    pub const USED: u64 = 0x2000;
    pub const DATA: u64 = 0x3000;
}

struct Desc {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Desc {
    fn text(addr: u64, len: u32) -> Self {
        Self {
            addr,
            len,
            flags: 0,
            next: 0,
        }
    }

    fn with(self, flags: u16, next: u16) -> Self {
        Self {
            flags,
            next,
            ..self
        }
    }
}

/// The console's transmit queue, driven by hand.
struct Console<'a> {
    guest: &'a Guest,
    window: u64,
    ram: u64,
}

impl Console<'_> {
    fn read(&self, register: u64) -> u32 {
        load(self.window + register)
    }

    fn write(&self, register: u64, value: u32) {
        store(self.window + register, value);
    }

    fn write_address(&self, register: u64, address: u64) {
        self.write(register, address as u32);
        self.write(register + 4, (address >> 32) as u32);
    }

    fn notify(&self, queue: u32) {
        fence(Ordering::SeqCst);
        self.write(reg::QUEUE_NOTIFY, queue);
    }

    /// Resets the device and agrees with it on VIRTIO_F_VERSION_1 alone.
    fn negotiate(&self) {
        self.write(reg::STATUS, 0);
        if !self.wait(|c| c.read(reg::STATUS) == 0) {
            self.guest.exit(status::RESET_HAD_NO_EFFECT);
        }
        self.write(reg::STATUS, 1);
        self.write(reg::STATUS, 1 | 2);
        for (half, features) in [(0, 0), (1, 1)] {
            self.write(reg::DRIVER_FEATURES_SEL, half);
            self.write(reg::DRIVER_FEATURES, features);
        }
        self.write(reg::STATUS, 1 | 2 | 8);
        if self.read(reg::STATUS) & 8 == 0 {
            self.guest.exit(status::FEATURES_REFUSED);
        }
    }

    fn place_queue(&self) {
        for offset in (0..layout::DATA).step_by(8) {
            store::<u64>(self.ram + offset, 0);
        }
        self.write(reg::QUEUE_SEL, 1);
        self.write(reg::QUEUE_NUM, QUEUE_SIZE.into());
        self.write_address(reg::QUEUE_DESC, self.ram);
        self.write_address(reg::QUEUE_DRIVER, self.ram + layout::AVAIL);
        self.write_address(reg::QUEUE_DEVICE, self.ram + layout::USED);
    }

    /// Brings the device up with a queue as it should be.
    fn start(&self) {
        self.negotiate();
        self.place_queue();
        self.write(reg::QUEUE_READY, 1);
        self.write(reg::STATUS, 1 | 2 | 8 | 4);
    }

    /// Brings the device up with a queue that `spoil` made wrong. Whether the device would not
    /// have it: the queue never became ready, or the device asks for a reset once it is used.
    fn bad_queue(&self, spoil: impl Fn(&Self)) -> bool {
        self.negotiate();
        self.place_queue();
        spoil(self);
        self.write(reg::QUEUE_READY, 1);
        let ready = self.read(reg::QUEUE_READY) == 1;
        self.write(reg::STATUS, 1 | 2 | 8 | 4);
        self.submit(&[Desc::text(self.ram + layout::DATA, 1)]);
        !ready || self.wait(|c| c.read(reg::STATUS) & NEEDS_RESET != 0)
    }

    fn describe(&self, index: u64, desc: &Desc) {
        let at = self.ram + index * 16;
        store(at, desc.addr);
        store(at + 8, desc.len);
        store(at + 12, desc.flags);
        store(at + 14, desc.next);
    }

    /// Gives the chain that starts with descriptor 0 to the device.
    fn submit(&self, chain: &[Desc]) {
        for (index, desc) in (0..).zip(chain) {
            self.describe(index, desc);
        }
        self.offer(0, 1);
    }

    /// Names `head` as the next chain and moves the available index on by `step`.
    fn offer(&self, head: u16, step: u16) {
        let avail = self.ram + layout::AVAIL;
        let idx = load::<u16>(avail + 2);
        store(avail + 4 + 2 * u64::from(idx % QUEUE_SIZE), head);
        fence(Ordering::SeqCst);
        store(avail + 2, idx.wrapping_add(step));
        self.notify(1);
    }

    fn used_idx(&self) -> u16 {
        load(self.ram + layout::USED + 2)
    }

    /// Resets the device and prints with it.
    fn recover(&self) {
        self.start();
        let text = b"recovered\n";
        for (offset, &byte) in (0..).zip(text) {
            store(self.ram + layout::DATA + offset, byte);
        }
        self.submit(&[Desc::text(self.ram + layout::DATA, text.len() as u32)]);
        if !self.wait(|c| c.used_idx() == 1) {
            self.guest.exit(status::NOT_PRINTED);
        }
    }

    /// Waits until `condition` holds, at most for a few seconds.
    fn wait(&self, condition: impl Fn(&Self) -> bool) -> bool {
        let deadline = self.guest.now() + 5_000_000_000;
        while !condition(self) {
            let now = self.guest.now();
            if now > deadline {
                return false;
            }
            self.guest.control(control::IDLE, now + 1_000_000);
        }
        true
    }
}

fn load<T>(address: u64) -> T {
    // SAFETY: every address used here is a window or memory that the info page gave to this guest,
    // which has no other code; a wrong one would end the sliver with a fault, which fails the test.
    unsafe { read_volatile(address as *const T) }
}

fn store<T>(address: u64, value: T) {
    // SAFETY: as in `load`.
    unsafe { write_volatile(address as *mut T, value) }
}

fn rdtsc() -> u64 {
    // SAFETY: the ABI says that the counter may be read.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Without the info page at hand the exit register is out of reach: an exception says as much.
    // SAFETY: ends the sliver.
    unsafe { asm!("ud2", options(noreturn)) }
}

// The compiler may call these; there is no libc.

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's.
    unsafe {
        asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _)
    };
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    // SAFETY: the caller's.
    unsafe { asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("al") byte as u8) };
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    for at in 0..len {
        // SAFETY: the caller's; volatile, or the compiler would call this function for the loop.
        let (a, b) = unsafe { (read_volatile(a.add(at)), read_volatile(b.add(at))) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    // SAFETY: the caller's.
    unsafe { memcmp(a, b, len) }
}

#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
