//! The info page: what a guest is told at entry, read-only, written once before it runs.

use crate::device::DeviceEntry;

/// First word of the info page: `"SLICEINF"` in memory order.
pub const INFO_MAGIC: u64 = u64::from_le_bytes(*b"SLICEINF");

/// Room in [`InfoPage::memory`].
pub const MAX_MEMORY_RANGES: usize = 20;

/// Room in [`InfoPage::devices`].
pub const MAX_DEVICES: usize = 32;

/// Room in [`InfoPage::nets`].
pub const MAX_NETS: usize = 8;

/// Room for arguments: all of them together, each with its terminating NUL.
pub const MAX_ARGS_BYTES: usize = 4096;

/// Room for a name in the info page, with at least one terminating NUL.
pub const NAME_BYTES: usize = 64;

/// A range of virtual addresses; in RAM, of guest physical addresses too.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
}

impl Range {
    /// One past the last byte.
    pub const fn end(&self) -> u64 {
        self.start + self.len
    }

    /// Whether `addr` lies inside.
    pub const fn contains(&self, addr: u64) -> bool {
        addr >= self.start && addr - self.start < self.len
    }
}

/// What a [`MemoryRange`] holds.
pub mod memory_kind {
    /// A loaded segment of the image.
    pub const IMAGE: u32 = 1;
    /// The stacks of all vCPUs, with their guard pages: one entry for all of them.
    pub const STACK: u32 = 2;
    /// Memory free for the guest to use.
    pub const HEAP: u32 = 3;
}

/// Permissions of a [`MemoryRange`], as bits.
pub mod access {
    /// May be read.
    pub const READ: u32 = 1;
    /// May be written.
    pub const WRITE: u32 = 2;
    /// May be executed.
    pub const EXECUTE: u32 = 4;
}

/// One entry of the memory map. Entries ascend and do not overlap; what lies between is unmapped.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryRange {
    /// Where it is.
    pub range: Range,
    /// One of [`memory_kind`].
    pub kind: u32,
    /// Bits of [`access`].
    pub access: u32,
}

/// What the processor offers, as bits of [`InfoPage::cpu_features`]. A bit is set only where the
/// monitor has enabled everything the feature needs.
pub mod cpu_feature {
    /// The time-stamp counter runs at one rate in every state of the processor.
    pub const INVARIANT_TSC: u64 = 1 << 0;
    /// `rdrand`.
    pub const RDRAND: u64 = 1 << 1;
    /// `rdseed`.
    pub const RDSEED: u64 = 1 << 2;
    /// `rdfsbase`, `wrfsbase` and the same for `gs`.
    pub const FSGSBASE: u64 = 1 << 3;
    /// AVX state is enabled and usable.
    pub const AVX: u64 = 1 << 4;
    /// AVX2.
    pub const AVX2: u64 = 1 << 5;
    /// AVX-512 foundation, with its state enabled.
    pub const AVX512F: u64 = 1 << 6;
    /// AES instructions.
    pub const AES: u64 = 1 << 7;
    /// Carry-less multiplication.
    pub const PCLMULQDQ: u64 = 1 << 8;
    /// SHA instructions.
    pub const SHA: u64 = 1 << 9;
    /// Fast `rep movsb` and `rep stosb`.
    pub const ERMS: u64 = 1 << 10;
    /// `rdtscp`.
    pub const RDTSCP: u64 = 1 << 11;
    /// BMI1 and BMI2.
    pub const BMI: u64 = 1 << 12;
    /// `popcnt`.
    pub const POPCNT: u64 = 1 << 13;
    /// SSE4.1 and SSE4.2.
    pub const SSE4: u64 = 1 << 14;
}

/// The configuration of a network card's addresses comes from DHCP, as far as it is not given here.
pub const NET_DHCP: u32 = 1 << 0;

/// Addresses of one network card, as its owner has configured them. Bytes are in network order; an
/// address that is all zeros is not there.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetConfig {
    /// Index of the card in [`InfoPage::devices`].
    pub device: u32,
    /// [`NET_DHCP`] or 0.
    pub flags: u32,
    /// IPv4 address.
    pub ipv4: [u8; 4],
    /// IPv4 address of the default gateway.
    pub gateway4: [u8; 4],
    /// Length of the IPv4 prefix, in bits.
    pub prefix4: u8,
    /// Length of the IPv6 prefix, in bits.
    pub prefix6: u8,
    /// Must be ignored.
    pub reserved: [u8; 6],
    /// IPv6 address.
    pub ipv6: [u8; 16],
    /// IPv6 address of the default gateway.
    pub gateway6: [u8; 16],
    /// Name servers; an IPv4 address is mapped (`::ffff:192.0.2.1`).
    pub dns: [[u8; 16]; 2],
}

/// The info page. Its address is in `rdi` at entry.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct InfoPage {
    /// [`INFO_MAGIC`].
    pub magic: u64,
    /// [`ABI_VERSION`](crate::ABI_VERSION) of the monitor.
    pub abi_version: u32,
    /// Bytes of this structure that the monitor wrote.
    pub size: u32,
    /// vCPUs of this sliver, 1 to [`MAX_VCPUS`](crate::layout::MAX_VCPUS).
    pub vcpu_count: u32,
    /// Used entries of [`memory`](Self::memory).
    pub memory_count: u32,
    /// Used entries of [`devices`](Self::devices).
    pub device_count: u32,
    /// Arguments in [`args`](Self::args).
    pub arg_count: u32,
    /// Bits of [`cpu_feature`].
    pub cpu_features: u64,
    /// Vector state that is enabled, as in the register XCR0; at least 3 (x87 and SSE).
    pub xcr0: u64,
    /// From the first to past the last segment of the image.
    pub image: Range,
    /// Memory free for use; begins on a page boundary.
    pub heap: Range,
    /// The arguments: `arg_count` strings, UTF-8, each ended by a NUL.
    pub args: Range,
    /// Stack of vCPU 0; vCPU `n`'s begins `n * stack_stride` higher.
    pub stack: Range,
    /// Distance between two stacks: the stack and its guard page.
    pub stack_stride: u64,
    /// Address of the [`ClockRecord`](crate::clock::ClockRecord).
    pub clock: u64,
    /// Address of the [`QuotaPage`](crate::quota::QuotaPage).
    pub quota: u64,
    /// Address of the [control window](crate::control).
    pub control: u64,
    /// Name of this sliver, UTF-8, NUL-padded.
    pub sliver_name: [u8; NAME_BYTES],
    /// Name of the slice it belongs to, UTF-8, NUL-padded.
    pub slice_name: [u8; NAME_BYTES],
    /// The memory map.
    pub memory: [MemoryRange; MAX_MEMORY_RANGES],
    /// The device table.
    pub devices: [DeviceEntry; MAX_DEVICES],
    /// Used entries of [`nets`](Self::nets).
    pub net_count: u32,
    /// Must be ignored.
    pub reserved: u32,
    /// Addresses of network cards.
    pub nets: [NetConfig; MAX_NETS],
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<Range>() == 16);
    assert!(size_of::<MemoryRange>() == 24);
    assert!(offset_of!(InfoPage, abi_version) == 8);
    assert!(offset_of!(InfoPage, vcpu_count) == 16);
    assert!(offset_of!(InfoPage, cpu_features) == 32);
    assert!(offset_of!(InfoPage, image) == 48);
    assert!(offset_of!(InfoPage, stack_stride) == 112);
    assert!(offset_of!(InfoPage, sliver_name) == 144);
    assert!(offset_of!(InfoPage, memory) == 272);
    assert!(offset_of!(InfoPage, devices) == 752);
    assert!(size_of::<NetConfig>() == 88);
    assert!(offset_of!(InfoPage, nets) == 2552);
    assert!(MAX_MEMORY_RANGES >= crate::layout::MAX_SEGMENTS + 2);
    assert!(size_of::<InfoPage>() as u64 <= crate::layout::PAGE_SIZE);
};
