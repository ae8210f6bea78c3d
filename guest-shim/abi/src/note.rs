//! The ELF note that makes a file a native image: section `.note.slice`, in a `PT_NOTE` segment.
//!
//! An ordinary ELF note: `namesz` = 6, `descsz` = 16, `type` = [`NOTE_TYPE`], then the name
//! [`NOTE_NAME`] padded to 8 bytes, then a [`NoteDesc`]. Notes are aligned to 4 bytes.

/// Owner name of the note, with its terminator.
pub const NOTE_NAME: &[u8; 6] = b"SLICE\0";

/// Type of the note.
pub const NOTE_TYPE: u32 = 1;

/// What the image says of itself.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoteDesc {
    /// The [`ABI_VERSION`](crate::ABI_VERSION) the image was built for. A monitor refuses others.
    pub abi_version: u32,
    /// Must be 0 in version 1.
    pub flags: u32,
    /// Bytes of stack wanted per vCPU: a multiple of the page size between
    /// [`MIN_STACK_SIZE`](crate::layout::MIN_STACK_SIZE) and
    /// [`MAX_STACK_SIZE`](crate::layout::MAX_STACK_SIZE); 0 for
    /// [`DEFAULT_STACK_SIZE`](crate::layout::DEFAULT_STACK_SIZE).
    pub stack_size: u64,
}

const _: () = {
    assert!(size_of::<NoteDesc>() == 16);
    assert!(core::mem::offset_of!(NoteDesc, stack_size) == 8);
};
