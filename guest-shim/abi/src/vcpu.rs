//! The vCPU block: per-vCPU data at the top of each stack, where the `fs` base points.
//!
//! The guest may write all of it; the monitor fills it in before the vCPU starts and afterwards
//! reads only [`VcpuBlock::entry_tsc`], as a hint.

/// The block. `fs:[0]` is its own address, as the x86-64 convention for thread data has it.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VcpuBlock {
    /// Address of this block.
    pub this: u64,
    /// Index of the vCPU.
    pub index: u64,
    /// Lowest byte of the stack; the page below is not mapped.
    pub stack_low: u64,
    /// Where `rsp` was at entry.
    pub stack_top: u64,
    /// 0. A guest that stores `rdtsc` here first of all helps the monitor report when it began.
    pub entry_tsc: u64,
    /// 0. For the guest.
    pub guest: [u64; 3],
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<VcpuBlock>() == 64);
    assert!(offset_of!(VcpuBlock, index) == 8);
    assert!(offset_of!(VcpuBlock, entry_tsc) == 32);
};
