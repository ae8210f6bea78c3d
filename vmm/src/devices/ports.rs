//! What a legacy guest reaches through I/O ports: a 16550, an 8042 that only resets, a clock, and
//! the ports that end or reset the machine (see [`port`]).
//!
//! Pure but for the serial port. A port takes one byte at a time, however many an access has; ports
//! that do not exist read as all ones, as on a PC.

pub mod panic;
pub mod power;
pub mod rtc;
pub mod serial;

use std::io;

use vm_superio::{I8042Device, Trigger};

use self::panic::PanicWatch;
use self::power::{Power, PowerEvent};
use self::rtc::Rtc;
use self::serial::SerialPort;
use crate::boot::legacy::map::port;
use crate::nanos::Nanos;

/// Registers of the 16550.
const SERIAL_PORTS: std::ops::Range<u16> = port::SERIAL..port::SERIAL + 8;
/// Where firmware tells its progress: kernels write there to pass the time.
const DELAY: u16 = 0x80;
/// What `pvpanic` can tell: bit 0, a panic.
const PANICKED: u8 = 1;

/// The ports of one sliver.
#[derive(Debug)]
pub struct Ports {
    /// The serial port.
    pub serial: SerialPort,
    power: Power,
    rtc: Rtc,
    keyboard: I8042Device<ResetLine>,
    ignored: u64,
}

/// What a write to a port comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Nothing that anybody else has to see to.
    Done,
    /// The serial port's output has to be seen to.
    Serial,
    /// The machine is to end.
    Power(PowerEvent),
}

impl Ports {
    /// Ports with this serial port.
    pub fn new(serial: SerialPort) -> Self {
        Self {
            serial,
            power: Power::default(),
            rtc: Rtc::default(),
            keyboard: I8042Device::new(ResetLine::default()),
            ignored: 0,
        }
    }

    /// Answers a read. `realtime` is the host's, in seconds since 1970.
    pub fn read(&mut self, port: u16, data: &mut [u8], realtime: impl Fn() -> u64) {
        for byte in data {
            *byte = match port {
                _ if SERIAL_PORTS.contains(&port) => self.serial.read(port - port::SERIAL),
                port::I8042_DATA | port::I8042_COMMAND => {
                    self.keyboard.read((port - port::I8042_DATA) as u8)
                }
                port::RTC => self.rtc.index(),
                _ if port == port::RTC + 1 => self.rtc.read(realtime()),
                port::PANIC => PANICKED,
                port::SLEEP_CONTROL | port::SLEEP_STATUS => 0,
                port::EVENTS => self.power.take_events(),
                _ => {
                    self.ignored += u64::from(port != DELAY);
                    0xff
                }
            };
        }
    }

    /// Does a write.
    pub fn write(&mut self, port: u16, data: &[u8], now: Nanos) -> Written {
        if port == port::POWER_OFF {
            return match data {
                &[low, high] => power::power_off(u16::from_le_bytes([low, high])),
                _ => Written::Done,
            };
        }
        let mut written = Written::Done;
        for &byte in data {
            let what = self.write_byte(port, byte, now);
            if !matches!(written, Written::Power(_)) && what != Written::Done {
                written = what;
            }
        }
        written
    }

    fn write_byte(&mut self, port: u16, byte: u8, now: Nanos) -> Written {
        match port {
            _ if SERIAL_PORTS.contains(&port) => {
                self.serial.write(port - port::SERIAL, byte, now);
                Written::Serial
            }
            port::I8042_DATA | port::I8042_COMMAND => {
                // Its line never fails to be triggered.
                let _ = self.keyboard.write((port - port::I8042_DATA) as u8, byte);
                match self.keyboard.reset_evt().take() {
                    true => Written::Power(PowerEvent::Reset),
                    false => Written::Done,
                }
            }
            port::RTC => {
                self.rtc.select(byte);
                Written::Done
            }
            port::PANIC if byte & PANICKED != 0 => Written::Power(PowerEvent::Panic),
            port::EXIT => Written::Power(PowerEvent::Exit(byte)),
            port::SLEEP_CONTROL => power::sleep_control(byte),
            port::RESET if byte == 1 => Written::Power(PowerEvent::Reset),
            _ => {
                self.ignored += u64::from(port != DELAY);
                Written::Done
            }
        }
    }

    /// Notes events, of [`event`](crate::boot::legacy::map::event): the guest is then interrupted.
    pub fn raise_events(&mut self, events: u8) {
        self.power.raise_events(events);
    }

    /// The panic that the guest has told on its console.
    pub fn panic_watch(&self) -> &PanicWatch {
        self.serial.panic_watch()
    }

    /// Accesses that meant nothing, so far.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }
}

/// The 8042's reset line.
#[derive(Debug, Default)]
struct ResetLine(std::cell::Cell<bool>);

impl ResetLine {
    fn take(&self) -> bool {
        self.0.take()
    }
}

impl Trigger for ResetLine {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.set(true);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::output::Output;
    use crate::kvm::interrupts::InterruptLine;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use proptest::prelude::*;

    const NOW: Nanos = Nanos(0);

    fn ports() -> (Ports, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let output = Output::new(OwnedFd::from(ours).into());
        let serial = SerialPort::new(InterruptLine::loose(), output, None, 1 << 20);
        (Ports::new(serial), theirs)
    }

    fn read(ports: &mut Ports, port: u16) -> u8 {
        let mut byte = [0];
        ports.read(port, &mut byte, || 0);
        byte[0]
    }

    #[test]
    fn each_way_to_end_is_told_apart() {
        let (mut ports, _far_end) = ports();
        let mut write = |port, data: &[u8]| ports.write(port, data, NOW);
        assert_eq!(
            write(port::SLEEP_CONTROL, &[0x34]),
            Written::Power(PowerEvent::Off)
        );
        assert_eq!(
            write(port::POWER_OFF, &[0, 0x20]),
            Written::Power(PowerEvent::Off)
        );
        assert_eq!(write(port::RESET, &[1]), Written::Power(PowerEvent::Reset));
        assert_eq!(
            write(port::I8042_COMMAND, &[0xfe]),
            Written::Power(PowerEvent::Reset)
        );
        assert_eq!(write(port::PANIC, &[1]), Written::Power(PowerEvent::Panic));
        assert_eq!(write(port::EXIT, &[7]), Written::Power(PowerEvent::Exit(7)));
        for (port, data) in [
            (port::SLEEP_CONTROL, &[0x14][..]),
            (port::POWER_OFF, &[0x34]),
            (port::RESET, &[0]),
            (port::I8042_COMMAND, &[0xaa]),
            (port::PANIC, &[2]),
        ] {
            assert_eq!(write(port, data), Written::Done, "{port:#x}");
        }
    }

    #[test]
    fn events_are_told_once() {
        let (mut ports, _far_end) = ports();
        ports.raise_events(1);
        ports.raise_events(2);
        assert_eq!(read(&mut ports, port::EVENTS), 3);
        assert_eq!(read(&mut ports, port::EVENTS), 0);
    }

    #[test]
    fn what_is_not_there_reads_as_ones_and_is_counted() {
        let (mut ports, _far_end) = ports();
        let mut wide = [0; 4];
        ports.read(0xcfc, &mut wide, || 0);
        assert_eq!(wide, [0xff; 4]);
        assert_eq!(ports.ignored(), 4);
    }

    proptest! {
        #[test]
        fn any_access_is_survived(
            accesses in prop::collection::vec(
                (any::<u16>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..9)), 0..200),
        ) {
            let (mut ports, _far_end) = ports();
            for (port, write, mut data) in accesses {
                // Half of them where something is.
                let port = if port & 1 == 0 { port } else { 0x3f8 + (port >> 1) % 8 };
                if write {
                    ports.write(port, &data, NOW);
                } else {
                    ports.read(port, &mut data, || u64::MAX);
                }
            }
        }
    }
}
