//! The descriptor table that a kernel is entered with: flat segments. Kernels load their own soon,
//! but Linux's boot protocol promises these, at these selectors.

use super::entry::Mode;
use super::place::GDT;

/// Selector of the code segment (boot.rst: `__BOOT_CS`).
pub const CODE: u16 = 0x10;

/// Selector of the data segments (boot.rst: `__BOOT_DS`).
pub const DATA: u16 = 0x18;

/// Selector of the task state segment, at address 0, which nobody reads.
pub const TASK: u16 = 0x20;

/// Descriptors (Intel SDM 3, 3.4.5): base 0, limit 4 GiB, present, accessed.
const CODE_64: u64 = 0x00af_9b00_0000_ffff;
const CODE_32: u64 = 0x00cf_9b00_0000_ffff;
const DATA_32: u64 = 0x00cf_9300_0000_ffff;

/// A busy task state segment of 0x68 bytes; one of 64 bits has a second half, which is 0.
const TASK_STATE: u64 = 0x0000_8b00_0000_0067;

/// Descriptors in the table.
const COUNT: usize = 6;

/// Address and limit of the table.
pub(super) const REGISTER: (u64, u16) = (GDT, (COUNT * 8 - 1) as u16);

/// The table for a mode, as bytes.
pub(super) fn table(mode: &Mode) -> Vec<u8> {
    let code = match mode {
        Mode::Long { .. } => CODE_64,
        Mode::Protected { .. } => CODE_32,
    };
    let descriptors: [u64; COUNT] = [0, 0, code, DATA_32, TASK_STATE, 0];
    descriptors.iter().flat_map(|d| d.to_le_bytes()).collect()
}
