//! Memory of our own that lies on a page boundary, as reads and writes past the page cache want it.
#![allow(unsafe_code, reason = "sees pages as bytes")]

use slice_abi::layout::PAGE_SIZE;

/// One page.
#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_SIZE as usize]);

const _: () = assert!(align_of::<Page>() == PAGE_SIZE as usize);

/// Some pages, zeroed at first.
pub struct Pages(Vec<Page>);

impl Pages {
    /// Room for `bytes`, rounded up to whole pages.
    pub fn new(bytes: usize) -> Self {
        let page = Page([0; PAGE_SIZE as usize]);
        Self(vec![page; bytes.div_ceil(PAGE_SIZE as usize)])
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        let pages = self.0.as_slice();
        // SAFETY: a page is an array of bytes, without padding (its size is its alignment), so that
        // this many of them are this many bytes, initialised and borrowed with `self`.
        unsafe { std::slice::from_raw_parts(pages.as_ptr().cast(), size_of_val(pages)) }
    }

    /// The bytes, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let pages = self.0.as_mut_slice();
        // SAFETY: as in `bytes`; any bytes are a valid page.
        unsafe { std::slice::from_raw_parts_mut(pages.as_mut_ptr().cast(), size_of_val(pages)) }
    }
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pages({})", self.0.len())
    }
}
