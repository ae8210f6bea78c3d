//! Where the monitor puts what a kernel needs: pure arithmetic on checked inputs.
//!
//! What the kernel is told lies below 640 KiB, where every kernel expects such things. The ACPI
//! tables lie where a BIOS would have them, in memory that is not told as RAM.

use slice_abi::info::Range;
use slice_abi::layout::PAGE_SIZE;

use super::kernel::Kernel;
use super::map::{HOLE, KVM_PAGES, ram};

/// The descriptor table for the entry.
pub(super) const GDT: u64 = 0x500;

/// One past the last byte of a small stack.
pub(super) const STACK_TOP: u64 = 0x7000;

/// The page with Linux's boot parameters, or PVH's start info and what it points to.
pub(super) const BOOT_PARAMS: u64 = 0x7000;

/// What Linux's boot parameters point to.
pub(super) const SETUP_DATA: u64 = 0x8000;

/// The page tables for the entry.
pub(super) const PAGE_TABLES: u64 = 0x9000;

/// The command line.
pub(super) const COMMAND_LINE: u64 = 0x2_0000;

/// The longest command line that there is room for, its terminator included.
pub(super) const COMMAND_LINE_ROOM: usize = 0x1_0000;

/// Where RAM below 640 KiB ends: a BIOS would have its data above.
const LOW_RAM_END: u64 = 0x9_fc00;

/// The ACPI tables, the RSDP first: a kernel that is not told of it searches for it here.
pub(super) const ACPI: u64 = 0xe_0000;

/// How many bytes the ACPI tables may have.
pub(super) const ACPI_ROOM: u64 = 0xf000;

/// The machine's generation, a GUID.
pub(super) const GENERATION_ID: u64 = ACPI + ACPI_ROOM;

/// Where kernels are loaded, and the first address that one may take.
pub(super) const KERNEL: u64 = 1 << 20;

/// What a part of the memory map is; E820 and PVH number them alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemoryKind {
    Ram = 1,
    Reserved = 2,
}

/// The memory map that a kernel is told, for `memory` bytes of RAM, more than 1 MiB.
pub(super) fn memory_map(memory: u64) -> Vec<(Range, MemoryKind)> {
    let range = |start, end| Range {
        start,
        len: end - start,
    };
    let mut parts = ram(memory).into_iter();
    let low_end = parts.next().map_or(KERNEL, |low| low.end());
    let mut map = vec![
        (range(0, LOW_RAM_END), MemoryKind::Ram),
        (range(LOW_RAM_END, KERNEL), MemoryKind::Reserved),
        (range(KERNEL, low_end.max(KERNEL)), MemoryKind::Ram),
        (
            range(KVM_PAGES, KVM_PAGES + 4 * PAGE_SIZE),
            MemoryKind::Reserved,
        ),
    ];
    map.extend(parts.map(|part| (part, MemoryKind::Ram)));
    map
}

/// A kernel, or it and its initrd, do not fit into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DoesNotFit {
    /// More memory would help.
    #[error(
        "memory of {memory_mib} MiB is too small for {what}: at least {needed_mib} MiB are needed"
    )]
    TooSmall {
        /// What does not fit.
        what: &'static str,
        /// The memory that there is.
        memory_mib: u64,
        /// The memory that is needed.
        needed_mib: u64,
    },
    /// No memory would do: the kernel says that it needs addresses above the hole.
    #[error(
        "the kernel needs memory up to {end:#x}, but RAM that it may use at first ends at {HOLE:#x}"
    )]
    KernelTooLarge {
        /// Where what it needs ends.
        end: u64,
    },
    /// No memory would do: the kernel cannot have an initrd so large.
    #[error(
        "the initrd of {initrd_mib} MiB is too large: the kernel leaves room for {room_mib} MiB"
    )]
    InitrdTooLarge {
        /// How large it is.
        initrd_mib: u64,
        /// How large it might be.
        room_mib: u64,
    },
}

/// Where the initrd of `initrd_len` bytes, which may be none, goes in `memory` bytes of RAM: as high
/// as the hole and the kernel allow. Fails if it or the kernel does not fit.
pub(super) fn place_initrd(
    kernel: &Kernel,
    initrd_len: u64,
    memory: u64,
) -> Result<Range, DoesNotFit> {
    let needed = needed(kernel, initrd_len)?;
    if needed > memory {
        let what = match initrd_len {
            0 => "this kernel",
            _ => "this kernel and its initrd",
        };
        return Err(DoesNotFit::TooSmall {
            what,
            memory_mib: mib(memory),
            needed_mib: mib(needed),
        });
    }
    let top = whole_pages(memory).min(initrd_limit(kernel));
    Ok(Range {
        start: top.saturating_sub(initrd_len.next_multiple_of(PAGE_SIZE)),
        len: initrd_len,
    })
}

/// The least memory, in MiB, that holds this kernel and an initrd of `initrd_len` bytes.
pub fn least_memory_mib(kernel: &Kernel, initrd_len: u64) -> Result<u64, DoesNotFit> {
    needed(kernel, initrd_len).map(mib)
}

/// The bytes of memory that hold this kernel and an initrd of `initrd_len` bytes.
fn needed(kernel: &Kernel, initrd_len: u64) -> Result<u64, DoesNotFit> {
    let end = kernel.end();
    if end > HOLE {
        return Err(DoesNotFit::KernelTooLarge { end });
    }
    if initrd_len == 0 {
        return Ok(end);
    }
    let start = end.next_multiple_of(PAGE_SIZE);
    let room = initrd_limit(kernel).saturating_sub(start);
    if initrd_len > room {
        return Err(DoesNotFit::InitrdTooLarge {
            initrd_mib: mib(initrd_len),
            room_mib: room >> 20,
        });
    }
    Ok(start + initrd_len.next_multiple_of(PAGE_SIZE))
}

/// One past the highest page that an initrd may be in.
fn initrd_limit(kernel: &Kernel) -> u64 {
    whole_pages(kernel.initrd_limit().saturating_add(1)).min(HOLE)
}

fn whole_pages(bytes: u64) -> u64 {
    bytes / PAGE_SIZE * PAGE_SIZE
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

#[cfg(test)]
mod tests;
