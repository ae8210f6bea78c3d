//! Where everything of a native sliver goes: pure arithmetic on checked inputs.

use slice_abi::info::Range;
use slice_abi::layout::{LARGE_PAGE_SIZE, PAGE_SIZE, RAM_BASE, RAM_LIMIT};

use super::elf::NativeImage;

/// Fixed virtual addresses below RAM, all in the first 2 MiB so that one page table maps them.
/// The guest finds those that concern it through the info page. What is a window of registers has
/// the same guest physical address; the rest is backed by the system area.
pub mod low {
    /// The info page.
    pub const INFO: u64 = 0x1000;
    /// The arguments.
    pub const ARGS: u64 = 0x2000;
    /// The quota page.
    pub const QUOTA: u64 = 0x3000;
    /// The clock record.
    pub const CLOCK: u64 = 0x4000;
    /// Global and interrupt descriptor tables; supervisor only.
    pub const TABLES: u64 = 0x5000;
    /// The exception stubs; supervisor only.
    pub const STUBS: u64 = 0x6000;
    /// The device states.
    pub const STATES: u64 = 0x7000;
    /// One page per vCPU: task state and exception stack; supervisor only.
    pub const VCPU: u64 = 0x8000;
    /// The `FAULT` page; supervisor only.
    pub const FAULT: u64 = 0x4_0000;
    /// The control window.
    pub const CONTROL: u64 = 0x4_1000;
    /// The first device window.
    pub const DEVICES: u64 = 0x8_0000;
}

/// Heap that an image needs at the least to be worth starting.
const MIN_HEAP: u64 = 64 << 10;

/// The memory of the spec does not hold the image and its stacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "memory of {memory_mib} MiB is too small for this image with its stacks: it needs at least \
     {needed_mib} MiB"
)]
pub struct TooSmall {
    memory_mib: u64,
    needed_mib: u64,
}

/// The layout of one sliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    memory: u64,
    image: Range,
    vcpus: usize,
    stack_size: u64,
}

impl Layout {
    /// Lays out `image` in `memory` bytes of RAM with a stack for each of `vcpus`.
    pub fn new(image: &NativeImage, memory: u64, vcpus: usize) -> Result<Self, TooSmall> {
        let (start, end) = image.pages();
        let image_range = Range {
            start,
            len: end - start,
        };
        let layout = Self {
            memory,
            image: image_range,
            vcpus,
            stack_size: image.stack_size(),
        };
        let needed = layout.heap_start() + MIN_HEAP - RAM_BASE;
        if needed > memory || RAM_BASE + memory > RAM_LIMIT {
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            return Err(TooSmall {
                memory_mib: mib(memory),
                needed_mib: mib(needed),
            });
        }
        Ok(layout)
    }

    /// All of RAM.
    pub fn ram(&self) -> Range {
        Range {
            start: RAM_BASE,
            len: self.memory,
        }
    }

    /// The pages of the image.
    pub fn image(&self) -> Range {
        self.image
    }

    /// Number of vCPUs.
    pub fn vcpus(&self) -> usize {
        self.vcpus
    }

    /// Distance from one stack to the next: a guard page and the stack above it.
    pub fn stack_stride(&self) -> u64 {
        PAGE_SIZE + self.stack_size
    }

    /// The stack of vCPU `index`.
    pub fn stack(&self, index: usize) -> Range {
        let start = self.image.end() + index as u64 * self.stack_stride() + PAGE_SIZE;
        Range {
            start,
            len: self.stack_size,
        }
    }

    /// All stacks with their guard pages.
    pub fn stacks(&self) -> Range {
        Range {
            start: self.image.end(),
            len: self.vcpus as u64 * self.stack_stride(),
        }
    }

    /// What is left for the guest.
    pub fn heap(&self) -> Range {
        Range {
            start: self.heap_start(),
            len: RAM_BASE + self.memory - self.heap_start(),
        }
    }

    /// Where RAM begins to be mapped, and asked of the host, in large pages. What lies below
    /// (image, stacks, the beginning of the heap) stays in small pages, so that a small sliver
    /// never pays for a large one.
    pub fn large_pages(&self) -> Range {
        let start = self.heap_start().next_multiple_of(LARGE_PAGE_SIZE);
        let end = (RAM_BASE + self.memory) / LARGE_PAGE_SIZE * LARGE_PAGE_SIZE;
        Range {
            start: start.min(end),
            len: end.saturating_sub(start),
        }
    }

    /// Guest physical address of the system area: beyond RAM, with room between.
    pub fn system_base(&self) -> u64 {
        (RAM_BASE + self.memory).next_multiple_of(LARGE_PAGE_SIZE) + LARGE_PAGE_SIZE
    }

    fn heap_start(&self) -> u64 {
        self.stacks().end()
    }

    /// What lies at a virtual address, in words for a person who reads of a fault there.
    pub fn describe(&self, address: u64) -> Option<String> {
        if address < PAGE_SIZE {
            return Some("the null page".to_owned());
        }
        if address < RAM_BASE {
            return Some("the monitor's pages below RAM".to_owned());
        }
        if self.image.contains(address) {
            return Some("the image".to_owned());
        }
        if self.stacks().contains(address) {
            let index = (address - self.image.end()) / self.stack_stride();
            let guard = (address - self.image.end()) % self.stack_stride() < PAGE_SIZE;
            return Some(if guard {
                format!("the guard page below the stack of vCPU {index}: stack overflow")
            } else {
                format!("the stack of vCPU {index}")
            });
        }
        if self.heap().contains(address) {
            return Some("the heap".to_owned());
        }
        (address >= self.ram().end()).then(|| "beyond the end of memory".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::slice::elf::tests::image_of;

    const MIB: u64 = 1 << 20;

    #[test]
    fn parts_follow_each_other_and_fill_ram() {
        let image = image_of(&[(RAM_BASE, 0x2345), (RAM_BASE + 0x4000, 0x1)]);
        let layout = Layout::new(&image, 64 * MIB, 3).unwrap();
        assert_eq!(
            layout.image(),
            Range {
                start: RAM_BASE,
                len: 0x5000
            }
        );
        assert_eq!(layout.stacks().start, layout.image().end());
        assert_eq!(layout.stack(0).start, layout.image().end() + PAGE_SIZE);
        assert_eq!(layout.stack(1).start, layout.stack(0).end() + PAGE_SIZE);
        assert_eq!(layout.heap().start, layout.stack(2).end());
        assert_eq!(layout.heap().end(), RAM_BASE + 64 * MIB);
    }

    #[test]
    fn large_pages_begin_after_the_stacks_and_end_inside_ram() {
        let image = image_of(&[(RAM_BASE, 100)]);
        let layout = Layout::new(&image, 7 * MIB, 1).unwrap();
        let large = layout.large_pages();
        assert_eq!(
            large,
            Range {
                start: RAM_BASE + 2 * MIB,
                len: 4 * MIB
            }
        );
        let small = Layout::new(&image, MIB, 1).unwrap();
        assert_eq!(small.large_pages().len, 0);
    }

    #[test]
    fn an_image_that_does_not_fit_is_told_what_it_needs() {
        let image = image_of(&[(RAM_BASE, 3 * MIB)]);
        let error = Layout::new(&image, 3 * MIB, 1).unwrap_err();
        assert_eq!(error.needed_mib, 4);
        assert!(Layout::new(&image, 4 * MIB, 1).is_ok());
        let far = image_of(&[(RAM_LIMIT - PAGE_SIZE, PAGE_SIZE)]);
        assert!(Layout::new(&far, 64 * MIB, 1).is_err());
    }

    #[test]
    fn addresses_are_described() {
        let image = image_of(&[(RAM_BASE, 100)]);
        let layout = Layout::new(&image, 8 * MIB, 2).unwrap();
        let says = |address: u64| layout.describe(address).unwrap_or_default();
        assert_eq!(says(8), "the null page");
        assert_eq!(says(RAM_BASE + 1), "the image");
        assert!(says(layout.stack(1).start - 1).contains("vCPU 1: stack overflow"));
        assert_eq!(says(layout.stack(1).start), "the stack of vCPU 1");
        assert_eq!(says(layout.ram().end()), "beyond the end of memory");
    }
}
