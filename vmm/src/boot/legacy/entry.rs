//! The state in which a legacy kernel is entered.

/// Registers of the first vCPU; those that are not here are 0, and interrupts are off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// First instruction.
    pub rip: u64,
    /// A stack, if the protocol promises one.
    pub rsp: u64,
    /// Linux's boot parameters.
    pub rsi: u64,
    /// PVH's start info.
    pub rbx: u64,
    /// The processor's mode.
    pub mode: Mode,
}

/// The processor's mode at entry. Segments are flat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// 64 bits, with paging.
    Long {
        /// Guest physical address of the root page table.
        page_tables: u64,
        /// Address and limit of the descriptor table.
        gdt: (u64, u16),
    },
    /// 32 bits, without paging.
    Protected {
        /// Address and limit of the descriptor table.
        gdt: (u64, u16),
    },
}

/// A virtio device as a kernel finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceWindow {
    /// Virtio device type.
    pub id: u32,
    /// Guest physical address of its registers, a page.
    pub base: u64,
    /// Input of the I/O APIC.
    pub interrupt: u32,
}
