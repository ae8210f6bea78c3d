//! The note that makes a file a native image, and tells how large a stack it wants.
//!
//! [`entry!`](crate::entry) puts it into the program, beside the function that the entry point
//! needs: nothing links the one without the other.

use slice_abi::ABI_VERSION;
use slice_abi::layout::{MAX_STACK_SIZE, MIN_STACK_SIZE, PAGE_SIZE};
use slice_abi::note::{NOTE_NAME, NOTE_TYPE, NoteDesc};

/// The note, as bytes in a file: a [`NoteDesc`] in words of 4 bytes, to which notes are aligned.
#[repr(C)]
#[derive(Debug)]
pub struct Note {
    name_bytes: u32,
    desc_bytes: u32,
    kind: u32,
    name: [u8; 8],
    abi_version: u32,
    flags: u32,
    stack_size: [u32; 2],
}

const _: () = assert!(size_of::<Note>() == 20 + size_of::<NoteDesc>());

impl Note {
    /// Of an image that is content with the usual stack.
    pub const fn usual() -> Self {
        let mut name = [0; 8];
        name.split_at_mut(NOTE_NAME.len())
            .0
            .copy_from_slice(NOTE_NAME);
        Self {
            name_bytes: NOTE_NAME.len() as u32,
            desc_bytes: size_of::<NoteDesc>() as u32,
            kind: NOTE_TYPE,
            name,
            abi_version: ABI_VERSION,
            flags: 0,
            stack_size: [0; 2],
        }
    }

    /// Of an image that wants `bytes` of stack for each vCPU.
    ///
    /// # Panics
    ///
    /// In a constant, which is then an error of compilation: if no monitor gives such a stack.
    pub const fn with_stack(bytes: u64) -> Self {
        assert!(
            bytes >= MIN_STACK_SIZE && bytes <= MAX_STACK_SIZE,
            "a stack has 16 KiB to 64 MiB"
        );
        assert!(
            bytes.is_multiple_of(PAGE_SIZE),
            "a stack is a multiple of 4096 bytes"
        );
        Self {
            stack_size: [bytes as u32, (bytes >> 32) as u32],
            ..Self::usual()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_of_the_size_asked_for_is_noted() {
        assert_eq!(Note::usual().stack_size, [0, 0]);
        assert_eq!(Note::with_stack(1 << 20).stack_size, [1 << 20, 0]);
        Note::with_stack(MIN_STACK_SIZE);
        Note::with_stack(MAX_STACK_SIZE);
    }

    #[test]
    fn a_stack_that_no_monitor_gives_is_refused() {
        for bytes in [
            0,
            MIN_STACK_SIZE - PAGE_SIZE,
            MAX_STACK_SIZE + PAGE_SIZE,
            (1 << 20) + 1,
        ] {
            assert!(std::panic::catch_unwind(|| Note::with_stack(bytes)).is_err());
        }
    }
}
