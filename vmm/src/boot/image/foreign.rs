//! Kernels that this machine cannot boot as they are, known by their first bytes: those for other
//! architectures, and those that are still compressed.

use object::elf::{
    EM_386, EM_AARCH64, EM_ARM, EM_LOONGARCH, EM_MIPS, EM_PPC64, EM_RISCV, EM_S390, EM_X86_64,
    Machine,
};

use crate::boot::legacy::KernelProblem;

/// How many bytes of a file are enough to know it.
pub(super) const ENOUGH: u64 = 1024;

/// Magic numbers of images for other architectures: where, what, for which.
const ARCHITECTURES: [(usize, &[u8], &str); 4] = [
    (0x38, b"ARM\x64", "arm64"),
    (0x38, b"RSC\x05", "RISC-V"),
    (0x24, b"\x18\x28\x6f\x01", "32-bit ARM"),
    (0x04, b"zimg", "another architecture (EFI zboot)"),
];

/// Magic numbers of compressed files, the names of the formats, and what undoes them.
const COMPRESSIONS: [(&[u8], &str, &str); 8] = [
    (b"\x1f\x8b", "gzip", "gzip -dc"),
    (b"\xfd7zXZ\0", "xz", "xz -dc"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstd -dc"),
    (b"BZh", "bzip2", "bzip2 -dc"),
    (b"\x04\x22\x4d\x18", "lz4", "lz4 -dc"),
    (b"\x02\x21\x4c\x18", "lz4", "lz4 -dc"),
    (b"\x5d\0\0", "lzma", "xz --format=lzma -dc"),
    (b"\x89LZO\0", "lzop", "lzop -dc"),
];

/// Why a file that begins with these bytes cannot be booted, if it is a kernel at all.
pub(super) fn recognise(start: &[u8]) -> Option<KernelProblem> {
    let architecture = |(at, magic, _): &&(usize, &[u8], &str)| {
        start
            .get(*at..)
            .is_some_and(|there| there.starts_with(magic))
    };
    if let Some((.., name)) = ARCHITECTURES.iter().find(architecture) {
        return Some(KernelProblem::OtherMachine((*name).to_owned()));
    }
    let (_, with, command) = COMPRESSIONS
        .iter()
        .find(|(magic, ..)| start.starts_with(magic))?;
    Some(KernelProblem::Compressed { with, command })
}

/// The name of an ELF machine, with its number.
pub(crate) fn machine_name(machine: u16) -> String {
    let name = match Machine(machine) {
        EM_386 => "32-bit x86",
        EM_X86_64 => "x86-64",
        EM_AARCH64 => "arm64",
        EM_ARM => "32-bit ARM",
        EM_RISCV => "RISC-V",
        EM_PPC64 => "64-bit PowerPC",
        EM_S390 => "s390",
        EM_MIPS => "MIPS",
        EM_LOONGARCH => "LoongArch",
        _ => "an unknown architecture",
    };
    format!("{name} (ELF machine {machine})")
}
