//! Loads a native image through the slice ABI (see the crate `slice-abi`).
//!
//! [`elf`] checks the file, [`layout`] decides where everything goes, [`paging`] and [`platform`]
//! make the page tables and the supervisor's few structures, [`load`] puts it all into memory.

pub mod elf;
pub mod layout;
pub mod load;
pub mod paging;
pub mod platform;

pub use elf::{Examination, NativeImage, Problem, Segment, examine};
