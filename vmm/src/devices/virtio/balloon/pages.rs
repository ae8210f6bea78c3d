//! Page numbers of the guest, as ranges of memory. Pure.

use slice_abi::info::Range;

/// Bytes of a page number, whatever the guest's pages are (virtio 1.2, 5.5.6).
pub const NUMBER_BYTES: usize = 4;
/// Bytes of a page, to a balloon (`VIRTIO_BALLOON_PFN_SHIFT`).
pub const PAGE_BYTES: u64 = 1 << 12;

/// Reads page numbers; what is left at the end and is none is left out.
pub fn parse(bytes: &[u8]) -> Vec<u32> {
    let numbers = bytes.as_chunks::<NUMBER_BYTES>().0;
    numbers.iter().map(|raw| u32::from_le_bytes(*raw)).collect()
}

/// The fewest ranges that hold exactly these pages, ascending. Pages named twice count once.
pub fn runs(mut numbers: Vec<u32>) -> Vec<Range> {
    numbers.sort_unstable();
    numbers.dedup();
    let neighbours = |a: &u32, b: &u32| a.checked_add(1) == Some(*b);
    numbers
        .chunk_by(neighbours)
        .map(|run| Range {
            start: u64::from(run[0]) * PAGE_BYTES,
            len: run.len() as u64 * PAGE_BYTES,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_remainder_is_no_number() {
        assert_eq!(parse(&[1, 0, 0, 0, 2, 0, 0]), [1]);
        assert!(parse(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn runs_hold_exactly_the_pages(
            numbers in prop::collection::vec(prop_oneof![0u32..40, u32::MAX - 3..=u32::MAX], 0..60),
        ) {
            let runs = runs(numbers.clone());
            for pair in runs.windows(2) {
                prop_assert!(pair[0].end() < pair[1].start);
            }
            let held: Vec<u64> = runs
                .iter()
                .flat_map(|run| (run.start..run.end()).step_by(PAGE_BYTES as usize))
                .collect();
            let mut named: Vec<u64> = numbers.iter().map(|n| u64::from(*n) * PAGE_BYTES).collect();
            named.sort_unstable();
            named.dedup();
            prop_assert_eq!(held, named);
        }
    }
}
