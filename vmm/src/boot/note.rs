//! Notes of an ELF file (gABI, "Note Section"): finding those of one name and type.

/// The most bytes of one note segment that are looked at.
pub(crate) const MAX_NOTE_BYTES: u64 = 64 << 10;

/// The contents of all notes in `bytes` with this name, its terminator included, and this type.
pub(crate) fn find(mut bytes: &[u8], name: &[u8], kind: u32) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(12) {
        let word = |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
        let (name_len, desc_len) = (word(0) as usize, word(4) as usize);
        let Some((its_name, rest)) = split_padded(rest, name_len) else {
            break;
        };
        let Some((desc, rest)) = split_padded(rest, desc_len) else {
            break;
        };
        if its_name == name && word(8) == kind {
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
