use proptest::prelude::*;

use super::*;
use crate::boot::image::{Found, find_out};
use crate::boot::legacy::testing::{ElfFile, bzimage, put};

const MIB: u64 = 1 << 20;

fn kernel(file: &[u8]) -> Kernel {
    match find_out(file, None) {
        Ok(Found::Kernel(kernel)) => *kernel,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_memory_map_tells_ram_and_leaves_out_what_is_taken() {
    let map = |memory| {
        memory_map(memory)
            .into_iter()
            .map(|(range, kind)| (range.start, range.end(), kind))
            .collect::<Vec<_>>()
    };
    use MemoryKind::{Ram, Reserved};
    let low = [(0, 0x9_fc00, Ram), (0x9_fc00, MIB, Reserved)];
    let kvm = (0xfeff_c000, 0xff00_0000, Reserved);
    assert_eq!(map(256 * MIB), [low[0], low[1], (MIB, 256 * MIB, Ram), kvm]);
    let high = (1 << 32, (1 << 32) + 1024 * MIB, Ram);
    assert_eq!(
        map(4096 * MIB),
        [low[0], low[1], (MIB, HOLE, Ram), kvm, high]
    );
}

#[test]
fn an_initrd_lies_as_high_as_the_kernel_allows() {
    let bz = kernel(&bzimage());
    let place = |memory| place_initrd(&bz, 5000, memory).unwrap().start;
    assert_eq!(place(64 * MIB), 64 * MIB - 0x2000);
    assert_eq!(place(4096 * MIB), 0x8000_0000 - 0x2000);
    let elf = kernel(&ElfFile::vmlinux().bytes());
    let start = place_initrd(&elf, 5000, 4096 * MIB).unwrap().start;
    assert_eq!(start, HOLE - 0x2000);
}

#[test]
fn what_does_not_fit_says_what_it_needs() {
    let bz = kernel(&bzimage());
    assert_eq!(least_memory_mib(&bz, 0), Ok(18));
    assert_eq!(least_memory_mib(&bz, 1), Ok(19));
    assert_eq!(least_memory_mib(&bz, 10 * MIB), Ok(28));
    let refused = |initrd_len, memory| {
        let refused = place_initrd(&bz, initrd_len, memory);
        refused.unwrap_err().to_string()
    };
    assert_eq!(
        refused(0, 17 * MIB),
        "memory of 17 MiB is too small for this kernel: at least 18 MiB are needed"
    );
    assert_eq!(
        refused(10 * MIB, 27 * MIB),
        "memory of 27 MiB is too small for this kernel and its initrd: at least 28 MiB are needed"
    );
    assert_eq!(
        refused(3 << 30, 64 << 30),
        "the initrd of 3072 MiB is too large: the kernel leaves room for 2030 MiB"
    );
}

#[test]
fn a_kernel_that_asks_for_everything_is_refused() {
    for (at, value) in [(0x258, u64::MAX), (0x258, HOLE), (0x260, 0xffff_ffff)] {
        let mut file = bzimage();
        put(&mut file, at, &value.to_le_bytes()[..4]);
        put(&mut file, 0x25c, &((value >> 32) as u32).to_le_bytes());
        if at == 0x260 {
            put(&mut file, 0x260, &u32::MAX.to_le_bytes());
        }
        let refused = place_initrd(&kernel(&file), 0, 64 << 30);
        assert!(
            matches!(refused, Err(DoesNotFit::KernelTooLarge { .. })),
            "{refused:?}"
        );
    }
}

proptest! {
    #[test]
    fn an_initrd_lies_in_ram_above_the_kernel_or_nowhere(
        initrd_len in prop_oneof![1..64 * MIB, 1..1u64 << 62],
        memory_mib in prop_oneof![1u64..64, 1..1u64 << 20],
        limit in any::<u32>(),
        preferred in prop_oneof![0..1u64 << 32, any::<u64>()],
        init_size in any::<u32>(),
        alignment in any::<u32>(),
    ) {
        let mut file = bzimage();
        put(&mut file, 0x22c, &limit.to_le_bytes());
        put(&mut file, 0x230, &alignment.to_le_bytes());
        put(&mut file, 0x258, &preferred.to_le_bytes());
        put(&mut file, 0x260, &init_size.to_le_bytes());
        let kernel = kernel(&file);
        let memory = memory_mib * MIB;
        match place_initrd(&kernel, initrd_len, memory) {
            Ok(range) => {
                prop_assert_eq!(range.start % PAGE_SIZE, 0);
                prop_assert_eq!(range.len, initrd_len);
                prop_assert!(range.start >= kernel.end());
                prop_assert!(range.end() <= memory.min(HOLE));
                prop_assert!(range.end() - 1 <= u64::from(limit));
            }
            Err(DoesNotFit::TooSmall { needed_mib, .. }) => {
                prop_assert!(needed_mib > memory_mib);
                prop_assert!(place_initrd(&kernel, initrd_len, needed_mib * MIB).is_ok());
            }
            Err(_) => {
                prop_assert!(place_initrd(&kernel, initrd_len, 1 << 44).is_err());
            }
        }
    }
}
