//! Everything wrong that can be done with the rings of a queue, of any device.

use core::sync::atomic::{AtomicBool, Ordering};

use super::subject;
use super::verdict::Verdict;
use super::virtio::{Desc, Device, F_INDIRECT, INDIRECT, NEXT, WRITE, reg};
use crate::guest::Guest;

/// Tells the vCPU that changes descriptors beside the first to leave them alone.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Does what `case` names; `None` if it is not about rings.
pub fn run(device: &Device, case: &[u8]) -> Option<Verdict> {
    chain(device, case)
        .or_else(|| indirect(device, case))
        .or_else(|| moment(device, case))
        .or_else(|| placement(device, case))
}

/// Chains and indices that no device may follow.
fn chain(device: &Device, case: &[u8]) -> Option<Verdict> {
    let data = device.data();
    let end = device.guest.heap().end();
    let text = device.guest.text().start;
    let alone = |addr, len| (Desc::text(addr, len), Desc::default());
    let (first, second) = match case {
        b"loop" => (
            Desc::text(data, 1).with(NEXT, 1),
            Desc::text(data, 1).with(NEXT, 0),
        ),
        b"loop-to-itself" => alone(data, 1),
        b"next-out-of-range" => alone(data, 1),
        b"address-zero" => alone(0, 8),
        b"address-beyond-ram" => alone(1 << 45, 8),
        b"address-over-the-end" => alone(end - 8, 64),
        b"address-wraps" => alone(u64::MAX - 4, 64),
        b"address-in-text" => (Desc::room(text, 8), Desc::default()),
        b"address-in-a-window" => alone(device.entry.window, 8),
        b"length-zero" => alone(data, 0),
        b"length-huge" => alone(data, u32::MAX),
        b"readable-after-writable" => (
            Desc::room(data, 8).with(WRITE | NEXT, 1),
            Desc::text(data, 8),
        ),
        b"aliases-the-ring" => alone(device.table(), 64),
        b"total-over-4-gib" => {
            device.start();
            return Some(over_4_gib(device));
        }
        b"avail-forward" => return Some(index_moves_by(device, device.size() + 1)),
        b"avail-backward" => return Some(index_moves_by(device, u16::MAX)),
        b"wrong-direction" => {
            device.start();
            let (room, text) = (Desc::room(data, 16), Desc::text(data, 16));
            device.submit(&[if subject::is_written(device) {
                text
            } else {
                room
            }]);
            return Some(Verdict::Fails);
        }
        b"head-out-of-range" => {
            device.start();
            device.offer(device.size(), 1);
            return Some(Verdict::Fails);
        }
        _ => return None,
    };
    device.start();
    let first = match case {
        b"loop-to-itself" => first.with(NEXT, 0),
        b"next-out-of-range" => first.with(NEXT, device.size()),
        _ => first,
    };
    if case == b"aliases-the-ring" {
        // In either direction, whichever the queue has.
        let written = subject::is_written(device);
        device.submit(&[if written { first.with(WRITE, 0) } else { first }]);
        return Some(Verdict::Bears);
    }
    device.submit(&[first, second]);
    Some(Verdict::Fails)
}

fn index_moves_by(device: &Device, step: u16) -> Verdict {
    device.start();
    device.offer(0, step);
    Verdict::Fails
}

/// A chain of a full queue, each descriptor of which names most of the heap.
fn over_4_gib(device: &Device) -> Verdict {
    let (data, size) = (device.data(), device.size());
    let len = (device.guest.heap().end() - data) as u32;
    for index in 0..size {
        let next = if index + 1 == size { 0 } else { NEXT };
        device.describe(index.into(), &Desc::text(data, len).with(next, index + 1));
    }
    device.offer(0, 1);
    Verdict::Fails
}

/// Indirect descriptors, which were agreed on in all cases but the first.
fn indirect(device: &Device, case: &[u8]) -> Option<Verdict> {
    if case == b"indirect-not-negotiated" {
        device.start();
        device.submit(&[Desc::text(device.data(), 16).with(INDIRECT, 0)]);
        return Some(Verdict::Fails);
    }
    let table = device.data();
    let payload = table + 0x1_0000;
    let names = |addr, len| Desc::text(addr, len).with(INDIRECT, 0);
    let one = Desc::text(payload, 16);
    let (outer, inner) = match case {
        b"indirect-nested" => (names(table, 16), names(table, 16)),
        b"indirect-with-next" => (names(table, 16).with(INDIRECT | NEXT, 1), one),
        b"indirect-empty" => (names(table, 0), one),
        b"indirect-odd" => (names(table, 17), one),
        b"indirect-beyond-ram" => (names(device.guest.heap().end() - 16, 32), one),
        b"indirect-next-out-of-range" => (names(table, 32), one.with(NEXT, 2)),
        b"indirect-loop" => (names(table, 16), one.with(NEXT, 0)),
        b"longer-than-the-queue" => (names(table, 16 * (u32::from(device.size()) + 1)), one),
        _ => return None,
    };
    device.featuring(F_INDIRECT).start();
    device.describe_in(table, 0, &inner);
    if case == b"longer-than-the-queue" {
        for index in 0..=device.size() {
            let next = if index == device.size() { 0 } else { NEXT };
            device.describe_in(table, index.into(), &one.with(next, index + 1));
        }
    }
    device.submit(&[outer, one]);
    Some(Verdict::Fails)
}

/// Things done at the wrong time.
fn moment(device: &Device, case: &[u8]) -> Option<Verdict> {
    Some(match case {
        b"notify-early" => {
            device.negotiate();
            device.place_queue();
            device.write(reg::QUEUE_READY, 1);
            subject::ask(device);
            for queue in [device.queue, 7, u32::MAX] {
                device.write(reg::QUEUE_NOTIFY, queue);
            }
            Verdict::Refused(device.used_idx() == 0)
        }
        b"notify-after-reset" => {
            device.start();
            device.reset();
            subject::ask(device);
            Verdict::Refused(device.used_idx() == 0)
        }
        b"initialised-twice" => {
            device.start();
            device.write(reg::STATUS, 1);
            device.write(reg::STATUS, 1 | 2);
            device.write(reg::DRIVER_FEATURES, u32::MAX);
            device.write(reg::QUEUE_SEL, device.queue);
            device.write(reg::QUEUE_READY, 0);
            device.write(reg::QUEUE_NUM, 0);
            device.write_address(reg::QUEUE_DESC, 0);
            device.write(reg::QUEUE_READY, 1);
            device.write(reg::STATUS, 1 | 2 | 8 | 4);
            subject::ask(device);
            Verdict::Refused(!device.needs_reset())
        }
        b"reset-busy" => {
            for _ in 0..50 {
                device.start();
                subject::ask(device);
                device.reset();
            }
            Verdict::Bears
        }
        b"changed-in-flight" => {
            device.start();
            device.guest.wake(1);
            for _ in 0..100 {
                subject::ask(device);
                if device.needs_reset() {
                    device.start();
                }
            }
            QUIET.store(true, Ordering::Relaxed);
            Verdict::Bears
        }
        _ => return None,
    })
}

/// What the second vCPU does in the meantime: it changes the first descriptors of the queue.
pub fn change_in_flight(guest: &Guest) -> ! {
    let device = subject::named(guest, guest.argument(1));
    let data = device.data();
    let kinds = [
        Desc::text(data, 64),
        Desc::room(data, 64).with(WRITE | NEXT, 1),
        Desc::text(1 << 45, u32::MAX),
        Desc::text(data, 16).with(NEXT, 0),
        Desc::text(device.table(), 16).with(NEXT, 2),
    ];
    for (at, kind) in (0u64..).zip(kinds.iter().cycle()) {
        if QUIET.load(Ordering::Relaxed) {
            break;
        }
        device.describe(at % 3, kind);
    }
    loop {
        guest.rest(None);
    }
}

/// Rings where none can be.
fn placement(device: &Device, case: &[u8]) -> Option<Verdict> {
    let end = device.guest.heap().end();
    let text = device.guest.text().start;
    let spoil: &dyn Fn() = match case {
        b"queue-size-0" => &|| device.write(reg::QUEUE_NUM, 0),
        b"queue-size-3" => &|| device.write(reg::QUEUE_NUM, 3),
        b"queue-size-above-max" => {
            &|| device.write(reg::QUEUE_NUM, 2 * device.entry.queue_size_max)
        }
        b"queue-size-huge" => &|| device.write(reg::QUEUE_NUM, 0x1_0000),
        b"queue-no-addresses" => &|| {
            for ring in [reg::QUEUE_DESC, reg::QUEUE_DRIVER, reg::QUEUE_DEVICE] {
                device.write_address(ring, 0);
            }
        },
        b"queue-unaligned" => &|| device.write_address(reg::QUEUE_DESC, device.table() + 3),
        b"queue-beyond-ram" => &|| device.write_address(reg::QUEUE_DRIVER, 1 << 45),
        b"queue-over-the-end" => &|| device.write_address(reg::QUEUE_DESC, end - 16),
        b"used-ring-in-text" => &|| device.write_address(reg::QUEUE_DEVICE, text),
        b"rings-overlap" => &|| device.write_address(reg::QUEUE_DRIVER, device.table() + 16),
        _ => return None,
    };
    device.negotiate();
    device.place_queue();
    spoil();
    device.write(reg::QUEUE_READY, 1);
    device.write(reg::STATUS, 1 | 2 | 8 | 4);
    Some(Verdict::Fails)
}
