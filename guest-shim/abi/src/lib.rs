//! The slice ABI, version 2: what a native image and the monitor that runs it agree on.
//!
//! This crate is the specification. It holds every constant and every shared structure, and its
//! documentation is meant to be enough to write another monitor or another guest library. It has
//! no dependencies, needs no allocator, and both sides use it unchanged.
//!
//! # The idea
//!
//! A native image runs in 64-bit mode at privilege level 3 from its first instruction to its
//! last. Paging is already on and the page tables belong to the monitor. The guest executes no
//! privileged instruction, takes no interrupt and needs no interrupt controller. All it can do
//! beyond computing in its memory is to write four registers (the [control window](control)) and
//! to drive the virtio devices listed in its [device table](device).
//!
//! # The image
//!
//! A statically linked ELF64 file for x86-64, little endian, type `ET_EXEC`, with:
//!
//! - at most 64 program headers, and a `PT_NOTE` segment holding one note as described in [`note`]
//!   within its first 64 KiB;
//! - one to [`layout::MAX_SEGMENTS`] `PT_LOAD` segments, inside `[RAM_BASE, RAM_BASE + memory)`,
//!   ascending, no two sharing a page, none both writable and executable, and everything that is
//!   not writable below everything that is;
//! - no `PT_INTERP`, `PT_DYNAMIC` or `PT_TLS`: nothing is left to relocate and there is no loader;
//! - an entry point inside an executable segment.
//!
//! # The address space
//!
//! Memory of the sliver is mapped one to one: a virtual address in RAM is the guest physical
//! address that a virtio descriptor names. From low to high:
//!
//! | what | access | where |
//! |---|---|---|
//! | null page | none | `0` |
//! | [info page](info), arguments, [quota page](quota), [clock record](clock), [device states](device::DeviceState) | read | below [`layout::RAM_BASE`], found through `rdi` |
//! | [control window](control), [device windows](device) | read, write, uncached | below [`layout::RAM_BASE`], found in the info page |
//! | image segments | as the ELF file says, never both writable and executable | from [`layout::RAM_BASE`] |
//! | per vCPU: a guard page, then a stack | none; read, write | after the image |
//! | heap | read, write | to the end of RAM |
//!
//! No page is ever writable and executable, and the guest cannot change that. Devices, too, refuse
//! to write below the image's first writable segment: text and read-only data cannot be changed by
//! naming them in a descriptor.
//!
//! # Entry
//!
//! vCPU 0 starts at the image's entry point. A further vCPU starts there, too, but only when it
//! is first named in a [`control::WAKE`]: the image initialises itself before it has company.
//!
//! | register | value |
//! |---|---|
//! | `rdi` | address of the [`info::InfoPage`] |
//! | `rsi` | index of this vCPU, from 0 |
//! | `rsp` | top of this vCPU's stack, 16-byte aligned |
//! | `fs` base | address of this vCPU's [`vcpu::VcpuBlock`] |
//! | `gs` base, other general registers | 0 |
//! | `rflags` | 0x2: direction clear |
//! | `mxcsr`, x87 control word | 0x1f80, 0x37f |
//!
//! The vector state that may be used is told by [`info::InfoPage::xcr0`]; CPUID works but leaves
//! the guest, at a cost of tens of microseconds on some hosts. `rdtsc` is native.
//! `syscall`, `sysenter`, `int` and port I/O raise exceptions.
//!
//! # Exceptions
//!
//! Any exception ends the sliver (see [`fault`]). The guest cannot handle one.
//!
//! # Versions
//!
//! [`ABI_VERSION`] grows when something changes its meaning. Within a version, structures may
//! grow at their end: [`info::InfoPage::size`] tells how much of it this monitor wrote, and
//! [`quota::QuotaPage`] tells which of its fields are in use.
#![no_std]
#![forbid(unsafe_code)]

pub mod clock;
pub mod control;
pub mod device;
pub mod fault;
pub mod info;
pub mod layout;
pub mod note;
pub mod quota;
pub mod vcpu;

/// The version of the ABI that this crate describes.
pub const ABI_VERSION: u32 = 2;
