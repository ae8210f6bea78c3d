//! The registers through which a legacy guest ends, and learns that somebody wants it to. Pure.

use super::Written;
use crate::boot::legacy::map::{SLEEP_ENABLE, SOFT_OFF};

/// Where the type of sleep is in the sleep control register (ACPI 6.5, 4.8.3.7).
const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE_MASK: u8 = 7 << SLEEP_TYPE_SHIFT;

/// What turns QEMU's and Bochs's machines off.
const OFF: u16 = 0x2000;

/// How a guest ends its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerEvent {
    /// It is powered off.
    Off,
    /// It is reset.
    Reset,
    /// The kernel has panicked.
    Panic,
    /// It ends with a status.
    Exit(u8),
}

/// Events that the guest has not asked for yet.
#[derive(Debug, Default)]
pub(super) struct Power {
    events: u8,
}

impl Power {
    pub(super) fn raise_events(&mut self, events: u8) {
        self.events |= events;
    }

    pub(super) fn take_events(&mut self) -> u8 {
        std::mem::take(&mut self.events)
    }
}

/// A write to the sleep control register. There is no sleep but the last one.
pub(super) fn sleep_control(value: u8) -> Written {
    let kind = (value & SLEEP_TYPE_MASK) >> SLEEP_TYPE_SHIFT;
    if value & SLEEP_ENABLE != 0 && kind == SOFT_OFF {
        Written::Power(PowerEvent::Off)
    } else {
        Written::Done
    }
}

/// A write to the power-off port.
pub(super) fn power_off(value: u16) -> Written {
    if value == OFF {
        Written::Power(PowerEvent::Off)
    } else {
        Written::Done
    }
}
