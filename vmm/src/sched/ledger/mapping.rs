//! Parts of a ledger in memory: the whole of it to read, a slot's page to write.
#![allow(unsafe_code, reason = "maps files that others may change")]

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::guard::Guard;
use super::layout::{self, Entry, FILE_BYTES, Header, PAGE, SLOTS};

/// A guarded mapping.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    len: usize,
    /// Goes before the mapping does.
    guard: Option<Guard>,
}

// SAFETY: the memory belongs to this value and is accessed only through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(file: &File, offset: usize, len: usize, writable: bool) -> io::Result<Self> {
        let access = match writable {
            true => ProtFlags::READ | ProtFlags::WRITE,
            false => ProtFlags::READ,
        };
        // SAFETY: a new mapping at an address of the kernel's choice touches nobody's memory.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                access,
                MapFlags::SHARED,
                file,
                offset as u64,
            )?
        };
        let mut mapping = Self {
            start: NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?,
            len,
            guard: None,
        };
        // SAFETY: the mapping is this value's; the accessors below give out nothing but atomics,
        // for no longer than it lives, and nobody relies on what they hold.
        let guard = unsafe { Guard::new(mapping.start, len / PAGE, writable)? };
        mapping.guard = Some(guard);
        Ok(mapping)
    }

    fn is_damaged(&self) -> bool {
        self.guard.as_ref().is_some_and(Guard::is_damaged)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.guard = None;
        // SAFETY: the mapping is ours, and nothing borrowed from it outlives `self`.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// All of a ledger, to read.
#[derive(Debug)]
pub(super) struct Pages(Mapping);

impl Pages {
    /// Maps a file, which was opened for reading only and is as long as a ledger is.
    pub(super) fn map(reader: &File) -> io::Result<Self> {
        Mapping::new(reader, 0, FILE_BYTES, false).map(Self)
    }

    pub(super) fn header(&self) -> &Header {
        // SAFETY: the mapping begins with the header's page, is readable and lives as long as
        // `self`.
        unsafe { layout::header(self.0.start) }
    }

    /// The entry of a slot.
    pub(super) fn entry(&self, slot: usize) -> &Entry {
        assert!(slot < SLOTS, "a ledger has {SLOTS} slots");
        // SAFETY: the slot's page lies in the mapping, which is readable and lives as long as
        // `self`.
        unsafe { layout::entry(self.0.start.add(layout::page_offset(slot)), slot) }
    }

    /// The entries that may be in use, with their slots.
    pub(super) fn entries(&self) -> impl Iterator<Item = (usize, &Entry)> {
        (0..self.header().used()).map(|slot| (slot, self.entry(slot)))
    }

    /// Whether the file had no page where one was looked for: all that is read is zeros.
    pub(super) fn is_damaged(&self) -> bool {
        self.0.is_damaged()
    }
}

/// A slot's page, to write. Holds the file open, and with it the lock of `writer`.
#[derive(Debug)]
pub(super) struct OwnPage {
    mapping: Mapping,
    slot: usize,
}

impl OwnPage {
    pub(super) fn map(writer: &File, slot: usize) -> io::Result<Self> {
        let mapping = Mapping::new(writer, layout::page_offset(slot), PAGE, true)?;
        Ok(Self { mapping, slot })
    }

    pub(super) fn slot(&self) -> usize {
        self.slot
    }

    pub(super) fn entry(&self) -> &Entry {
        // SAFETY: the mapping is the slot's page, writable, and lives as long as `self`.
        unsafe { layout::entry(self.mapping.start, self.slot) }
    }

    pub(super) fn word(&self) -> &AtomicU32 {
        self.entry().word()
    }

    /// Leaves the page to itself, as any mapping of a file is.
    #[cfg(test)]
    pub(super) fn forget_guard(&mut self) {
        self.mapping.guard = None;
    }

    /// Whether what is written goes nowhere.
    pub(super) fn is_damaged(&self) -> bool {
        self.mapping.is_damaged()
    }
}
