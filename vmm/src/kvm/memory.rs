//! A sliver's memory: RAM, which devices may reach, and the system area, which they may not.
//!
//! Both are private anonymous mappings; RAM is aligned to 2 MiB and asks for huge pages where its
//! layout says so, because on some hosts the first touch of a small page costs ten times as much
//! per byte. Devices see RAM through [`GuestRam`], which refuses to write below the image's first
//! writable segment: a descriptor cannot name text, read-only data or page tables.
#![allow(
    unsafe_code,
    reason = "maps memory and hands it to KVM and to vm-memory"
)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use slice_abi::clock::ClockRecord;
use slice_abi::device::DeviceState;
use slice_abi::fault::FaultRecord;
use slice_abi::info::{MAX_DEVICES, Range};
use slice_abi::layout::{LARGE_PAGE_SIZE, PAGE_SIZE};
use vm_memory::bitmap::BS;
use vm_memory::guest_memory::{Error as GuestMemoryError, GuestMemorySliceIterator, Result};
use vm_memory::{
    Bytes, GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap,
    MmapRegion, Permissions,
};

/// Guest memory could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot map {bytes} bytes of guest memory: {source}")]
pub struct MapError {
    bytes: u64,
    source: io::Error,
}

/// Memory could not be given back to the host.
#[derive(Debug, thiserror::Error)]
#[error("cannot give back {} bytes of guest memory at {:#x}: {source}", range.len, range.start)]
pub struct DiscardError {
    range: Range,
    source: io::Error,
}

/// A private anonymous mapping, unmapped when dropped.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is plain memory that belongs to this value; the pointer is not tied to a
// thread, and every access through it is volatile or atomic (the guest writes there, too).
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes on a boundary of `align`, which is a power of two of whole pages.
    fn new(len: usize, align: usize) -> io::Result<Self> {
        let room = len.checked_add(align).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches nobody's memory.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                room,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        } as usize;
        let aligned = start.next_multiple_of(align);
        let (head, tail) = (aligned - start, start + room - aligned - len);
        for (at, bytes) in [(start, head), (aligned + len, tail)] {
            if bytes > 0 {
                // SAFETY: these are the unused ends of the mapping made above.
                unsafe { munmap(at as *mut _, bytes)? };
            }
        }
        let start = NonNull::new(aligned as *mut u8).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and whoever could still use it borrows from `self`. KVM's
        // use of it ends with the VM, which the owner of both drops first.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// The sliver's RAM as its devices see it: [`GuestMemory`] with permissions.
#[derive(Debug)]
pub struct GuestRam {
    memory: GuestMemoryMmap,
    mapping: Mapping,
    base: u64,
    writable_from: u64,
}

impl GuestRam {
    /// Maps `ram`, with huge pages in `large`, writable to devices from `writable_from` on.
    pub fn new(
        ram: Range,
        large: Range,
        writable_from: u64,
    ) -> std::result::Result<Self, MapError> {
        let error = |source| MapError {
            bytes: ram.len,
            source,
        };
        let len = usize::try_from(ram.len).map_err(|e| error(io::Error::other(e)))?;
        let mapping = Mapping::new(len, LARGE_PAGE_SIZE as usize).map_err(error)?;
        let inside = large.start >= ram.start && large.end() <= ram.end();
        if large.len > 0 && inside {
            let at = mapping
                .start
                .as_ptr()
                .wrapping_add((large.start - ram.start) as usize);
            // A host without huge pages refuses; small ones serve as well, only slower.
            // SAFETY: `large` lies within `ram` (checked), all of which was just mapped; the advice changes
            // how the memory is backed, not what it holds.
            let _ = unsafe { madvise(at.cast(), large.len as usize, Advice::LinuxHugepage) };
        }
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: the region is exactly the mapping above, which lives as long as `self`, and
        // nobody gets the region without borrowing `self`.
        let region = unsafe { MmapRegion::build_raw(mapping.start.as_ptr(), len, prot, flags) }
            .map_err(|e| error(io::Error::other(e)))?;
        let memory = GuestRegionMmap::new(region, GuestAddress(ram.start))
            .ok_or(())
            .and_then(|region| GuestMemoryMmap::from_regions(vec![region]).map_err(|_| ()))
            .map_err(|()| error(io::ErrorKind::InvalidInput.into()))?;
        Ok(Self {
            memory,
            mapping,
            base: ram.start,
            writable_from,
        })
    }

    /// Address in this process and length, for KVM.
    pub fn host_range(&self) -> (u64, u64) {
        (self.mapping.start.as_ptr() as u64, self.mapping.len as u64)
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
        let at = self
            .mapping
            .start
            .as_ptr()
            .wrapping_add((first - self.base) as usize);
        // SAFETY: the pages lie inside the mapping: `range` does (checked), and so do the whole
        // pages in it, because the mapping's guest address, `base`, is a multiple of the page size
        // as its address here is. The mapping is private and anonymous: nothing but its contents
        // is lost, which is what devices and the guest may write at any moment. No reference to
        // guest memory exists anywhere, only volatile and atomic accesses by address.
        unsafe { madvise(at.cast(), len as usize, Advice::LinuxDontNeed) }
            .map_err(|errno| error(errno.into()))?;
        Ok(len)
    }

    /// Calls `visit` with the guest address and length of each run of pages that may hold
    /// something, ascending: those in memory and those swapped out (proc_pid_pagemap(5)).
    pub fn for_each_backed(&self, mut visit: impl FnMut(u64, u64)) -> io::Result<()> {
        const CHUNK_PAGES: usize = 16 << 10;
        const ENTRY: usize = 8;
        const PRESENT_OR_SWAPPED: u64 = 0b11 << 62;
        let pagemap = File::open("/proc/self/pagemap")?;
        let first = self.mapping.start.as_ptr() as u64 / PAGE_SIZE;
        let pages = self.mapping.len.div_ceil(PAGE_SIZE as usize);
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
                    visit(self.base + page * PAGE_SIZE, run.len() as u64 * PAGE_SIZE);
                }
                page += run.len() as u64;
            }
        }
        Ok(())
    }
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

/// Memory of the guest's machine that is not its RAM: the pages it may only read, the supervisor's
/// structures, the page tables. Mapped into the guest by page tables, unknown to devices.
#[derive(Debug)]
pub struct SystemArea {
    mapping: Mapping,
}

/// Offsets in the system area; the page tables follow the vCPU pages.
pub mod system {
    /// The info page.
    pub const INFO: u64 = 0x0000;
    /// The arguments.
    pub const ARGS: u64 = 0x1000;
    /// The quota page.
    pub const QUOTA: u64 = 0x2000;
    /// The clock record.
    pub const CLOCK: u64 = 0x3000;
    /// Descriptor tables.
    pub const TABLES: u64 = 0x4000;
    /// Exception stubs.
    pub const STUBS: u64 = 0x5000;
    /// The device states.
    pub const STATES: u64 = 0x6000;
    /// The first vCPU page.
    pub const VCPU: u64 = 0x7000;
}

impl SystemArea {
    /// Maps `pages` pages.
    pub fn new(pages: usize) -> std::result::Result<Self, MapError> {
        let bytes = pages as u64 * PAGE_SIZE;
        let mapping = Mapping::new(bytes as usize, PAGE_SIZE as usize)
            .map_err(|source| MapError { bytes, source })?;
        Ok(Self { mapping })
    }

    /// Address in this process and length, for KVM.
    pub fn host_range(&self) -> (u64, u64) {
        (self.mapping.start.as_ptr() as u64, self.mapping.len as u64)
    }

    /// Copies bytes in, in words of eight; the last is filled up with zeros.
    ///
    /// # Panics
    /// If they do not fit or `offset` is not a multiple of eight: the layout is the monitor's own.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let offset = offset as usize;
        let room = bytes.len().next_multiple_of(8);
        assert!(offset.is_multiple_of(8));
        assert!(
            offset
                .checked_add(room)
                .is_some_and(|end| end <= self.mapping.len)
        );
        for (i, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            // SAFETY: the word lies inside the mapping and is aligned (both asserted), and all
            // access to this memory is atomic or volatile.
            let target = unsafe {
                AtomicU64::from_ptr(self.mapping.start.as_ptr().add(offset + i * 8).cast())
            };
            target.store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
    }

    /// The clock record.
    pub fn clock(&self) -> &ClockRecord {
        // SAFETY: the record lies inside the mapping, aligned to a page, was zeroed (a valid
        // value) by the kernel, and is made of atomics, which others may read at the same time.
        // The reference lives no longer than the mapping.
        unsafe {
            &*self
                .mapping
                .start
                .as_ptr()
                .add(system::CLOCK as usize)
                .cast()
        }
    }

    /// The state of device `index` that the guest reads.
    pub fn device_state(&self, index: usize) -> &DeviceState {
        assert!(index < MAX_DEVICES);
        // SAFETY: the states fill their page of the mapping (asserted in the ABI), which was zeroed
        // (a valid value) by the kernel, and are made of atomics, which others may read at the same
        // time. The reference lives no longer than the mapping.
        unsafe {
            &*self
                .mapping
                .start
                .as_ptr()
                .add(system::STATES as usize)
                .cast::<DeviceState>()
                .add(index)
        }
    }

    /// The record of an exception of vCPU `index`, read once its stub has reported.
    pub fn fault_record(&self, index: usize) -> FaultRecord {
        let offset = system::VCPU
            + index as u64 * PAGE_SIZE
            + crate::boot::slice::platform::FAULT_RECORD_OFFSET;
        assert!(offset as usize + size_of::<FaultRecord>() <= self.mapping.len);
        // SAFETY: the record lies inside the mapping (asserted), on a multiple of 8, and any bytes
        // are a valid record. The vCPU that wrote it has left the guest.
        unsafe {
            self.mapping
                .start
                .as_ptr()
                .add(offset as usize)
                .cast::<FaultRecord>()
                .read_volatile()
        }
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
            range,
            Range {
                start: RAM_BASE + (2 << 20),
                len: 2 << 20,
            },
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

    #[test]
    fn only_backed_pages_are_visited() {
        let ram = ram();
        let runs = || {
            let mut runs = Vec::new();
            ram.for_each_backed(|at, len| runs.push((at, len))).unwrap();
            runs
        };
        assert_eq!(runs(), []);
        ram.write_any(&[1; 0x1800], RAM_BASE + 0x5000).unwrap();
        assert_eq!(runs(), [(RAM_BASE + 0x5000, 0x2000)]);
    }

    #[test]
    fn words_are_filled_up_with_zeros() {
        let area = SystemArea::new(1).unwrap();
        area.write(16, &[0xff; 16]);
        area.write(16, &[1, 2, 3]);
        // SAFETY: the bytes lie inside the mapping, and nobody else knows of it.
        let bytes = unsafe {
            area.mapping
                .start
                .as_ptr()
                .add(16)
                .cast::<[u8; 16]>()
                .read_volatile()
        };
        assert_eq!(bytes[..8], [1, 2, 3, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[8..], [0xff; 8]);
    }
}
