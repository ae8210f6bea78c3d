//! Accesses that no driver makes: ports of any width and by the string, addresses where nothing is.

use super::low::{inb, inl, insb, inw, outb, outl, outsb, outw};
use super::serial;
use crate::cases::low::{load, store};
use crate::cases::verdict::Verdict;
use crate::cases::virtio::Device;

/// First and last of ranges of ports behind which, or beside which, there is something.
const PORTS: [(u16, u16); 8] = [
    (0x20, 0x21),
    (0x60, 0x64),
    (0x70, 0x73),
    (0xa0, 0xa1),
    (0xf0, 0xf8),
    (0x3f0, 0x400),
    (0x500, 0x508),
    (0x5fe, 0x608),
];

/// Ports behind which there is nothing.
const NOTHING: [u16; 8] = [0x10, 0x80, 0x2f8, 0x404, 0x506, 0x610, 0xcfc, 0xfff0];

/// Addresses of the hole where there are neither windows nor controllers.
const HOLES: [u64; 5] = [
    0xc000_0000,
    0xcfff_f000,
    0xd00f_f000,
    0xe000_0ff8,
    0xff00_0000,
];

const FLOOD: u32 = 2_000;

/// Does what `case` names; `None` if it is not about ports and addresses.
pub fn run(device: &Device, case: &[u8]) -> Option<Verdict> {
    Some(match case {
        b"ports-of-every-width" => {
            for port in each_port() {
                (inb(port), inw(port), inl(port));
            }
            for port in each_port().filter(|&port| is_harmless(port)) {
                outb(port, 0);
                outw(port, 0);
                outl(port, 0);
            }
            // Wide writes that reach over the ends of those that matter.
            outl(0x3fc, 0xffff_ffff);
            outw(0x3f9, 0xfffe);
            outl(0x62, 0);
            plain_serial();
            Verdict::Bears
        }
        b"ports-of-nothing" => {
            let ones = NOTHING.iter().all(|&port| {
                outb(port, 0xa5);
                outw(port, 0xa5a5);
                outl(port, 0xa5a5_a5a5);
                inb(port) == u8::MAX && inw(port) == u16::MAX && inl(port) == u32::MAX
            });
            Verdict::Refused(ones)
        }
        b"ports-by-the-string" => {
            let mut bytes = [0; 512];
            for port in each_port().chain(NOTHING) {
                insb(port, &mut bytes);
            }
            bytes.fill(0);
            for port in each_port().filter(|&port| is_harmless(port)).chain(NOTHING) {
                outsb(port, &bytes);
            }
            bytes.fill(b'-');
            outsb(0x3f8, &bytes);
            Verdict::Bears
        }
        b"serial-flood" => {
            let line = [b'*'; 64];
            for _ in 0..FLOOD / 64 {
                serial::print(&line);
                outsb(0x3f8, &line);
            }
            Verdict::Bears
        }
        b"serial-registers" => {
            for value in 0..=255 {
                for register in 0x3f9..=0x3ff {
                    outb(register, value);
                    inb(register);
                }
            }
            plain_serial();
            serial::print(b"after all\n");
            Verdict::Bears
        }
        b"holes" => {
            let ones = HOLES.iter().all(|&hole| {
                store::<u8>(hole, 1);
                store::<u16>(hole, 1);
                store::<u32>(hole, 1);
                store::<u64>(hole, 1);
                load::<u8>(hole) == u8::MAX
                    && load::<u16>(hole) == u16::MAX
                    && load::<u32>(hole) == u32::MAX
                    && load::<u64>(hole) == u64::MAX
            });
            Verdict::Refused(ones)
        }
        b"across-the-window" => {
            let end = device.entry.window + 0x1000;
            for at in [end - 1, end - 2, end - 4, end - 7, device.entry.window - 3] {
                load::<u16>(at);
                load::<u32>(at);
                load::<u64>(at);
            }
            Verdict::Refused(!device.needs_reset())
        }
        _ => return None,
    })
}

fn each_port() -> impl Iterator<Item = u16> {
    PORTS.into_iter().flat_map(|(first, last)| first..=last)
}

/// Whether zeros written there, up to four bytes wide, end nothing, nor open the old interrupt
/// controllers, which have no vectors.
fn is_harmless(port: u16) -> bool {
    !matches!(port, 0x1e..=0x21 | 0x9e..=0xa1 | 0xf1..=0xf4)
}

/// The serial port as it was: no divisor latch, no loop, no interrupts.
fn plain_serial() {
    for register in [0x3fb, 0x3fc, 0x3f9] {
        outb(register, 0);
    }
}
