//! Where everything of a legacy sliver's machine is: memory, registers, ports, interrupts.
//!
//! The kernel learns most of it from the memory map and the ACPI tables. What a kernel without
//! ACPI may rely on is told in `vmm/README.md`.

use slice_abi::info::Range;

/// RAM below 4 GiB ends here at the latest; what is more goes on at [`HIGH_RAM`].
pub const HOLE: u64 = 0xc000_0000;

/// Where RAM goes on above the hole.
pub const HIGH_RAM: u64 = 1 << 32;

/// The first virtio window; each has a page.
pub const DEVICES: u64 = 0xd000_0000;

/// The interrupt controller's registers, as KVM has them.
pub const IO_APIC: u64 = 0xfec0_0000;

/// Each vCPU's own interrupt controller.
pub const LOCAL_APIC: u64 = 0xfee0_0000;

/// Four pages that KVM needs for itself on some processors.
pub const KVM_PAGES: u64 = 0xfeff_c000;

/// The parts of guest RAM of `memory` bytes, ascending.
pub fn ram(memory: u64) -> Vec<Range> {
    let low = memory.min(HOLE);
    let low_range = Range { start: 0, len: low };
    let high_range = Range {
        start: HIGH_RAM,
        len: memory - low,
    };
    [low_range, high_range]
        .into_iter()
        .filter(|range| range.len > 0)
        .collect()
}

/// I/O ports.
pub mod port {
    /// The first of the 16550's eight.
    pub const SERIAL: u16 = 0x3f8;
    /// The 8042's data.
    pub const I8042_DATA: u16 = 0x60;
    /// The 8042's commands: 0xfe resets the machine.
    pub const I8042_COMMAND: u16 = 0x64;
    /// Index and data of the clock.
    pub const RTC: u16 = 0x70;
    /// The end of the sliver with the status that is written, of one byte.
    pub const EXIT: u16 = 0xf4;
    /// A kernel tells its panic (QEMU's `pvpanic`): bit 0.
    pub const PANIC: u16 = 0x505;
    /// ACPI's sleep control register, of one byte: 0x34 powers the machine off.
    pub const SLEEP_CONTROL: u16 = 0x600;
    /// ACPI's sleep status register, of one byte.
    pub const SLEEP_STATUS: u16 = 0x601;
    /// Writing 1 resets the machine.
    pub const RESET: u16 = 0x602;
    /// Events since it was last read, a bit each: see [`event`](super::event).
    pub const EVENTS: u16 = 0x603;
    /// Writing 0x2000, two bytes, powers the machine off, as on QEMU's and Bochs's.
    pub const POWER_OFF: u16 = 0x604;
}

/// Bits of [`port::EVENTS`].
pub mod event {
    /// The power button was pressed.
    pub const POWER_BUTTON: u8 = 1 << 0;
    /// The machine's generation has changed.
    pub const GENERATION: u8 = 1 << 1;
}

/// The type of sleep that is soft off, in [`port::SLEEP_CONTROL`] (`_S5`).
pub const SOFT_OFF: u8 = 5;

/// What completes [`SOFT_OFF`] in [`port::SLEEP_CONTROL`] (ACPI 6.5, 4.8.3.7).
pub const SLEEP_ENABLE: u8 = 1 << 5;

/// Inputs of the I/O APIC; all are edge-triggered and active high.
pub mod interrupt {
    /// The 16550.
    pub const SERIAL: u32 = 4;
    /// The event register has something.
    pub const EVENTS: u32 = 9;
    /// Those of the virtio devices, in turn.
    const DEVICES: [u32; 17] = [
        5, 6, 7, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23,
    ];

    /// That of virtio device `index`. With many devices, some share one.
    pub fn device(index: usize) -> u32 {
        DEVICES[index % DEVICES.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_leaves_the_hole_out() {
        let range = |start, len| Range { start, len };
        assert_eq!(ram(256 << 20), [range(0, 256 << 20)]);
        assert_eq!(ram(3 << 30), [range(0, 3 << 30)]);
        assert_eq!(ram(5 << 30), [range(0, 3 << 30), range(4 << 30, 2 << 30)]);
    }
}
