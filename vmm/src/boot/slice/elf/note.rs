//! The slice note of an image (see `slice_abi::note`): finding it and checking it.

use slice_abi::ABI_VERSION;
use slice_abi::layout::{DEFAULT_STACK_SIZE, MAX_STACK_SIZE, MIN_STACK_SIZE, PAGE_SIZE};
use slice_abi::note::{NOTE_NAME, NOTE_TYPE, NoteDesc};

use super::{Examination, Problem};
use crate::boot::note;

/// The contents of all slice notes among the notes in `bytes`.
pub(super) fn find(bytes: &[u8]) -> Vec<Vec<u8>> {
    note::find(bytes, NOTE_NAME, NOTE_TYPE)
}

/// Checks the content of the slice note.
pub(super) fn check(desc: &[u8], found: &mut Examination) {
    let Ok(desc) = <&[u8; size_of::<NoteDesc>()]>::try_from(desc) else {
        let problem = format!("{} bytes, not {}", desc.len(), size_of::<NoteDesc>());
        found.problems.push(Problem::BadNote(problem));
        return;
    };
    let [a, b, c, d, f0, f1, f2, f3, stack @ ..] = *desc;
    let abi_version = u32::from_le_bytes([a, b, c, d]);
    found.abi_version = Some(abi_version);
    if abi_version != ABI_VERSION {
        found.problems.push(Problem::WrongAbi(abi_version));
        return;
    }
    let flags = u32::from_le_bytes([f0, f1, f2, f3]);
    if flags != 0 {
        found
            .problems
            .push(Problem::BadNote(format!("unknown flags {flags:#x}")));
    }
    match u64::from_le_bytes(stack) {
        0 => found.stack_size = Some(DEFAULT_STACK_SIZE),
        size if size.is_multiple_of(PAGE_SIZE)
            && (MIN_STACK_SIZE..=MAX_STACK_SIZE).contains(&size) =>
        {
            found.stack_size = Some(size);
        }
        size => found.problems.push(Problem::BadStackSize(size)),
    }
}
