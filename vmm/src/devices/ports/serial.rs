//! The 16550 of a legacy sliver, between the guest and the monitor's standard output and input.
//!
//! Output is gathered into lines: the guest leaves for each character, and a write for each would
//! double what that costs. Nothing is dropped: when the reader is slow, or the guest prints more
//! than it may in a second, [`SerialPort::is_full`] says that the guest has to wait.

use std::io::{self, Write};
use std::os::fd::BorrowedFd;

use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};

use super::panic::PanicWatch;
use crate::control::proto::DeviceStatus;
use crate::devices::input::Input;
use crate::devices::output::Output;
use crate::devices::rated::{RatedOutput, Wrote};
use crate::kvm::interrupts::InterruptLine;
use crate::nanos::Nanos;

/// Output that is gathered before it is written at the latest.
const GATHERED: usize = 512;
/// Output without the end of a line is written after this time.
const PATIENCE_NS: u64 = 5_000_000;
/// Output beyond this makes the guest wait.
const FULL: usize = 4096;
/// The data register, and the one that Linux writes last when it has printed something.
const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;

/// The port.
#[derive(Debug)]
pub struct SerialPort {
    uart: Serial<Interrupt, NoEvents, Outbox>,
    output: RatedOutput,
    flush_at: Option<Nanos>,
    input: Option<Input>,
    /// Input was left because the guest had not read what there was.
    input_left: bool,
    panic: PanicWatch,
    input_bytes: u64,
}

/// The port's line to the interrupt controller.
#[derive(Debug)]
struct Interrupt(InterruptLine);

impl Trigger for Interrupt {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.trigger();
        Ok(())
    }
}

/// What the guest has printed and that is not written yet.
#[derive(Debug, Default)]
struct Outbox(Vec<u8>);

impl Write for Outbox {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SerialPort {
    /// A port that interrupts through `interrupt`, prints to `output` at most `rate` bytes a
    /// second, and reads from `input`.
    pub fn new(interrupt: InterruptLine, output: Output, input: Option<Input>, rate: u64) -> Self {
        Self {
            uart: Serial::new(Interrupt(interrupt), Outbox::default()),
            output: RatedOutput::new(output, rate),
            flush_at: None,
            input,
            input_left: false,
            panic: PanicWatch::default(),
            input_bytes: 0,
        }
    }

    /// Reads register `offset`, 0 to 7.
    pub fn read(&mut self, offset: u16) -> u8 {
        let value = self.uart.read(offset as u8);
        if offset == DATA && self.input_left {
            self.receive();
        }
        value
    }

    /// Writes register `offset`, 0 to 7.
    pub fn write(&mut self, offset: u16, value: u8, now: Nanos) {
        let before = self.gathered();
        // Neither the outbox nor the line refuses anything.
        let _ = self.uart.write(offset as u8, value);
        let after = self.gathered();
        // Not when it is written: whoever reads it may be slower than the guest's end.
        let printed = &self.uart.writer().0[before.min(after)..];
        self.panic.feed(printed);
        let ends = after > before && value == b'\n' || offset == INTERRUPT_ENABLE;
        if after >= GATHERED || ends && after > 0 {
            self.flush(now);
        } else if after > 0 && self.flush_at.is_none() {
            self.flush_at = Some(Nanos(now.0.saturating_add(PATIENCE_NS)));
        }
    }

    fn gathered(&self) -> usize {
        self.uart.writer().0.len()
    }

    /// Writes what goes through of what the guest has printed.
    pub fn flush(&mut self, now: Nanos) {
        self.flush_at = None;
        loop {
            let outbox = &self.uart.writer().0;
            if outbox.is_empty() {
                return;
            }
            match self.output.write(outbox, now) {
                Wrote::Some(written) => drop(self.uart.writer_mut().0.drain(..written)),
                Wrote::Full => return,
                Wrote::Wait(moment) => {
                    self.flush_at = Some(moment);
                    return;
                }
            }
        }
    }

    /// When [`SerialPort::flush`] is to be called, if it is not known from the output.
    pub fn flush_at(&self) -> Option<Nanos> {
        self.flush_at
    }

    /// Whether something is gathered that is not written.
    pub fn has_output(&self) -> bool {
        self.gathered() > 0
    }

    /// Whether the guest has to wait until more of its output is written.
    pub fn is_full(&self) -> bool {
        self.gathered() >= FULL
    }

    /// Hands the guest what input there is, as much as it takes.
    pub fn receive(&mut self) {
        let Some(input) = &mut self.input else {
            return;
        };
        loop {
            let mut piece = [0; 64];
            let room = self.uart.fifo_capacity().min(piece.len());
            self.input_left = room == 0;
            if room == 0 {
                return;
            }
            let len = input.read(&mut piece[..room]);
            if len == 0 {
                return;
            }
            self.input_bytes += len as u64;
            // As much as there was room for. In loop mode a 16550 hears nothing from outside.
            let _ = self.uart.enqueue_raw_bytes(&piece[..len]);
        }
    }

    /// What to watch for room, and for input if it has any.
    pub fn descriptors(&self) -> (BorrowedFd<'_>, Option<BorrowedFd<'_>>) {
        (self.output.fd(), self.input.as_ref().map(Input::fd))
    }

    /// What the guest has told of a panic.
    pub(super) fn panic_watch(&self) -> &PanicWatch {
        &self.panic
    }

    /// How it does.
    pub fn status(&self) -> DeviceStatus {
        let counters = [
            ("printed_bytes", self.output.written_bytes()),
            ("input_bytes", self.input_bytes),
        ];
        DeviceStatus {
            tag: "serial".to_owned(),
            up: true,
            fault: None,
            counters: counters
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    const NOW: Nanos = Nanos(1);

    fn port(rate: u64) -> (SerialPort, UnixStream, UnixStream) {
        let (out, reader) = UnixStream::pair().unwrap();
        let (input, writer) = UnixStream::pair().unwrap();
        let port = SerialPort::new(
            InterruptLine::loose(),
            Output::new(OwnedFd::from(out).into()),
            Some(Input::new(OwnedFd::from(input).into())),
            rate,
        );
        reader.set_nonblocking(true).unwrap();
        (port, reader, writer)
    }

    fn print(port: &mut SerialPort, text: &[u8]) {
        for byte in text {
            port.write(DATA, *byte, NOW);
        }
    }

    fn printed(reader: &mut UnixStream) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 20];
        let len = reader.read(&mut bytes).unwrap_or(0);
        bytes.truncate(len);
        bytes
    }

    #[test]
    fn lines_go_at_once_and_the_rest_when_its_time_has_come() {
        let (mut port, mut reader, _writer) = port(1 << 20);
        print(&mut port, b"one\ntwo");
        assert_eq!(printed(&mut reader), b"one\n");
        assert_eq!(port.flush_at(), Some(Nanos(1 + PATIENCE_NS)));
        port.flush(NOW);
        assert_eq!(printed(&mut reader), b"two");
        assert_eq!(port.flush_at(), None);
        print(&mut port, b"$ ");
        port.write(INTERRUPT_ENABLE, 5, NOW);
        assert_eq!(printed(&mut reader), b"$ ");
    }

    #[test]
    fn a_flood_makes_the_guest_wait_and_loses_nothing() {
        let (mut port, mut reader, _writer) = port(1 << 10);
        let mut sent = 0u64;
        while !port.is_full() {
            print(&mut port, b"x");
            sent += 1;
        }
        assert!(sent >= FULL as u64);
        let (mut got, mut now) = (0, NOW);
        while got < sent {
            got += printed(&mut reader).len() as u64;
            now = port.flush_at().unwrap_or(now);
            port.flush(now);
        }
        assert_eq!(got, sent);
        assert!(!port.is_full());
    }

    #[test]
    fn a_panic_is_seen_before_anybody_has_read_of_it() {
        let (mut port, _reader, _writer) = port(1 << 10);
        while !port.is_full() {
            print(&mut port, b"x");
        }
        print(&mut port, b"\nKernel panic - not syncing: no init\n");
        assert_eq!(port.panic_watch().panic(), Some("no init"));
    }

    #[test]
    fn input_waits_until_the_guest_has_read_what_there_was() {
        let (mut port, _reader, mut writer) = port(1 << 20);
        let text: Vec<u8> = (0..=255).collect();
        writer.write_all(&text).unwrap();
        port.receive();
        let got: Vec<u8> = text.iter().map(|_| port.read(DATA)).collect();
        assert_eq!(got, text);
        assert_eq!(port.input_bytes, 256);
    }
}
