use proptest::prelude::*;

use super::*;
use crate::boot::legacy::map::HOLE;
use crate::boot::legacy::testing::{ElfFile, SETUP_LEN, bzimage, put};

fn read_bzimage(file: &[u8]) -> Result<Kernel, KernelProblem> {
    Kernel::from_bzimage(file, Protocol::Auto).expect("memory can be read")
}

fn read_elf(file: &ElfFile, protocol: Protocol) -> Result<Kernel, KernelProblem> {
    let headers = Headers::read(file.bytes().as_slice()).expect("memory can be read")?;
    Kernel::from_elf(&headers, protocol)
}

fn spoiled(spoil: impl FnOnce(&mut Vec<u8>)) -> KernelProblem {
    let mut file = bzimage();
    spoil(&mut file);
    read_bzimage(&file).expect_err("it is spoiled")
}

#[test]
fn a_bzimage_tells_what_it_is() {
    let kernel = read_bzimage(&bzimage()).unwrap();
    assert_eq!(kernel.format_name(), "bzImage");
    assert_eq!(kernel.boot_protocol(), Some((2, 15)));
    assert_eq!(kernel.version(), Some("6.1.0-test"));
    assert_eq!(kernel.entrance(), Entrance::Linux(KERNEL + 0x200));
    assert_eq!(kernel.end(), 18 << 20);
    assert_eq!(kernel.command_line_limit(), 2047);
    assert_eq!(kernel.initrd_limit(), 0x7fff_ffff);
    assert_eq!(kernel.pvh_entry(), None);
}

#[test]
fn what_is_behind_the_kernel_is_not_loaded() {
    let mut file = bzimage();
    let len = file.len() as u64;
    file.extend([0; 777]);
    let Format::BzImage(image) = &read_bzimage(&file).unwrap().format else {
        panic!("it is a bzImage");
    };
    assert_eq!(image.len(), len);
}

#[test]
fn the_last_unit_of_a_kernel_need_not_be_whole() {
    let mut file = bzimage();
    file.truncate(file.len() - 15);
    assert!(read_bzimage(&file).is_ok());
    file.pop();
    let needed = (SETUP_LEN + 0x1000 - 15) as u64;
    let problem = KernelProblem::Truncated {
        what: "the kernel".to_owned(),
        needed,
        len: needed - 1,
    };
    assert_eq!(read_bzimage(&file), Err(problem));
}

#[test]
fn a_bzimage_that_cannot_be_entered_is_refused() {
    assert_eq!(
        spoiled(|f| put(f, 0x206, &[0x0b, 2])).to_string(),
        "it speaks version 2.11 of Linux's boot protocol: 2.12 (Linux 3.8) is the oldest that is \
         booted"
    );
    assert_eq!(spoiled(|f| f[0x236] = 0b10), KernelProblem::Only32Bit);
    assert_eq!(spoiled(|f| f[0x211] = 0), KernelProblem::ZImage);
    let cut = |len| spoiled(|f| f.truncate(len)).to_string();
    assert!(cut(0x210).contains("the boot header needs bytes up to 620"));
    assert!(cut(SETUP_LEN).contains("truncated: the kernel"));
    let through_pvh = Kernel::from_bzimage(bzimage().as_slice(), Protocol::Pvh).unwrap();
    assert_eq!(through_pvh, Err(KernelProblem::BzImageThroughPvh));
}

#[test]
fn a_version_that_is_no_text_is_not_told() {
    for spoil in [
        |f: &mut Vec<u8>| put(f, 0x20e, &0xffffu16.to_le_bytes()),
        |f: &mut Vec<u8>| put(f, 0x20e, &0u16.to_le_bytes()),
        |f: &mut Vec<u8>| f[0x282] = 0x1b,
        |f: &mut Vec<u8>| f[0x280] = 0,
    ] {
        let mut file = bzimage();
        spoil(&mut file);
        assert_eq!(read_bzimage(&file).unwrap().version(), None);
    }
}

#[test]
fn a_vmlinux_is_entered_as_linux_unless_it_has_pvh() {
    let mut file = ElfFile::vmlinux();
    let kernel = read_elf(&file, Protocol::Auto).unwrap();
    assert_eq!(kernel.entrance(), Entrance::Linux(KERNEL + 0x40));
    assert_eq!(kernel.end(), (4 << 20) + 0x4000);
    assert_eq!(
        read_elf(&file, Protocol::Pvh),
        Err(KernelProblem::NoPvhNote)
    );
    file.pvh = Some(KERNEL as u32 + 0x80);
    let kernel = |protocol| read_elf(&file, protocol).unwrap().entrance();
    let pvh = Entrance::Pvh(KERNEL as u32 + 0x80);
    assert_eq!(kernel(Protocol::Auto), pvh);
    assert_eq!(kernel(Protocol::Pvh), pvh);
    assert_eq!(kernel(Protocol::Linux), Entrance::Linux(KERNEL + 0x40));
}

#[test]
fn an_entry_that_is_told_as_it_will_be_is_where_it_is_now() {
    let mut file = ElfFile::vmlinux();
    file.entry = 0xffff_ffff_8040_0123;
    let kernel = read_elf(&file, Protocol::Auto).unwrap();
    assert_eq!(kernel.entrance(), Entrance::Linux((4 << 20) + 0x123));
    file.entry = 0xffff_ffff_8000_0000;
    assert_eq!(
        read_elf(&file, Protocol::Auto),
        Err(KernelProblem::EntryOutside(file.entry))
    );
}

#[test]
fn a_32_bit_kernel_is_entered_through_pvh_only() {
    let file = ElfFile::small();
    let kernel = read_elf(&file, Protocol::Auto).unwrap();
    assert_eq!(kernel.entrance(), Entrance::Pvh(KERNEL as u32 + 0x10));
    assert_eq!(kernel.format_name(), "32-bit ELF");
    assert_eq!(
        read_elf(&file, Protocol::Linux),
        Err(KernelProblem::Elf32ThroughLinux)
    );
}

#[test]
fn an_elf_file_that_cannot_be_loaded_is_refused() {
    let refused = |spoil: fn(&mut ElfFile)| {
        let mut file = ElfFile::vmlinux();
        spoil(&mut file);
        read_elf(&file, Protocol::Auto).unwrap_err().to_string()
    };
    assert_eq!(
        refused(|f| f.machine = 183),
        "it is for arm64 (ELF machine 183), not x86-64"
    );
    assert!(refused(|f| f.segments[0].0 = 0xf_f000).contains("a kernel's place is from 0x100000"));
    assert!(refused(|f| f.segments[0].0 = HOLE).contains("segment 0"));
    assert!(refused(|f| f.segments[1].0 = u64::MAX).contains("segment 1"));
    assert_eq!(
        refused(|f| f.segments[1].0 = KERNEL + 0x1fff),
        "segments 0 and 1 overlap in memory"
    );
    assert!(refused(|f| f.segments.clear()).contains("program headers"));
    assert!(refused(|f| f.pvh = Some(7)).contains("entry point 0x7"));
}

#[test]
fn a_truncated_elf_file_says_what_is_missing() {
    let file = ElfFile::vmlinux().bytes();
    for (len, what) in [
        (60, "the ELF header"),
        (100, "the program header table"),
        (0x1001, "segment 0"),
        (0x2fff, "segment 1"),
    ] {
        let headers = Headers::read(&file[..len]).unwrap();
        let problem = headers.and_then(|headers| Kernel::from_elf(&headers, Protocol::Auto));
        let told = problem.unwrap_err().to_string();
        assert!(told.contains(what), "{len}: {told}");
    }
}

proptest! {
    #[test]
    fn a_mutated_kernel_is_refused_or_keeps_every_promise(
        kind in 0..3,
        changes in prop::collection::vec((0usize..0x400, any::<u8>()), 1..12),
        cut in prop::option::of(0usize..0x1400),
        protocol in prop::sample::select(vec![Protocol::Auto, Protocol::Linux, Protocol::Pvh]),
    ) {
        let mut file = match kind {
            0 => bzimage(),
            1 => ElfFile { pvh: Some(KERNEL as u32), ..ElfFile::vmlinux() }.bytes(),
            _ => ElfFile::small().bytes(),
        };
        for (at, byte) in changes {
            let at = if kind > 0 && at >= 0x300 { at + 0x500 } else { at };
            file[at] = byte;
        }
        if let Some(cut) = cut {
            file.truncate(cut);
        }
        let found = crate::boot::image::find_out(file.as_slice(), Some(protocol)).unwrap();
        let crate::boot::image::Found::Kernel(kernel) = found else {
            return Ok(());
        };
        match kernel.entrance() {
            Entrance::Linux(entry) => prop_assert!(entry >= KERNEL && entry < kernel.end()),
            Entrance::Pvh(entry) => {
                prop_assert!(u64::from(entry) >= KERNEL && u64::from(entry) < kernel.end());
            }
        }
        match kernel.format() {
            Format::BzImage(image) => prop_assert!(image.len() <= file.len() as u64),
            Format::Elf(elf) => for segment in &elf.segments {
                prop_assert!(segment.file_offset + segment.file_len <= file.len() as u64);
                prop_assert!(segment.file_len <= segment.memory_len);
                prop_assert!(segment.address >= KERNEL);
                prop_assert!(segment.address + segment.memory_len <= kernel.end());
            }
        }
    }
}
