//! PVH (Xen, docs/misc/pvh.pandoc and xen/include/public/arch-x86/hvm/start_info.h): the start
//! info, its memory map, and the initrd as its only module.

use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::elf::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use slice_abi::info::Range;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::LoadError;
use super::place::{BOOT_PARAMS, COMMAND_LINE, memory_map};

/// Where the start info is.
const START_INFO: u64 = BOOT_PARAMS;

/// Where the list of modules is.
const MODULES: u64 = BOOT_PARAMS + 0x100;

/// Where the memory map is.
const MEMORY_MAP: u64 = BOOT_PARAMS + 0x200;

/// Writes the start info for `memory` bytes of RAM.
pub(super) fn prepare(
    memory: u64,
    initrd: Option<Range>,
    rsdp: Option<u64>,
    backend: &GuestMemoryMmap,
) -> Result<(), LoadError> {
    let map: Vec<hvm_memmap_table_entry> = memory_map(memory)
        .iter()
        .map(|(range, kind)| hvm_memmap_table_entry {
            addr: range.start,
            size: range.len,
            type_: *kind as u32,
            reserved: 0,
        })
        .collect();
    let modules = initrd.map(|initrd| hvm_modlist_entry {
        paddr: initrd.start,
        size: initrd.len,
        ..Default::default()
    });
    let info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: 1,
        nr_modules: u32::from(modules.is_some()),
        modlist_paddr: if modules.is_some() { MODULES } else { 0 },
        cmdline_paddr: COMMAND_LINE,
        rsdp_paddr: rsdp.unwrap_or(0),
        memmap_paddr: MEMORY_MAP,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    let mut params = BootParams::new(&info, GuestAddress(START_INFO));
    params.set_sections(&map, GuestAddress(MEMORY_MAP));
    if let Some(module) = modules {
        params.set_modules(&[module], GuestAddress(MODULES));
    }
    PvhBootConfigurator::write_bootparams(&params, backend)?;
    Ok(())
}
