//! Linux's 64-bit boot protocol (Linux, Documentation/arch/x86/boot.rst): boot parameters, the seed
//! of the kernel's random numbers, and the page tables for the entry.

use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{
    LOADED_HIGH, SETUP_RNG_SEED, boot_e820_entry, boot_params, setup_header,
};
use slice_abi::info::Range;
use slice_abi::layout::{LARGE_PAGE_SIZE, PAGE_SIZE};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::LoadError;
use super::kernel::{Format, Kernel};
use super::place::{BOOT_PARAMS, COMMAND_LINE, KERNEL, PAGE_TABLES, SETUP_DATA, memory_map};

/// A boot loader without a number of its own.
const LOADER_OTHER: u8 = 0xff;

/// Random bytes that the kernel is given.
const SEED_BYTES: usize = 32;

/// What the boot parameters tell besides the kernel's own header.
pub(super) struct Told<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) memory: u64,
    pub(super) initrd: Option<Range>,
    pub(super) rsdp: Option<u64>,
}

/// Writes what the kernel is told, and the page tables.
pub(super) fn prepare(told: &Told<'_>, memory: &GuestMemoryMmap) -> Result<(), LoadError> {
    memory.write_slice(&seed()?, GuestAddress(SETUP_DATA))?;
    memory.write_slice(&page_tables(), GuestAddress(PAGE_TABLES))?;
    let params = BootParams::new(&params(told), GuestAddress(BOOT_PARAMS));
    LinuxBootConfigurator::write_bootparams(&params, memory)?;
    Ok(())
}

fn params(told: &Told<'_>) -> boot_params {
    let mut params = boot_params {
        acpi_rsdp_addr: told.rsdp.unwrap_or(0),
        hdr: match told.kernel.format() {
            Format::BzImage(image) => *image.header(),
            Format::Elf(_) => substitute_header(),
        },
        ..Default::default()
    };
    let map = memory_map(told.memory);
    for (entry, (range, kind)) in params.e820_table.iter_mut().zip(&map) {
        *entry = boot_e820_entry {
            addr: range.start,
            size: range.len,
            r#type: *kind as u32,
        };
    }
    params.e820_entries = map.len() as u8;
    params.hdr.type_of_loader = LOADER_OTHER;
    params.hdr.code32_start = KERNEL as u32;
    params.hdr.cmd_line_ptr = COMMAND_LINE as u32;
    params.hdr.setup_data = SETUP_DATA;
    // An initrd lies below the hole.
    if let Some(initrd) = told.initrd {
        params.hdr.ramdisk_image = initrd.start as u32;
        params.hdr.ramdisk_size = initrd.len as u32;
    }
    params
}

/// For a kernel that comes without a header: an ELF file.
fn substitute_header() -> setup_header {
    setup_header {
        boot_flag: 0xaa55,
        header: u32::from_le_bytes(*b"HdrS"),
        version: 0x20f,
        loadflags: LOADED_HIGH,
        kernel_alignment: 16 << 20,
        cmdline_size: 2047,
        ..Default::default()
    }
}

/// A `setup_data` of random bytes, the last of its list.
fn seed() -> Result<Vec<u8>, LoadError> {
    let mut data = Vec::new();
    data.extend(0u64.to_le_bytes());
    data.extend(SETUP_RNG_SEED.to_le_bytes());
    data.extend((SEED_BYTES as u32).to_le_bytes());
    data.extend(super::random::<SEED_BYTES>()?);
    Ok(data)
}

/// Page tables that map the first 4 GiB to themselves, in large pages: the top, one table of four
/// entries below it, and four of 512.
fn page_tables() -> Vec<u8> {
    const PRESENT_WRITABLE: u64 = 0b11;
    const LARGE: u64 = 1 << 7;
    const ENTRIES: u64 = PAGE_SIZE / 8;
    const GIB: u64 = 4;
    let table = |index: u64| PAGE_TABLES + index * PAGE_SIZE;
    let page = |used: Vec<u64>| {
        let mut entries = used;
        entries.resize(ENTRIES as usize, 0);
        entries
    };
    let top = page(vec![table(1) | PRESENT_WRITABLE]);
    let middle = page((0..GIB).map(|i| table(2 + i) | PRESENT_WRITABLE).collect());
    let leaves = (0..GIB * ENTRIES).map(|i| (i * LARGE_PAGE_SIZE) | LARGE | PRESENT_WRITABLE);
    let entries = top.into_iter().chain(middle).chain(leaves);
    entries.flat_map(|entry| entry.to_le_bytes()).collect()
}
