//! The console's device: the transmit queue of a virtio console (virtio 1.2, 5.3).
//!
//! It comes up with the first line, and once more when the program first reads. Without such a device in the table, output is dropped.
#![allow(unsafe_code, reason = "a device reads memory and has registers")]

use core::fmt;
use core::sync::atomic::Ordering;

use slice_abi::device::device_id;

use super::control;
use super::device::{self, Registers};
use super::turn::Turn;
use crate::line::{LineBuffer, Port};
use crate::sync::Mutex;
use crate::virtio::mmio::{Device, F_VERSION_1, Setup};
use crate::virtio::ring::{Parts, Ring};
use crate::virtio::virtq::{Buffer, Queue, Tell};

/// The queues of port 0, for what comes in and what goes out.
const RECEIVE: u32 = 0;
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

/// Starts the device anew, with a queue for what comes in: a program that reads nothing need not pay
/// for one. `None` without a console.
pub(super) fn receive_into(ring: Parts) -> Option<Device<Registers>> {
    TURN.with(|| CONSOLE.lock().reopen(ring))
}

/// Tells the device that there are buffers for what comes in.
pub(super) fn notify_receive(device: Device<Registers>) {
    device.notify(RECEIVE);
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
            self.output = Transmitter::open(None).map_or(Output::Absent, Output::Open);
        }
        if let Output::Open(transmitter) = &mut self.output {
            self.line.write(text.as_bytes(), transmitter);
        }
    }

    fn reopen(&mut self, receive: Parts) -> Option<Device<Registers>> {
        self.flush();
        if let Output::Open(transmitter) = &self.output {
            transmitter.device.reset();
            let state = device::find(device_id::CONSOLE).next()?.state();
            while state.status.load(Ordering::Acquire) != 0 {
                control::idle(None);
            }
        }
        let transmitter = Transmitter::open(Some(receive))?;
        let device = transmitter.device;
        self.output = Output::Open(transmitter);
        Some(device)
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
    queue: Queue,
}

impl Transmitter {
    fn open(receive: Option<Parts>) -> Option<Self> {
        let found = device::find(device_id::CONSOLE).next()?;
        let mut setup = Setup::negotiate(found.registers(), F_VERSION_1);
        let mut queue = Queue::new(RING.parts(), F_VERSION_1);
        // Lines that are taken end no rest, unless it is for them.
        queue.ask(Tell::Never);
        if let Some(receive) = receive {
            setup.queue(RECEIVE, receive);
        }
        setup.queue(TRANSMIT, queue.ring());
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
                self.rest();
            }
        }
        self.queue.publish();
        if self.queue.wants_doorbell() {
            self.device.notify(TRANSMIT);
        }
    }

    fn is_drained(&mut self) -> bool {
        while self.queue.pop().is_some() {}
        self.queue.is_empty()
    }

    fn drain(&mut self) {
        while !self.is_drained() {
            self.rest();
        }
    }
}

impl Transmitter {
    /// Until the device has taken something.
    fn rest(&mut self) {
        if !self.queue.ask(Tell::AT_NEXT) {
            control::idle(None);
        }
        self.queue.ask(Tell::Never);
    }
}
