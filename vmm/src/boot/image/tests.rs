use super::*;
use crate::boot::legacy::testing::{ElfFile, bzimage};
use crate::boot::legacy::{Entrance, KernelProblem};

fn look(file: &[u8], protocol: Option<Protocol>) -> Found {
    find_out(file, protocol).expect("memory can be read")
}

fn broken(file: &[u8]) -> String {
    match look(file, None) {
        Found::BrokenKernel(problem) => problem.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn kernels_are_known_without_being_told() {
    for file in [
        bzimage(),
        ElfFile::vmlinux().bytes(),
        ElfFile::small().bytes(),
    ] {
        assert!(matches!(look(&file, None), Found::Kernel(_)));
        assert!(matches!(
            look(&file, Some(Protocol::Auto)),
            Found::Kernel(_)
        ));
    }
}

#[test]
fn an_ordinary_program_is_a_kernel_only_if_somebody_says_so() {
    let mut file = ElfFile::vmlinux();
    file.segments = vec![(0x40_0000, 0x40_0000, 0x2000)];
    file.entry = 0x40_0000;
    let file = file.bytes();
    let Found::Native(examination) = look(&file, None) else {
        panic!("nothing says that it is a kernel");
    };
    let told = examination.into_image().expect_err("it has no note");
    let told = list(&told);
    assert!(
        told.contains("slice note") && told.contains("protocol"),
        "{told}"
    );
    let Found::Kernel(kernel) = look(&file, Some(Protocol::Linux)) else {
        panic!("it is said to be a kernel");
    };
    assert_eq!(kernel.entrance(), Entrance::Linux(0x40_0000));
    assert_eq!(
        look(&file, Some(Protocol::Pvh)),
        Found::BrokenKernel(KernelProblem::NoPvhNote)
    );
}

#[test]
fn a_kernel_that_cannot_be_booted_is_no_bad_native_image() {
    let vmlinux = ElfFile::vmlinux().bytes();
    assert!(broken(&vmlinux[..0x2fff]).contains("truncated: segment 1"));
    assert!(broken(&bzimage()[..0x1000]).contains("truncated: the kernel"));
}

#[test]
fn kernels_for_other_machines_are_named() {
    let with = |at: usize, magic: &[u8]| {
        let mut file = vec![0; 4096];
        file[at..at + magic.len()].copy_from_slice(magic);
        broken(&file)
    };
    assert_eq!(with(0x38, b"ARM\x64"), "it is for arm64, not x86-64");
    assert_eq!(with(0x38, b"RSC\x05"), "it is for RISC-V, not x86-64");
    assert!(with(0x24, &0x016f_2818u32.to_le_bytes()).contains("32-bit ARM"));
}

#[test]
fn compressed_kernels_are_told_how_to_decompress() {
    for (magic, with, command) in [
        (&b"\x1f\x8b\x08"[..], "gzip", "gzip -dc"),
        (b"\xfd7zXZ\0\0", "xz", "xz -dc"),
        (b"\x28\xb5\x2f\xfd\0", "zstd", "zstd -dc"),
        (b"BZh9", "bzip2", "bzip2 -dc"),
        (b"\x04\x22\x4d\x18\0", "lz4", "lz4 -dc"),
        (b"\x02\x21\x4c\x18\0", "lz4", "lz4 -dc"),
        (b"\x5d\0\0\x80", "lzma", "xz --format=lzma -dc"),
        (b"\x89LZO\0\r", "lzop", "lzop -dc"),
    ] {
        let told = broken(magic);
        assert_eq!(
            told,
            format!("it is compressed with {with}: decompress it first, with `{command}`")
        );
    }
}

#[test]
fn an_empty_file_and_a_short_one_are_nothing_that_is_known() {
    for file in [&b""[..], b"\x7fEL", b"\x7fELF", b"MZ"] {
        assert!(matches!(look(file, None), Found::Native(_)), "{file:?}");
    }
}
