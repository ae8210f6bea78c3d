//! Fields at places of a frame that may be too short for them.

use super::Flaw;

/// The bytes from `at` on.
#[inline]
pub(super) fn chunk<const N: usize>(head: &[u8], at: usize) -> Result<&[u8; N], Flaw> {
    let bytes = head.get(at..).and_then(<[u8]>::first_chunk);
    bytes.ok_or(Flaw::Short)
}

#[inline]
pub(super) fn word(head: &[u8], at: usize) -> Result<u16, Flaw> {
    chunk(head, at).map(|bytes| u16::from_be_bytes(*bytes))
}

#[inline]
pub(super) fn byte(head: &[u8], at: usize) -> Result<u8, Flaw> {
    head.get(at).copied().ok_or(Flaw::Short)
}
