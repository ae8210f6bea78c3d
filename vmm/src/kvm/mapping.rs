//! A piece of this process's memory that a guest runs in.
#![allow(unsafe_code, reason = "maps memory")]

use std::io;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Guest memory could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot map {bytes} bytes of guest memory: {source}")]
pub struct MapError {
    pub(super) bytes: u64,
    pub(super) source: io::Error,
}

/// A private anonymous mapping, unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) start: NonNull<u8>,
    pub(super) len: usize,
}

// SAFETY: the mapping is plain memory that belongs to this value; the pointer is not tied to a
// thread, and every access through it is volatile or atomic (the guest writes there, too).
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes on a boundary of `align`, which is a power of two of whole pages.
    pub(super) fn new(len: usize, align: usize) -> io::Result<Self> {
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
