//! The heap: `talc` on the heap range of the info page, taken into use bit by bit.
//!
//! An allocator writes to both ends of what it owns, and the first touch of a page is dear. So it
//! owns little at first, then up to the first boundary of a large page, then one more large page
//! each time it runs out.
#![allow(
    unsafe_code,
    reason = "memory nobody else uses is handed to the allocator"
)]

use core::alloc::Layout;
use core::ptr::NonNull;

use slice_abi::info::Range;
use slice_abi::layout::LARGE_PAGE_SIZE;
use talc::TalcLock;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;

use super::identity::info;
use crate::sync::RawLock;

/// What the heap begins with: the allocator's own lists and some small things.
const FIRST: u64 = 16 << 10;

/// More than the allocator spends on a chunk and on aligning the ends of what it owns.
const OVERHEAD: u64 = 4 << 10;

#[global_allocator]
static HEAP: TalcLock<RawLock, HeapRange> = TalcLock::new(HeapRange { end: None });

/// How much of the range the allocator owns: from its start to `end`.
#[derive(Debug)]
struct HeapRange {
    end: Option<NonNull<u8>>,
}

// SAFETY: an address says nothing of who may use it.
unsafe impl Send for HeapRange {}

// SAFETY: nothing here allocates.
unsafe impl Source for HeapRange {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        let range = info().heap;
        let Some(end) = talc.source.end else {
            let len = FIRST.min(range.len);
            // SAFETY: the range is the guest's own and nobody else uses any of it.
            let end = unsafe { talc.claim(range.start as *mut u8, len as usize) };
            talc.source.end = end;
            return end.map(drop).ok_or(());
        };
        let owned = end.as_ptr() as u64;
        let wanted = (layout.size() as u64)
            .saturating_add(layout.align() as u64)
            .saturating_add(OVERHEAD);
        // SAFETY: as above, and `end` is where the one heap of this allocator ends.
        let end = unsafe { talc.extend(end, next_end(range, owned, wanted) as *mut u8) };
        talc.source.end = Some(end);
        if end.as_ptr() as u64 > owned {
            Ok(())
        } else {
            Err(())
        }
    }
}

/// Where the heap ends after growing by at least `wanted` if there is so much.
const fn next_end(range: Range, owned: u64, wanted: u64) -> u64 {
    let at_least = owned.saturating_add(wanted);
    match at_least.checked_next_multiple_of(LARGE_PAGE_SIZE) {
        Some(end) if end < range.end() => end,
        _ => range.end(),
    }
}

/// How far the heap has grown.
pub(super) fn end() -> usize {
    let end = HEAP.lock().source.end;
    end.map_or(0, |end| end.as_ptr() as usize)
}
