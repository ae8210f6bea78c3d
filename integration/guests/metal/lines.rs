//! Interrupts of a device: one for what it has done, none when it was not asked for, and how they
//! are told apart and acknowledged.

use super::guest::{acknowledge, acknowledge_these, reasons};
use super::interrupts;
use crate::cases::low::{load, store};
use crate::cases::subject;
use crate::cases::verdict::Verdict;
use crate::cases::virtio::{Desc, Device, NEXT, bit, reg};

/// Bits of the interrupt status.
const USED: u32 = 1 << 0;
const CONFIGURATION: u32 = 1 << 1;

const F_EVENT_IDX: u64 = 1 << 29;
/// The driver's flag against interrupts (virtio 1.2, 2.7.6).
const NO_INTERRUPT: u16 = 1;

/// Long enough for an interrupt that should not come, in nanoseconds.
const A_WHILE: u64 = 50_000_000;
/// Long enough for one that was sent to arrive, or not.
const UNDER_WAY: u64 = 500_000_000;
/// Long enough for one that should come.
const LONG: u64 = 5_000_000_000;

/// How often a ring is looked at that nothing tells of.
const LOOK_EVERY: u64 = 1_000_000;

/// Pieces of work in a row.
const ROUNDS: u16 = 8;
const MANY: u16 = 100;
/// Doorbells in a row.
const FLOOD: u32 = 5_000;

/// Does what `case` names; `None` if it is not about interrupts.
pub fn run(device: &Device, case: &[u8]) -> Option<Verdict> {
    let line = Line::of(device);
    Some(match case {
        b"interrupt-for-each" => {
            device.start();
            let good = (1..=ROUNDS).all(|round| {
                let before = line.count();
                subject::ask(device);
                line.interrupts_after(before) && device.await_used(round)
            });
            Verdict::Refused(good)
        }
        b"interrupt-unacknowledged" => {
            // Edges: one that was not acknowledged keeps no other back.
            device.start();
            let good = (1..=ROUNDS).all(|_| {
                let before = line.count();
                subject::ask(device);
                line.interrupts_after(before) && reasons(device.entry) & USED != 0
            });
            Verdict::Refused(good)
        }
        b"interrupt-suppressed" => {
            device.start();
            store(avail(device), NO_INTERRUPT);
            Verdict::Refused(works_without(device, &line, ROUNDS))
        }
        b"interrupt-by-index" => {
            let device = device.featuring(F_EVENT_IDX);
            device.start();
            let quiet = ROUNDS - 1;
            store(avail(&device) + 4 + 2 * u64::from(device.size()), quiet);
            let good = works_without(&device, &line, quiet);
            let before = line.count();
            subject::ask(&device);
            Verdict::Refused(good && line.interrupts_after(before))
        }
        b"interrupt-status" => {
            device.start();
            let before = line.count();
            subject::ask(device);
            Verdict::Refused(line.interrupts_after(before) && status_is_acknowledged(device))
        }
        b"interrupt-acknowledged-early" => {
            // What was not there, before anything was and in every state.
            device.reset();
            acknowledge_these(device.entry, u32::MAX);
            device.start();
            acknowledge_these(device.entry, u32::MAX);
            let before = line.count();
            subject::ask(device);
            let good = line.interrupts_after(before);
            Verdict::Refused(good && reasons(device.entry) == USED && !device.needs_reset())
        }
        b"interrupt-before-driver-ok" => {
            device.negotiate();
            device.place_queue();
            device.write(reg::QUEUE_READY, 1);
            let before = line.count();
            subject::ask(device);
            let quiet = line.stays_at(before) && reasons(device.entry) == 0;
            Verdict::Refused(quiet && device.read(reg::STATUS) == bit::AGREED)
        }
        b"interrupt-after-reset" => {
            device.start();
            for _ in 0..ROUNDS {
                subject::ask(device);
            }
            device.reset();
            // What it had sent before may still be on its way, through a thread of the host's kernel.
            line.until(UNDER_WAY, || false);
            let before = line.count();
            subject::ask(device);
            Verdict::Refused(line.stays_at(before) && reasons(device.entry) == 0)
        }
        b"interrupt-of-a-fault" => {
            device.start();
            let before = line.count();
            device.submit(&[Desc::text(device.data(), 1).with(NEXT, 0)]);
            let told = line.interrupts_after(before) && reasons(device.entry) & CONFIGURATION != 0;
            match told && device.needs_reset() {
                true => Verdict::Fails,
                false => Verdict::Refused(false),
            }
        }
        b"interrupt-of-configuration" => {
            device.start();
            let before = line.count();
            super::serial::print(b"listening\n");
            let good = line.interrupts_after(before) && reasons(device.entry) & CONFIGURATION != 0;
            acknowledge(device.entry);
            Verdict::Refused(good && reasons(device.entry) == 0)
        }
        b"doorbells-while-masked" => {
            device.start();
            interrupts::open_line(line.0, false);
            subject::ask(device);
            let before = line.count();
            for _ in 0..FLOOD {
                device.notify();
            }
            let quiet = line.count() == before && device.await_used(1);
            interrupts::open_line(line.0, true);
            Verdict::Refused(quiet && !device.needs_reset())
        }
        b"work-while-masked" => {
            device.start();
            interrupts::open_line(line.0, false);
            let good = works_without(device, &line, MANY) && !device.needs_reset();
            interrupts::open_line(line.0, true);
            Verdict::Refused(good)
        }
        _ => return None,
    })
}

/// The line of a device, whose interrupts are counted.
struct Line<'a>(u32, &'a Device<'a>);

impl<'a> Line<'a> {
    fn of(device: &'a Device) -> Self {
        Self(device.guest.line(device.entry), device)
    }

    fn count(&self) -> u32 {
        interrupts::count(self.0)
    }

    /// Whether there are more than `before`, in the end.
    fn interrupts_after(&self, before: u32) -> bool {
        self.until(LONG, || self.count() != before)
    }

    /// Whether there are no more than `before` for a while.
    fn stays_at(&self, before: u32) -> bool {
        !self.until(A_WHILE, || self.count() != before)
    }

    /// Waits at rest, without acknowledging anything.
    fn until(&self, limit: u64, condition: impl Fn() -> bool) -> bool {
        let guest = self.1.guest;
        let end = guest.now() + limit;
        while !condition() {
            let now = guest.now();
            if now >= end {
                return false;
            }
            // Not to the end: what is waited for may be kept from interrupting.
            interrupts::rest(Some(LOOK_EVERY.min(end - now)));
        }
        true
    }
}

fn avail(device: &Device) -> u64 {
    device.table() + 4096
}

/// Whether the device does `rounds` pieces of work and interrupts for none.
fn works_without(device: &Device, line: &Line, rounds: u16) -> bool {
    let before = line.count();
    (1..=rounds).all(|round| {
        subject::ask(device);
        line.until(LONG, || device.used_idx() == round) && line.count() == before
    }) && line.stays_at(before)
}

/// Whether the status is there until it is acknowledged, bit by bit.
fn status_is_acknowledged(device: &Device) -> bool {
    let is = |expected| reasons(device.entry) == expected;
    let there = is(USED);
    acknowledge_these(device.entry, CONFIGURATION | !3);
    let still = is(USED);
    // Not even by a read, nor by the wrong width.
    load::<u8>(device.entry.window + 0x60);
    store::<u8>(device.entry.window + 0x64, 1);
    let yet = is(USED);
    acknowledge_these(device.entry, USED);
    there && still && yet && is(0)
}
