//! Memory that a device reads and writes without a copy: aligned, and owned by one at a time.
#![allow(unsafe_code, reason = "an allocation with an alignment of its own")]

use alloc::alloc::{alloc_zeroed, dealloc, handle_alloc_error};
use core::alloc::Layout;
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::slice;

/// Bytes for whole sectors: begins on a page, or on a sector if it is smaller than a page.
///
/// ```
/// use guest_shim::block::Buffer;
///
/// let mut buffer = Buffer::zeroed(4096);
/// buffer[..5].copy_from_slice(b"hello");
/// assert_eq!(buffer.len(), 4096);
/// assert_eq!(buffer[4..6], *b"o\0");
/// ```
pub struct Buffer {
    memory: NonNull<u8>,
    len: usize,
}

// SAFETY: it owns its memory, as a `Box<[u8]>` does.
unsafe impl Send for Buffer {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        if len == 0 {
            return Self {
                memory: NonNull::dangling(),
                len,
            };
        }
        let layout = layout(len);
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc_zeroed(layout) };
        match NonNull::new(memory) {
            Some(memory) => Self { memory, len },
            None => handle_alloc_error(layout),
        }
    }

    /// Where it begins, also while a device uses it.
    #[cfg(any(test, not(feature = "desktop")))]
    pub(crate) fn address(&self) -> u64 {
        self.memory.as_ptr() as u64
    }
}

fn layout(len: usize) -> Layout {
    let alignment = if len < 4096 { 512 } else { 4096 };
    Layout::from_size_align(len, alignment).expect("a buffer has room in the address space")
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated with the same layout, and nobody else owns it.
            unsafe { dealloc(self.memory.as_ptr(), layout(self.len)) }
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the memory is this buffer's own, initialised, and of this length.
        unsafe { slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed for the caller alone.
        unsafe { slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }
}

impl From<&[u8]> for Buffer {
    fn from(bytes: &[u8]) -> Self {
        let mut buffer = Self::zeroed(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len)
    }
}
