//! A sliver's RAM, as its devices see it.
//!
//! One private anonymous mapping, aligned to 2 MiB, that asks for huge pages where its layout says
//! so, because on some hosts the first touch of a small page costs ten times as much per byte.
//! [`GuestRam`] refuses devices' writes below an address: for a native image its first writable
//! segment, so that a descriptor cannot name text, read-only data or page tables.
#![allow(
    unsafe_code,
    reason = "maps memory and hands it to KVM and to vm-memory"
)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::mm::{Advice, madvise};
use slice_abi::info::Range;
use slice_abi::layout::{LARGE_PAGE_SIZE, PAGE_SIZE};
use vm_memory::bitmap::BS;
use vm_memory::guest_memory::{Error as GuestMemoryError, GuestMemorySliceIterator, Result};
use vm_memory::{
    Bytes, GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap,
    MmapRegion, Permissions,
};

use super::mapping::{MapError, Mapping};

/// Memory could not be given back to the host.
#[derive(Debug, thiserror::Error)]
#[error("cannot give back {} bytes of guest memory at {:#x}: {source}", range.len, range.start)]
pub struct DiscardError {
    range: Range,
    source: io::Error,
}

/// The sliver's RAM as its devices see it: [`GuestMemory`] with permissions.
#[derive(Debug)]
pub struct GuestRam {
    memory: GuestMemoryMmap,
    mapping: Mapping,
    parts: Vec<Part>,
    writable_from: u64,
}

/// A range of guest addresses, and where in this process it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The guest's addresses.
    pub guest: Range,
    /// Address in this process.
    pub host: u64,
}

impl GuestRam {
    /// Maps `ranges`, which ascend and lie on boundaries of 2 MiB, with huge pages in each of `large`,
    /// writable to devices from `writable_from` on.
    pub fn new(
        ranges: &[Range],
        large: &[Range],
        writable_from: u64,
    ) -> std::result::Result<Self, MapError> {
        let bytes = ranges.iter().map(|range| range.len).sum();
        let error = |source| MapError { bytes, source };
        let len = usize::try_from(bytes).map_err(|e| error(io::Error::other(e)))?;
        let mapping = Mapping::new(len, LARGE_PAGE_SIZE as usize).map_err(error)?;
        let mut host = mapping.start.as_ptr() as u64;
        let mut parts = Vec::with_capacity(ranges.len());
        let mut regions = Vec::with_capacity(ranges.len());
        for &guest in ranges {
            parts.push(Part { guest, host });
            regions.push(region(guest, host).map_err(error)?);
            host += guest.len;
        }
        let memory = GuestMemoryMmap::from_regions(regions)
            .map_err(|e| error(io::Error::new(io::ErrorKind::InvalidInput, e)))?;
        let ram = Self {
            memory,
            mapping,
            parts,
            writable_from,
        };
        for range in large.iter().filter(|range| range.len > 0) {
            let Some(at) = ram.host_address(*range) else {
                continue;
            };
            // A host without huge pages refuses; small ones serve as well, only slower.
            // SAFETY: `range` lies within RAM (`host_address` found it there), all of which was just
            // mapped; the advice changes how the memory is backed, not what it holds.
            let _ = unsafe { madvise(at as *mut _, range.len as usize, Advice::LinuxHugepage) };
        }
        Ok(ram)
    }

    /// Its parts, ascending, for KVM.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Address in this process and length of all of it.
    pub fn host_range(&self) -> (u64, u64) {
        (self.mapping.start.as_ptr() as u64, self.mapping.len as u64)
    }

    /// The memory without permissions, for loaders: a device must not have it.
    pub fn backend(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Where in this process a range of guest addresses is, if it lies in one part.
    fn host_address(&self, range: Range) -> Option<u64> {
        let end = range.start.checked_add(range.len)?;
        let part = self
            .parts
            .iter()
            .find(|part| range.start >= part.guest.start && end <= part.guest.end())?;
        Some(part.host + (range.start - part.guest.start))
    }

    /// Writes wherever in RAM, for the loader and the debugger.
    pub fn write_any(
        &self,
        bytes: &[u8],
        address: u64,
    ) -> std::result::Result<(), GuestMemoryError> {
        self.memory.write_slice(bytes, GuestAddress(address))
    }

    /// Gives the whole pages inside `range` back to the host: they read as zeros until they are
    /// written again. How many bytes that was. Only what devices may write can be given back: to
    /// the guest it is as if a device had cleared it.
    pub fn discard(&self, range: Range) -> std::result::Result<u64, DiscardError> {
        let error = |source: io::Error| DiscardError { range, source };
        let outside = || error(io::ErrorKind::InvalidInput.into());
        let end = range.start.checked_add(range.len).ok_or_else(outside)?;
        if !self.check_range(
            GuestAddress(range.start),
            range.len as usize,
            Permissions::Write,
        ) {
            return Err(outside());
        }
        let first = range.start.next_multiple_of(PAGE_SIZE);
        let len = (end / PAGE_SIZE * PAGE_SIZE).saturating_sub(first);
        if len == 0 {
            return Ok(0);
        }
        let pages = Range { start: first, len };
        let at = self.host_address(pages).ok_or_else(outside)?;
        // SAFETY: the pages lie inside the mapping (`host_address` found them there), and `at` is a
        // multiple of the page size because each part's addresses, the guest's and ours, are. The
        // mapping is private and anonymous: nothing but its contents is lost, which is what devices
        // and the guest may write at any moment. No reference to guest memory exists anywhere, only
        // volatile and atomic accesses by address.
        unsafe { madvise(at as *mut _, len as usize, Advice::LinuxDontNeed) }
            .map_err(|errno| error(errno.into()))?;
        Ok(len)
    }

    /// Calls `visit` with the guest address and length of each run of pages that may hold
    /// something, ascending: those in memory and those swapped out, as `pagemap` of this process
    /// tells (proc_pid_pagemap(5)).
    pub fn for_each_backed(
        &self,
        pagemap: &File,
        mut visit: impl FnMut(u64, u64),
    ) -> io::Result<()> {
        for part in &self.parts {
            part.for_each_backed(pagemap, &mut visit)?;
        }
        Ok(())
    }
}

impl Part {
    fn for_each_backed(&self, pagemap: &File, visit: &mut dyn FnMut(u64, u64)) -> io::Result<()> {
        const CHUNK_PAGES: usize = 16 << 10;
        const ENTRY: usize = 8;
        const PRESENT_OR_SWAPPED: u64 = 0b11 << 62;
        let first = self.host / PAGE_SIZE;
        let pages = self.guest.len.div_ceil(PAGE_SIZE) as usize;
        let mut entries = vec![0; CHUNK_PAGES.min(pages) * ENTRY];
        for chunk in (0..pages).step_by(CHUNK_PAGES) {
            let count = CHUNK_PAGES.min(pages - chunk);
            let bytes = &mut entries[..count * ENTRY];
            pagemap.read_exact_at(bytes, (first + chunk as u64) * ENTRY as u64)?;
            let backed: Vec<bool> = bytes
                .as_chunks::<ENTRY>()
                .0
                .iter()
                .map(|entry| u64::from_ne_bytes(*entry) & PRESENT_OR_SWAPPED != 0)
                .collect();
            let mut page = chunk as u64;
            for run in backed.chunk_by(|a, b| a == b) {
                if run[0] {
                    let at = self.guest.start + page * PAGE_SIZE;
                    visit(at, run.len() as u64 * PAGE_SIZE);
                }
                page += run.len() as u64;
            }
        }
        Ok(())
    }
}

/// The memory of a part as vm-memory has it.
fn region(guest: Range, host: u64) -> io::Result<GuestRegionMmap> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: the region is a part of the mapping of the `GuestRam` that is being made, which holds
    // both, and nobody gets the region without borrowing that.
    let region = unsafe { MmapRegion::build_raw(host as *mut u8, guest.len as usize, prot, flags) }
        .map_err(io::Error::other)?;
    GuestRegionMmap::new(region, GuestAddress(guest.start))
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

impl GuestMemory for GuestRam {
    type PhysicalMemory = GuestMemoryMmap;
    type Bitmap = ();

    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        let writes = matches!(access, Permissions::Write | Permissions::ReadWrite);
        (!writes || addr.0 >= self.writable_from)
            && GuestMemoryBackend::check_range(&self.memory, addr, count)
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, BS<'a, Self::Bitmap>>> {
        if count > 0 && !self.check_range(addr, count, access) {
            return Err(GuestMemoryError::InvalidGuestAddress(addr));
        }
        Ok(GuestMemoryBackend::get_slices(&self.memory, addr, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slice_abi::layout::RAM_BASE;

    fn ram() -> GuestRam {
        let range = Range {
            start: RAM_BASE,
            len: 4 << 20,
        };
        GuestRam::new(
            &[range],
            &[Range {
                start: RAM_BASE + (2 << 20),
                len: 2 << 20,
            }],
            RAM_BASE + 0x3000,
        )
        .unwrap()
    }

    #[test]
    fn ram_is_aligned_to_large_pages() {
        assert_eq!(ram().host_range().0 % LARGE_PAGE_SIZE, 0);
    }

    #[test]
    fn devices_read_everything_and_write_only_what_the_guest_may() {
        let ram = ram();
        let address = |offset| GuestAddress(RAM_BASE + offset);
        assert!(ram.write_slice(b"x", address(0x2fff)).is_err());
        assert!(ram.write_slice(b"xy", address(0x2fff)).is_err());
        assert!(ram.write_slice(b"x", address(0x3000)).is_ok());
        ram.write_any(b"text", RAM_BASE).unwrap();
        let mut read = [0; 4];
        ram.read_slice(&mut read, address(0)).unwrap();
        assert_eq!(&read, b"text");
    }

    #[test]
    fn nothing_outside_ram_can_be_reached() {
        let ram = ram();
        let end = RAM_BASE + (4 << 20);
        for address in [0, RAM_BASE - 1, end - 1, end, u64::MAX - 1] {
            assert!(
                !ram.check_range(GuestAddress(address), 2, Permissions::Read),
                "{address:#x}"
            );
            assert!(
                ram.write_slice(&[1, 2], GuestAddress(address)).is_err(),
                "{address:#x}"
            );
        }
    }

    #[test]
    fn what_spans_a_hole_cannot_be_reached() {
        let range = |start, len| Range { start, len };
        let ranges = [range(0, 4 << 20), range(1 << 32, 2 << 20)];
        let ram = GuestRam::new(&ranges, &[], 0).unwrap();
        ram.write_any(&[7; 8192], (4 << 20) - 8192).unwrap();
        ram.write_any(&[8; 8192], 1 << 32).unwrap();
        let reach = |start, len| ram.check_range(GuestAddress(start), len, Permissions::Write);
        assert!(reach((4 << 20) - 1, 1) && reach(1 << 32, 2 << 20));
        assert!(!reach((4 << 20) - 1, 2) && !reach((1 << 32) - 1, 2) && !reach(1 << 31, 1));
        assert_eq!(ram.discard(range(1 << 32, 4096)).unwrap(), 4096);
        assert!(ram.discard(range((4 << 20) - 4096, 8192)).is_err());
        let mut runs = Vec::new();
        ram.for_each_backed(&pagemap(), |at, len| runs.push((at, len)))
            .unwrap();
        assert_eq!(runs, [((4 << 20) - 8192, 8192), ((1 << 32) + 4096, 4096)]);
        assert_eq!(ram.read_obj::<u8>(GuestAddress((4 << 20) - 1)).unwrap(), 7);
    }

    #[test]
    fn whole_pages_are_given_back_and_what_is_around_them_is_kept() {
        let ram = ram();
        let start = RAM_BASE + 0x5000;
        ram.write_any(&[1; 0x4000], start).unwrap();
        let discard = |start, len| ram.discard(Range { start, len });
        assert_eq!(discard(start + 1, 0x2fff).unwrap(), 0x2000);
        assert_eq!(discard(start + 1, 0xfff).unwrap(), 0);
        assert_eq!(discard(start + 0x3001, 0xffe).unwrap(), 0);
        let mut bytes = vec![0; 0x4000];
        ram.read_slice(&mut bytes, GuestAddress(start)).unwrap();
        let kept = |at: usize| !(0x1000..0x3000).contains(&at);
        assert!(
            bytes
                .iter()
                .enumerate()
                .all(|(at, byte)| *byte == u8::from(kept(at)))
        );
    }

    #[test]
    fn only_memory_that_devices_may_write_can_be_given_back() {
        let ram = ram();
        let end = RAM_BASE + (4 << 20);
        ram.write_any(&[1; 0x3000], RAM_BASE).unwrap();
        for (start, len) in [
            (RAM_BASE, 0x1000),
            (RAM_BASE + 0x2000, 0x2000),
            (RAM_BASE - 0x1000, 0x1000),
            (end - 0x1000, 0x2000),
            (end, 0x1000),
            (u64::MAX - 0xfff, 0x1000),
            (RAM_BASE + 0x3000, u64::MAX),
        ] {
            assert!(
                ram.discard(Range { start, len }).is_err(),
                "{start:#x} {len:#x}"
            );
        }
        assert_eq!(
            ram.read_obj::<u8>(GuestAddress(RAM_BASE + 0x2fff)).unwrap(),
            1
        );
    }

    fn pagemap() -> File {
        File::open("/proc/self/pagemap").unwrap()
    }

    #[test]
    fn only_backed_pages_are_visited() {
        let ram = ram();
        let runs = || {
            let mut runs = Vec::new();
            ram.for_each_backed(&pagemap(), |at, len| runs.push((at, len)))
                .unwrap();
            runs
        };
        assert_eq!(runs(), []);
        ram.write_any(&[1; 0x1800], RAM_BASE + 0x5000).unwrap();
        assert_eq!(runs(), [(RAM_BASE + 0x5000, 0x2000)]);
    }
}
