//! The fixed points of the address space. Everything not here is found through the info page.

/// Bytes in a page: the unit of protection.
pub const PAGE_SIZE: u64 = 4096;

/// Bytes in a large page. RAM begins on this boundary, and the heap from its first such boundary
/// on is mapped with large pages, where a first touch is about ten times cheaper per byte.
pub const LARGE_PAGE_SIZE: u64 = 2 << 20;

/// Where the sliver's RAM begins, as virtual and as guest physical address. Images are linked to
/// run from here (`--image-base=0x200000`); the 2 MiB below hold the null page and the windows.
pub const RAM_BASE: u64 = 0x20_0000;

/// The highest `RAM_BASE + memory` a monitor may offer: 64 GiB, inside the physical address width
/// of every 64-bit processor.
pub const RAM_LIMIT: u64 = 64 << 30;

/// The most loadable segments an image may have.
pub const MAX_SEGMENTS: usize = 16;

/// The most vCPUs a native sliver may have.
pub const MAX_VCPUS: usize = 32;

/// Stack of each vCPU when the image's note asks for nothing else.
pub const DEFAULT_STACK_SIZE: u64 = 256 << 10;

/// The smallest stack an image may ask for.
pub const MIN_STACK_SIZE: u64 = 16 << 10;

/// The largest stack an image may ask for.
pub const MAX_STACK_SIZE: u64 = 64 << 20;
