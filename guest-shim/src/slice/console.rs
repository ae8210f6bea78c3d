//! The console's device: the transmit queue of a virtio console (virtio 1.2, 5.3).
//!
//! It comes up with the first line. Without such a device in the table, output is dropped.
#![allow(unsafe_code, reason = "a device reads memory and has registers")]

use core::arch::asm;
use core::fmt;

use slice_abi::device::device_id;

use super::control;
use super::identity::info;
use super::turn::Turn;
use crate::line::{LineBuffer, Port};
use crate::sync::Mutex;
use crate::virtio::mmio::{Device, F_VERSION_1, Setup, Window};
use crate::virtio::virtq::{Buffer, Queue, Ring};

/// The queue of port 0 for what goes out.
const TRANSMIT: u32 = 1;

/// Lines that can be on their way at once.
const QUEUE_SIZE: usize = 16;

/// Bytes that can be on their way or waiting for a line end. Half a page: the other half is enough
/// for the rest of this library's state, so that a small program touches one page for all of it.
const BUFFER_SIZE: usize = 2048;

/// Held for the length of one print, so that it stays in one piece.
static TURN: Turn = Turn::new();

/// Locked for one piece at a time: between pieces runs code that may print, or panic.
static CONSOLE: Mutex<Console> = Mutex::new(Console::new());

static RING: Ring<QUEUE_SIZE> = Ring::new();

pub(crate) fn print(text: fmt::Arguments<'_>) {
    TURN.with(|| {
        // Writing to the console does not fail; an error comes from what is printed.
        let _ = fmt::write(&mut Pieces, text);
    });
}

pub(crate) fn eprint(text: fmt::Arguments<'_>) {
    TURN.with(|| {
        let _ = fmt::write(&mut Pieces, text);
        CONSOLE.lock().send();
    });
}

pub(crate) fn flush() {
    TURN.with(|| CONSOLE.lock().flush());
}

/// The console for a vCPU that is about to end the sliver, whoever prints. `None` if the console
/// itself is what fails: then there is nothing left to say it with.
pub(super) fn seize() -> Option<Pieces> {
    // Only who has the turn locks the console. It is held for no longer than the device takes.
    if TURN.is_mine() && CONSOLE.is_locked() {
        return None;
    }
    TURN.seize();
    Some(Pieces)
}

/// Writes piece by piece to the console, for who has the turn.
pub(super) struct Pieces;

impl Pieces {
    pub(super) fn flush(&mut self) {
        CONSOLE.lock().flush();
    }
}

impl fmt::Write for Pieces {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        TURN.keep();
        CONSOLE.lock().write(text);
        Ok(())
    }
}

/// The console.
struct Console {
    output: Output,
    line: LineBuffer<BUFFER_SIZE>,
}

enum Output {
    Unopened,
    Absent,
    Open(Transmitter),
}

impl Console {
    const fn new() -> Self {
        Self {
            output: Output::Unopened,
            line: LineBuffer::new(),
        }
    }

    fn write(&mut self, text: &str) {
        if matches!(self.output, Output::Unopened) {
            self.output = Transmitter::open().map_or(Output::Absent, Output::Open);
        }
        if let Output::Open(transmitter) = &mut self.output {
            self.line.write(text.as_bytes(), transmitter);
        }
    }

    /// Sends what is left, line end or not.
    fn send(&mut self) {
        if let Output::Open(transmitter) = &mut self.output {
            self.line.flush(transmitter);
        }
    }

    /// Sends what is left and waits until all has been taken.
    fn flush(&mut self) {
        if let Output::Open(transmitter) = &mut self.output {
            self.line.flush(transmitter);
            transmitter.drain();
        }
    }
}

/// The driver: one buffer per chain, and nothing comes back but the chain.
struct Transmitter {
    device: Device<Registers>,
    queue: Queue<QUEUE_SIZE>,
}

impl Transmitter {
    fn open() -> Option<Self> {
        let page = info();
        let table = &page.devices[..page.device_count as usize];
        let entry = table.iter().find(|entry| entry.id == device_id::CONSOLE)?;
        let mut setup = Setup::negotiate(Registers(entry.window), F_VERSION_1);
        let queue = Queue::new(&RING);
        setup.queue(TRANSMIT, &RING);
        Some(Self {
            device: setup.start(),
            queue,
        })
    }
}

impl Port for Transmitter {
    fn send(&mut self, bytes: &[u8]) {
        let chain = [Buffer {
            address: bytes.as_ptr() as u64,
            length: bytes.len() as u32,
            device_writes: false,
        }];
        // SAFETY: the caller keeps the bytes as they are until the port is drained.
        while unsafe { self.queue.add(&chain) }.is_err() {
            if self.queue.pop().is_none() {
                control::idle(None);
            }
        }
        if self.queue.publish() {
            self.device.notify(TRANSMIT);
        }
    }

    fn is_drained(&mut self) -> bool {
        while self.queue.pop().is_some() {}
        self.queue.is_empty()
    }

    fn drain(&mut self) {
        while !self.is_drained() {
            control::idle(None);
        }
    }
}

/// A device's window in the guest's address space.
struct Registers(u64);

impl Window for Registers {
    fn write(&self, offset: u64, value: u32) {
        // SAFETY: the device table has the window there. The compiler is left to believe that the
        // device sees and changes memory, which it does.
        unsafe {
            asm!(
                "mov [{}], {:e}",
                in(reg) self.0 + offset,
                in(reg) value,
                options(nostack, preserves_flags),
            );
        }
    }
}
