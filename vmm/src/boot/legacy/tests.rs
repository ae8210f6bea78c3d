use std::cell::Cell;
use std::path::Path;

use linux_loader::loader::bootparam::boot_params;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::testing::{ElfFile, SETUP_LEN, bzimage, put, spec};
use super::*;
use crate::boot::image::Image;

const MIB: u64 = 1 << 20;

/// A kernel's file, its sliver's spec and memory.
struct Start {
    _dir: TempDir,
    file: ImageFile,
    kernel: Kernel,
    spec: SliverSpec,
    ram: GuestRam,
}

/// A sliver of 32 MiB with this kernel, and an initrd unless that is empty.
fn start(image: &[u8], initrd: &[u8], mut kernel: Value) -> Start {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let path = write("kernel", image);
    if !initrd.is_empty() {
        kernel["initrd"] = json!(write("initrd", initrd));
    }
    let spec = spec(&json!({ "memory_mib": 32, "vcpus": 2, "kernel": kernel }));
    let protocol = spec.kernel().map(KernelSpec::protocol);
    let image = Image::open(&path, protocol).unwrap();
    let kernel = image.kernel().unwrap().clone();
    Start {
        _dir: dir,
        file: image.into_parts().0,
        kernel,
        ram: GuestRam::new(&map::ram(spec.memory_bytes()), &[], 0).unwrap(),
        spec,
    }
}

impl Start {
    fn load_while(&self, go_on: &dyn Fn() -> bool) -> Result<Loaded, LoadError> {
        let plan = Plan::new(&self.kernel, &self.spec, open_initrd(&self.spec)?)?;
        let devices = [DeviceWindow {
            id: 2,
            base: map::DEVICES,
            interrupt: map::interrupt::device(0),
        }];
        let legacy = Legacy {
            kernel: &self.kernel,
            file: &self.file,
            spec: &self.spec,
            ram: &self.ram,
            devices: &devices,
        };
        legacy.load(&plan, go_on)
    }

    fn load(&self) -> Loaded {
        self.load_while(&|| true).unwrap()
    }

    fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let memory = self.ram.backend();
        memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    fn long(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.bytes(at, 8).try_into().unwrap())
    }

    fn word(&self, at: u64) -> u32 {
        self.long(at) as u32
    }

    fn params(&self) -> boot_params {
        let memory = self.ram.backend();
        memory.read_obj(GuestAddress(BOOT_PARAMS)).unwrap()
    }

    fn text(&self, at: u64) -> String {
        let bytes = self.bytes(at, 256);
        let text = bytes.split(|byte| *byte == 0).next().unwrap();
        String::from_utf8(text.to_vec()).unwrap()
    }

    /// Where these page tables map an address to.
    fn translate(&self, root: u64, address: u64) -> Option<u64> {
        const FRAME: u64 = 0x000f_ffff_ffff_f000;
        let mut table = root;
        for shift in [39, 30, 21] {
            let entry = self.long(table + (address >> shift & 511) * 8);
            if entry & 1 == 0 {
                return None;
            }
            if entry & 1 << 7 != 0 {
                return Some((entry & FRAME) + (address & ((1 << shift) - 1)));
            }
            table = entry & FRAME;
        }
        None
    }
}

#[test]
fn a_bzimage_is_loaded_with_all_that_linux_is_told() {
    let (image, initrd) = (bzimage(), vec![7; 5000]);
    let start = start(&image, &initrd, json!({ "append": "quiet" }));
    let loaded = start.load();
    assert_eq!(start.bytes(KERNEL, 0x1000), image[SETUP_LEN..]);
    let params = start.params();
    let header = params.hdr;
    assert_eq!({ header.ramdisk_image }, (32 * MIB - 0x2000) as u32);
    assert_eq!({ header.ramdisk_size }, 5000);
    assert_eq!(start.bytes(u64::from(header.ramdisk_image), 5000), initrd);
    assert_eq!({ header.code32_start }, KERNEL as u32);
    assert_eq!({ header.init_size }, 2 << 20);
    assert_eq!({ header.version }, 0x20f);
    let line = start.text(u64::from(header.cmd_line_ptr));
    assert_eq!(line, "console=ttyS0 panic=-1 reboot=acpi quiet");
    assert_eq!(params.e820_entries, 4);
    let last_ram = params.e820_table[2];
    let (addr, size) = (last_ram.addr, last_ram.size);
    assert_eq!((addr, addr + size), (MIB, 32 * MIB));
    assert_eq!(start.bytes(params.acpi_rsdp_addr, 8), b"RSD PTR ");
    assert_eq!(loaded.entry.rip, KERNEL + 0x200);
    assert_eq!(loaded.entry.rsi, BOOT_PARAMS);
}

#[test]
fn what_follows_the_boot_header_in_the_file_is_not_taken_for_it() {
    let mut image = bzimage();
    image[0x201] = 0x62; // The header ends before the offset of the kernel's info.
    put(&mut image, 0x264, &[0xff; 8]);
    let start = start(&image, b"", json!({}));
    start.load();
    assert_eq!({ start.params().hdr.handover_offset }, 0);
}

#[test]
fn the_entry_into_linux_has_the_segments_and_mappings_that_it_demands() {
    let start = start(&ElfFile::vmlinux().bytes(), b"", json!({}));
    let entry = start.load().entry;
    assert_eq!(entry.rip, KERNEL + 0x40);
    let Mode::Long { page_tables, gdt } = entry.mode else {
        panic!("Linux is entered in 64-bit mode");
    };
    for address in [0, 0x7123, KERNEL, 3 << 30, (4 << 30) - 1] {
        assert_eq!(start.translate(page_tables, address), Some(address));
    }
    assert_eq!(start.translate(page_tables, 4 << 30), None);
    assert_eq!(start.long(gdt.0 + u64::from(CODE)), 0x00af_9b00_0000_ffff);
    assert_eq!(start.long(gdt.0 + u64::from(DATA)), 0x00cf_9300_0000_ffff);
    assert!(u64::from(gdt.1) >= u64::from(TASK) + 7);
}

#[test]
fn an_elf_file_s_segments_are_where_it_says_and_its_header_is_made() {
    let start = start(&ElfFile::vmlinux().bytes(), b"", json!({ "acpi": false }));
    start.load();
    assert_eq!(start.bytes(KERNEL, 0x1000), [0xa0; 0x1000]);
    assert_eq!(start.bytes(KERNEL + 0x1000, 0x1000), [0; 0x1000]);
    assert_eq!(start.bytes(4 * MIB, 0x2000), [0xa1; 0x2000]);
    let params = start.params();
    assert_eq!(params.hdr.header.to_le_bytes(), *b"HdrS");
    assert_eq!({ params.hdr.boot_flag }, 0xaa55);
    assert_eq!({ params.acpi_rsdp_addr }, 0);
    assert_eq!({ params.hdr.ramdisk_size }, 0);
    let line = start.text(COMMAND_LINE);
    assert!(line.ends_with("virtio_mmio.device=4K@0xd0000000:5"));
}

#[test]
fn a_kernel_of_either_width_is_told_all_through_pvh() {
    let wide = ElfFile {
        pvh: Some(KERNEL as u32 + 0x10),
        ..ElfFile::vmlinux()
    };
    for image in [wide, ElfFile::small()] {
        let start = start(&image.bytes(), &[9; 100], json!({}));
        let loaded = start.load();
        assert_eq!(start.bytes(KERNEL, 0x1000), [0xa0; 0x1000]);
        assert_eq!(loaded.entry.rip, KERNEL + 0x10);
        let Mode::Protected { gdt } = loaded.entry.mode else {
            panic!("PVH is entered in 32-bit mode");
        };
        assert_eq!(start.long(gdt.0 + u64::from(CODE)), 0x00cf_9b00_0000_ffff);
        let info = loaded.entry.rbx;
        assert_eq!(start.word(info), 0x336e_c578);
        assert_eq!((start.word(info + 4), start.word(info + 12)), (1, 1));
        let module = start.long(info + 16);
        assert_eq!(start.bytes(start.long(module), 100), [9; 100]);
        assert_eq!(start.long(module + 8), 100);
        assert_eq!(
            start.text(start.long(info + 24)),
            "console=ttyS0 panic=-1 reboot=acpi"
        );
        assert_eq!(start.bytes(start.long(info + 32), 8), b"RSD PTR ");
        let (table, entries) = (start.long(info + 40), start.word(info + 48));
        assert_eq!(entries, 4);
        assert_eq!(start.long(table + 2 * 24), MIB);
        assert_eq!(start.word(table + 2 * 24 + 16), 1);
    }
}

#[test]
fn every_start_has_a_seed_and_a_generation_of_its_own() {
    let start = start(&bzimage(), b"", json!({}));
    let random = || {
        let loaded = start.load();
        let data = start.params().hdr.setup_data;
        assert_eq!(start.long(data), 0, "the last of the list");
        assert_eq!((start.word(data + 8), start.word(data + 12)), (9, 32));
        (
            start.bytes(data + 16, 32),
            start.bytes(loaded.generation_id, 16),
        )
    };
    let (first, second) = (random(), random());
    assert_ne!(first.0, second.0);
    assert_ne!(first.1, second.1);
}

#[test]
fn a_start_that_is_given_up_reads_no_further() {
    let start = start(&bzimage(), &vec![1; 3 * MIB as usize], json!({}));
    let pieces = Cell::new(0);
    let go_on = || {
        pieces.set(pieces.get() + 1);
        pieces.get() < 3
    };
    assert!(matches!(start.load_while(&go_on), Err(LoadError::GivenUp)));
    assert_eq!(pieces.get(), 3);
}

#[test]
fn files_of_many_pieces_arrive_whole() {
    let mut image = bzimage();
    let len = 3 * MIB as usize + 0x120;
    put(&mut image, 0x1f4, &(len as u32 / 16).to_le_bytes());
    image.resize(SETUP_LEN + len, 3);
    let pattern = |len: usize| (0..len).map(|i| (i / 7) as u8).collect::<Vec<_>>();
    image[SETUP_LEN..].copy_from_slice(&pattern(len));
    let initrd = pattern(5 * MIB as usize + 1);
    let start = start(&image, &initrd, json!({}));
    start.load();
    assert!(start.bytes(KERNEL, len) == pattern(len));
    let at = u64::from(start.params().hdr.ramdisk_image);
    assert!(start.bytes(at, initrd.len()) == initrd);
}

#[test]
fn a_file_that_shrinks_while_it_is_loaded_is_told() {
    for (name, what) in [("kernel", "the kernel"), ("initrd", "initrd")] {
        let start = start(&bzimage(), &[1; 100], json!({}));
        let path = start._dir.path().join(name);
        let shrink = || {
            std::fs::write(&path, b"x").unwrap();
            true
        };
        let told = start.load_while(&shrink).unwrap_err().to_string();
        assert!(told.contains(what) && told.contains("shorter"), "{told}");
    }
}

#[test]
fn a_bad_initrd_is_refused_before_anything_is_loaded() {
    let refused = |path: &Path| {
        let start = start(&bzimage(), b"", json!({ "initrd": path }));
        start.load_while(&|| true).unwrap_err().to_string()
    };
    assert!(refused(Path::new("/")).contains("a directory, not a regular file"));
    assert!(refused(Path::new("/absent")).contains("cannot open initrd /absent: "));
    let empty = tempfile::NamedTempFile::new().unwrap();
    assert!(refused(empty.path()).contains("is empty"));
    let large = tempfile::NamedTempFile::new().unwrap();
    large.as_file().set_len(20 * MIB).unwrap();
    assert_eq!(
        refused(large.path()),
        "memory of 32 MiB is too small for this kernel and its initrd: at least 38 MiB are needed"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_mutated_kernel_is_refused_or_loaded_into_its_own_memory(
        wide in any::<bool>(),
        is_elf in any::<bool>(),
        changes in prop::collection::vec((0usize..0x300, any::<u8>()), 0..6),
        initrd in 0usize..3000,
    ) {
        let mut image = match (is_elf, wide) {
            (true, true) => ElfFile::vmlinux().bytes(),
            (true, false) => ElfFile::small().bytes(),
            (false, _) => bzimage(),
        };
        for (at, byte) in changes {
            image[at] = byte;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kernel");
        std::fs::write(&path, &image).unwrap();
        let Ok(opened) = Image::open(&path, None) else { return Ok(()) };
        let Some(kernel) = opened.kernel().cloned() else { return Ok(()) };
        let initrd = vec![5; initrd];
        let start = Start { kernel, ..start(&bzimage(), &initrd, json!({})) };
        let start = Start { file: opened.into_parts().0, ..start };
        let Ok(loaded) = start.load_while(&|| true) else { return Ok(()) };
        prop_assert!(loaded.entry.rip >= KERNEL && loaded.entry.rip < 32 * MIB);
        // What the kernel is told was not overwritten by it, nor its initrd.
        prop_assert!(start.text(COMMAND_LINE).starts_with("console=ttyS0"));
        prop_assert_eq!(start.bytes(place::ACPI, 8), b"RSD PTR ");
        if let Some(range) = Plan::new(&start.kernel, &start.spec, open_initrd(&start.spec).unwrap()).unwrap().range() {
            prop_assert_eq!(start.bytes(range.start, range.len as usize), initrd);
        }
    }
}
