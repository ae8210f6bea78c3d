//! Keeps the monitor's resident memory small: a node runs a thousand of them.
#![allow(
    unsafe_code,
    reason = "advises the kernel about this program's own pages"
)]

unsafe extern "C" {
    /// The program's first byte and the first byte after its code, named by the linker.
    static __executable_start: u8;
    static etext: u8;
}

/// One heap for all threads. Each further one reserves address space and touches pages of its own
/// at the first allocation of each thread, which here is on the way to the first instruction.
pub fn use_one_arena() {
    // SAFETY: sets a parameter of the allocator; called before other threads exist.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Gives back the pages of code and constants that the start needed. What is still in use comes
/// back with a few minor faults; the rest, most of a megabyte, does not.
pub fn shed_startup_code() {
    const PAGE: usize = slice_abi::layout::PAGE_SIZE as usize;
    let start = (&raw const __executable_start as usize).next_multiple_of(PAGE);
    let end = (&raw const etext as usize) / PAGE * PAGE;
    if end > start {
        // SAFETY: the range holds only this program's read-only, file-backed pages, which the
        // kernel reads again from the file when they are next used. Gaps are an error it returns.
        unsafe { libc::madvise(start as *mut _, end - start, libc::MADV_DONTNEED) };
    }
}
