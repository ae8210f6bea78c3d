//! The slice note of an image (see `slice_abi::note`): finding it and checking it.

use slice_abi::ABI_VERSION;
use slice_abi::layout::{DEFAULT_STACK_SIZE, MAX_STACK_SIZE, MIN_STACK_SIZE, PAGE_SIZE};
use slice_abi::note::{NOTE_NAME, NOTE_TYPE, NoteDesc};

use super::{Examination, Problem};

/// The contents of all slice notes among the notes in `bytes` (gABI, "Note Section").
pub(super) fn find(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(12) {
        let word = |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
        let (name_len, desc_len, kind) = (word(0) as usize, word(4) as usize, word(8));
        let Some((name, rest)) = split_padded(rest, name_len) else {
            break;
        };
        let Some((desc, rest)) = split_padded(rest, desc_len) else {
            break;
        };
        if name == NOTE_NAME && kind == NOTE_TYPE {
            found.push(desc.to_vec());
        }
        bytes = rest;
    }
    found
}

/// The first `len` bytes, and what follows them at the next multiple of four.
fn split_padded(bytes: &[u8], len: usize) -> Option<(&[u8], &[u8])> {
    let rest = bytes.get(len.checked_next_multiple_of(4)?.min(bytes.len())..)?;
    Some((bytes.get(..len)?, rest))
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
