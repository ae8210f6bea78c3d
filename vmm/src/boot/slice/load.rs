//! Puts a native image and everything the ABI promises it into memory.

use std::io;

use slice_abi::ABI_VERSION;
use slice_abi::control::CONTROL_WINDOW_SIZE;
use slice_abi::device::{DeviceEntry, DeviceState};
use slice_abi::info::{
    INFO_MAGIC, InfoPage, MAX_DEVICES, MAX_MEMORY_RANGES, MAX_NETS, MemoryRange, NAME_BYTES,
    NetConfig, Range, access, memory_kind,
};
use slice_abi::layout::PAGE_SIZE;
use slice_abi::vcpu::VcpuBlock;

use super::elf::NativeImage;
use super::layout::{Layout, low};
use super::paging::{PageTables, Protection};
use super::platform;
use crate::boot::image::{ImageFile, ReadAt};
use crate::kvm::cpuid::Processor;
use crate::kvm::mapping::MapError;
use crate::kvm::memory::GuestRam;
use crate::kvm::system::{SystemArea, offset};
use crate::kvm::vcpu::Entry;
use crate::spec::SliverSpec;

/// The image could not be read into memory.
#[derive(Debug, thiserror::Error)]
#[error("cannot load segment {index} of the image: {source}")]
pub struct LoadError {
    index: usize,
    source: io::Error,
}

/// Copies the segments of the image into RAM.
///
/// `go_on` is asked between pieces: a start may be given up while a large image loads.
pub fn load_segments(
    image: &NativeImage,
    file: &ImageFile,
    ram: &GuestRam,
    go_on: impl Fn() -> bool,
) -> Result<(), LoadError> {
    const CHUNK: usize = 256 << 10;
    let mut buffer = Vec::new();
    for (index, segment) in image.segments().iter().enumerate() {
        let error = |source| LoadError { index, source };
        let mut done = 0;
        while done < segment.file_len {
            if !go_on() {
                return Err(error(io::ErrorKind::Interrupted.into()));
            }
            let len = (segment.file_len - done).min(CHUNK as u64) as usize;
            buffer.resize(len, 0);
            file.read_exact_at(&mut buffer, segment.file_offset + done)
                .map_err(error)?;
            ram.write_any(&buffer, segment.address + done)
                .map_err(|e| error(io::Error::other(e)))?;
            done += len as u64;
        }
    }
    Ok(())
}

/// Where devices may write: from the image's first writable segment on.
pub fn writable_from(image: &NativeImage) -> u64 {
    let writable = image
        .segments()
        .iter()
        .find(|s| s.access & access::WRITE != 0);
    writable.map_or(image.pages().1, |s| s.pages().0)
}

/// What the guest is told of its devices.
#[derive(Debug, Clone, Default)]
pub struct DeviceTable {
    /// The devices, at most [`MAX_DEVICES`].
    pub entries: Vec<DeviceEntry>,
    /// Addresses of network cards, at most [`MAX_NETS`].
    pub nets: Vec<NetConfig>,
}

/// Makes the system area: the supervisor's structures, the page tables, and room for what the
/// guest may read (see [`write_info`]).
pub fn system_area(
    image: &NativeImage,
    layout: &Layout,
    devices: usize,
) -> Result<SystemArea, MapError> {
    let tables = page_tables(image, layout, devices);
    let tables_offset = tables_offset(layout);
    let pages = (tables_offset / PAGE_SIZE) as usize + tables.pages().len();
    let area = SystemArea::new(pages)?;
    area.write(offset::TABLES, &platform::tables_page());
    area.write(offset::STUBS, &platform::stubs_page());
    for index in 0..layout.vcpus() {
        area.write(
            offset::VCPU + index as u64 * PAGE_SIZE,
            &platform::task_state(index),
        );
    }
    for (i, table) in tables.pages().iter().enumerate() {
        let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        area.write(tables_offset + i as u64 * PAGE_SIZE, &bytes);
    }
    Ok(area)
}

/// Writes the info page and the arguments, now that everything they tell is known.
pub fn write_info(
    area: &SystemArea,
    spec: &SliverSpec,
    image: &NativeImage,
    layout: &Layout,
    processor: &Processor,
    devices: &DeviceTable,
) {
    let info = info_page(spec, image, layout, processor, devices);
    area.write(offset::INFO, &encode_info(&info));
    let args: Vec<u8> = spec
        .args()
        .iter()
        .flat_map(|arg| arg.bytes().chain(std::iter::once(0)))
        .collect();
    area.write(offset::ARGS, &args);
}

/// The state in which vCPU `index` starts; also writes the block at the top of its stack.
pub fn prepare_vcpu(
    index: usize,
    image: &NativeImage,
    layout: &Layout,
    ram: &GuestRam,
) -> io::Result<Entry> {
    let block = vcpu_block(layout, index);
    let words = [block.this, block.index, block.stack_low, block.stack_top];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    ram.write_any(&bytes, block.this)
        .map_err(io::Error::other)?;
    Ok(Entry {
        rip: image.entry(),
        rsp: block.stack_top,
        rdi: low::INFO,
        rsi: index as u64,
        fs_base: block.this,
        page_tables: layout.system_base() + tables_offset(layout),
    })
}

/// The block of vCPU `index` as it is before it starts.
pub fn vcpu_block(layout: &Layout, index: usize) -> VcpuBlock {
    let stack = layout.stack(index);
    let this = stack.end() - size_of::<VcpuBlock>() as u64;
    VcpuBlock {
        this,
        index: index as u64,
        stack_low: stack.start,
        stack_top: this,
        ..Default::default()
    }
}

fn tables_offset(layout: &Layout) -> u64 {
    offset::VCPU + layout.vcpus() as u64 * PAGE_SIZE
}

fn page_tables(image: &NativeImage, layout: &Layout, devices: usize) -> PageTables {
    let base = layout.system_base();
    let mut tables = PageTables::new(base + tables_offset(layout));
    for (virt, offset, protection) in [
        (low::INFO, offset::INFO, Protection::USER_READ),
        (low::ARGS, offset::ARGS, Protection::USER_READ),
        (low::QUOTA, offset::QUOTA, Protection::USER_READ),
        (low::CLOCK, offset::CLOCK, Protection::USER_READ),
        (low::STATES, offset::STATES, Protection::USER_READ),
        (low::TABLES, offset::TABLES, Protection::SUPERVISOR_READ),
        (low::STUBS, offset::STUBS, Protection::SUPERVISOR_EXECUTE),
    ] {
        tables.map(virt, base + offset, protection);
    }
    for index in 0..layout.vcpus() {
        let offset = offset::VCPU + index as u64 * PAGE_SIZE;
        tables.map(
            platform::vcpu_page(index),
            base + offset,
            Protection::SUPERVISOR_WRITE,
        );
    }
    tables.map(low::FAULT, low::FAULT, Protection::SUPERVISOR_WINDOW);
    tables.map(low::CONTROL, low::CONTROL, Protection::USER_WINDOW);
    for index in 0..devices {
        let window = device_window(index);
        tables.map(window, window, Protection::USER_WINDOW);
    }
    for segment in image.segments() {
        let protection = match segment.access {
            bits if bits & access::EXECUTE != 0 => Protection::USER_EXECUTE,
            bits if bits & access::WRITE != 0 => Protection::USER_WRITE,
            _ => Protection::USER_READ,
        };
        let (start, end) = segment.pages();
        tables.map_same(start, end, (0, 0), protection);
    }
    for index in 0..layout.vcpus() {
        let stack = layout.stack(index);
        tables.map_same(stack.start, stack.end(), (0, 0), Protection::USER_WRITE);
    }
    let (heap, large) = (layout.heap(), layout.large_pages());
    tables.map_same(
        heap.start,
        heap.end(),
        (large.start, large.end()),
        Protection::USER_WRITE,
    );
    tables
}

/// Address at which the guest finds the state of device `index`.
pub fn device_state(index: usize) -> u64 {
    low::STATES + (index * size_of::<DeviceState>()) as u64
}

/// Address of the window of device `index`.
pub fn device_window(index: usize) -> u64 {
    low::DEVICES + index as u64 * PAGE_SIZE
}

fn info_page(
    spec: &SliverSpec,
    image: &NativeImage,
    layout: &Layout,
    processor: &Processor,
    devices: &DeviceTable,
) -> InfoPage {
    let DeviceTable { entries, nets } = devices;
    let mut memory = [MemoryRange::default(); MAX_MEMORY_RANGES];
    let segments = image.segments();
    for (entry, segment) in memory.iter_mut().zip(segments) {
        let (start, end) = segment.pages();
        let range = Range {
            start,
            len: end - start,
        };
        *entry = MemoryRange {
            range,
            kind: memory_kind::IMAGE,
            access: segment.access,
        };
    }
    let read_write = access::READ | access::WRITE;
    for (i, (range, kind)) in [
        (layout.stacks(), memory_kind::STACK),
        (layout.heap(), memory_kind::HEAP),
    ]
    .into_iter()
    .enumerate()
    {
        memory[segments.len() + i] = MemoryRange {
            range,
            kind,
            access: read_write,
        };
    }
    let mut table = [DeviceEntry::default(); MAX_DEVICES];
    table[..entries.len()].copy_from_slice(entries);
    let mut addresses = [NetConfig::default(); MAX_NETS];
    addresses[..nets.len()].copy_from_slice(nets);
    let args_len: usize = spec.args().iter().map(|arg| arg.len() + 1).sum();
    InfoPage {
        magic: INFO_MAGIC,
        abi_version: ABI_VERSION,
        size: size_of::<InfoPage>() as u32,
        vcpu_count: layout.vcpus() as u32,
        memory_count: segments.len() as u32 + 2,
        device_count: entries.len() as u32,
        arg_count: spec.args().len() as u32,
        cpu_features: processor.features(),
        xcr0: processor.xcr0(),
        image: layout.image(),
        heap: layout.heap(),
        args: Range {
            start: low::ARGS,
            len: args_len as u64,
        },
        stack: layout.stack(0),
        stack_stride: layout.stack_stride(),
        clock: low::CLOCK,
        quota: low::QUOTA,
        control: low::CONTROL,
        sliver_name: padded(spec.name()),
        slice_name: padded(spec.slice()),
        memory,
        devices: table,
        net_count: nets.len() as u32,
        reserved: 0,
        nets: addresses,
    }
}

/// A name in a field of fixed size; the spec has checked that it fits.
fn padded(name: &str) -> [u8; NAME_BYTES] {
    let mut field = [0; NAME_BYTES];
    let len = name.len().min(NAME_BYTES - 1);
    field[..len].copy_from_slice(&name.as_bytes()[..len]);
    field
}

/// The info page as bytes, field by field in the order of its declaration.
fn encode_info(info: &InfoPage) -> Vec<u8> {
    let mut out = Encoder(Vec::with_capacity(size_of::<InfoPage>()));
    out.u64(info.magic);
    for word in [
        info.abi_version,
        info.size,
        info.vcpu_count,
        info.memory_count,
        info.device_count,
        info.arg_count,
    ] {
        out.u32(word);
    }
    out.u64(info.cpu_features);
    out.u64(info.xcr0);
    for range in [info.image, info.heap, info.args, info.stack] {
        out.range(range);
    }
    for word in [info.stack_stride, info.clock, info.quota, info.control] {
        out.u64(word);
    }
    out.0.extend(info.sliver_name);
    out.0.extend(info.slice_name);
    for entry in &info.memory {
        out.range(entry.range);
        out.u32(entry.kind);
        out.u32(entry.access);
    }
    for device in &info.devices {
        for word in [
            device.id,
            device.queue_count,
            device.queue_size_max,
            device.reserved,
        ] {
            out.u32(word);
        }
        out.u64(device.window);
        out.u64(device.features);
        out.u64(device.state);
        out.0.extend(device.tag);
    }
    out.u32(info.net_count);
    out.u32(info.reserved);
    for net in &info.nets {
        out.u32(net.device);
        out.u32(net.flags);
        out.0.extend(net.ipv4);
        out.0.extend(net.gateway4);
        out.0.extend([net.prefix4, net.prefix6]);
        out.0.extend(net.reserved);
        out.0.extend(net.ipv6);
        out.0.extend(net.gateway6);
        out.0.extend(net.dns.as_flattened());
    }
    out.0
}

struct Encoder(Vec<u8>);

impl Encoder {
    fn u32(&mut self, word: u32) {
        self.0.extend(word.to_le_bytes());
    }

    fn u64(&mut self, word: u64) {
        self.0.extend(word.to_le_bytes());
    }

    fn range(&mut self, range: Range) {
        self.u64(range.start);
        self.u64(range.len);
    }
}

const _: () = assert!(CONTROL_WINDOW_SIZE == PAGE_SIZE);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_info_page_has_its_fields_where_the_abi_has_them() {
        let mut info = InfoPage {
            magic: INFO_MAGIC,
            abi_version: 1,
            size: 2,
            vcpu_count: 3,
            memory_count: 4,
            device_count: 5,
            arg_count: 6,
            cpu_features: 7,
            xcr0: 8,
            image: Range::default(),
            heap: Range::default(),
            args: Range::default(),
            stack: Range { start: 9, len: 10 },
            stack_stride: 11,
            clock: 12,
            quota: 13,
            control: 14,
            sliver_name: padded("sliver"),
            slice_name: padded("slice"),
            memory: [MemoryRange::default(); MAX_MEMORY_RANGES],
            devices: [DeviceEntry::default(); MAX_DEVICES],
            net_count: 17,
            reserved: 0,
            nets: [NetConfig::default(); MAX_NETS],
        };
        info.memory[19].access = 15;
        info.devices[31].features = 16;
        info.nets[7].prefix6 = 64;
        info.nets[7].dns[1][15] = 18;
        let bytes = encode_info(&info);
        assert_eq!(bytes.len(), size_of::<InfoPage>());
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        use std::mem::offset_of;
        assert_eq!(word(offset_of!(InfoPage, xcr0)), 8);
        assert_eq!(word(offset_of!(InfoPage, stack)), 9);
        assert_eq!(word(offset_of!(InfoPage, control)), 14);
        assert!(bytes[offset_of!(InfoPage, slice_name)..].starts_with(b"slice\0"));
        assert_eq!(bytes[offset_of!(InfoPage, devices) - 4], 15);
        let last = offset_of!(InfoPage, devices) + 31 * size_of::<DeviceEntry>();
        assert_eq!(word(last + offset_of!(DeviceEntry, features)), 16);
        assert_eq!(bytes[offset_of!(InfoPage, net_count)], 17);
        let last = offset_of!(InfoPage, nets) + 7 * size_of::<NetConfig>();
        assert_eq!(bytes[last + offset_of!(NetConfig, prefix6)], 64);
        assert_eq!(bytes.last(), Some(&18));
    }
}
