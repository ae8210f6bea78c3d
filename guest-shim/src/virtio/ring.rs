//! The memory of a split virtqueue: what driver and device share (virtio 1.2, 2.7), and a little
//! that is the driver's own.
//!
//! All of it is made of atomics, so the device may write at any time. A small ring can be a static;
//! others are made on the heap, each on pages of its own, and last as long as the sliver.
#![allow(
    unsafe_code,
    reason = "rings need an alignment that a box does not give"
)]

use alloc::alloc::{alloc_zeroed, handle_alloc_error};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use slice_abi::layout::PAGE_SIZE;

/// The largest ring made on the heap.
pub(crate) const MAX_SIZE: u16 = 256;

/// Buffers of a chain that an indirect table has room for.
pub(crate) const TABLE_SIZE: usize = 4;

/// A queue's memory, for `N` descriptors: a power of two.
#[repr(C, align(16))]
#[derive(Debug)]
pub(crate) struct Ring<const N: usize> {
    descriptors: [Descriptor; N],
    available: Available<N>,
    used: Used<N>,
    slots: [Slot; N],
}

#[repr(C)]
#[derive(Debug)]
pub(super) struct Descriptor {
    pub(super) address: AtomicU64,
    pub(super) length: AtomicU32,
    pub(super) flags: AtomicU16,
    pub(super) next: AtomicU16,
}

impl Descriptor {
    const fn new() -> Self {
        Self {
            address: AtomicU64::new(0),
            length: AtomicU32::new(0),
            flags: AtomicU16::new(0),
            next: AtomicU16::new(0),
        }
    }
}

/// Both parts of a ring begin with this.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Header {
    pub(super) flags: AtomicU16,
    pub(super) index: AtomicU16,
}

impl Header {
    const fn new() -> Self {
        Self {
            flags: AtomicU16::new(0),
            index: AtomicU16::new(0),
        }
    }
}

/// What the driver offers. The word after the ring is only used with `EVENT_IDX`.
#[repr(C)]
#[derive(Debug)]
struct Available<const N: usize> {
    header: Header,
    heads: [AtomicU16; N],
    used_event: AtomicU16,
}

/// What the device gives back. The word after the ring is only used with `EVENT_IDX`.
#[repr(C)]
#[derive(Debug)]
struct Used<const N: usize> {
    header: Header,
    chains: [UsedChain; N],
    available_event: AtomicU16,
}

#[repr(C)]
#[derive(Debug)]
pub(super) struct UsedChain {
    pub(super) head: AtomicU32,
    pub(super) written: AtomicU32,
}

/// What the driver remembers of a descriptor. The device is not told where this is: what it does
/// to its own memory cannot lead the driver astray.
#[derive(Debug)]
pub(super) struct Slot {
    /// The next free descriptor, or the next of a chain.
    pub(super) next: AtomicU16,
    /// Of the head of a chain that the device has: its descriptors. Otherwise 0.
    pub(super) count: AtomicU16,
    /// Of such a head: bytes that the device may write.
    pub(super) writable: AtomicU32,
}

/// One chain's descriptors outside the ring (2.7.5.3).
pub(super) type Table = [Descriptor; TABLE_SIZE];

const _: () = {
    assert!(size_of::<Descriptor>() == 16);
    assert!(size_of::<Header>() == 4);
    assert!(size_of::<UsedChain>() == 8);
};

impl<const N: usize> Ring<N> {
    /// All zero.
    pub(crate) const fn new() -> Self {
        const { assert!(N.is_power_of_two() && N <= MAX_SIZE as usize) };
        Self {
            descriptors: [const { Descriptor::new() }; N],
            available: Available {
                header: Header::new(),
                heads: [const { AtomicU16::new(0) }; N],
                used_event: AtomicU16::new(0),
            },
            used: Used {
                header: Header::new(),
                chains: [const {
                    UsedChain {
                        head: AtomicU32::new(0),
                        written: AtomicU32::new(0),
                    }
                }; N],
                available_event: AtomicU16::new(0),
            },
            slots: [const {
                Slot {
                    next: AtomicU16::new(0),
                    count: AtomicU16::new(0),
                    writable: AtomicU32::new(0),
                }
            }; N],
        }
    }

    /// Its parts, whatever its size.
    pub(crate) fn parts(&'static self) -> Parts {
        Parts {
            descriptors: &self.descriptors,
            available: &self.available.header,
            heads: &self.available.heads,
            used_event: &self.available.used_event,
            used: &self.used.header,
            chains: &self.used.chains,
            available_event: &self.used.available_event,
            slots: &self.slots,
        }
    }

    /// One on the heap, at the beginning of a page.
    fn on_heap() -> Parts {
        let layout = Layout::new::<Self>().align_to(PAGE_SIZE as usize);
        let layout = layout.expect("a page is a power of two").pad_to_align();
        // SAFETY: the layout is not empty. A ring is made of atomic integers, for which zeros are
        // valid, the memory is large and aligned enough for it, and it is never freed.
        let ring: &'static Self = unsafe {
            let memory = alloc_zeroed(layout);
            if memory.is_null() {
                handle_alloc_error(layout);
            }
            &*memory.cast()
        };
        ring.parts()
    }
}

/// The parts of a ring of any size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts {
    pub(super) descriptors: &'static [Descriptor],
    pub(super) available: &'static Header,
    pub(super) heads: &'static [AtomicU16],
    pub(super) used_event: &'static AtomicU16,
    pub(super) used: &'static Header,
    pub(super) chains: &'static [UsedChain],
    pub(super) available_event: &'static AtomicU16,
    pub(super) slots: &'static [Slot],
}

impl Parts {
    /// Those of a new ring with room for at most `limit` descriptors, and at most [`MAX_SIZE`].
    pub(crate) fn on_heap(limit: u32) -> Self {
        match limit {
            0..2 => Ring::<1>::on_heap(),
            2..4 => Ring::<2>::on_heap(),
            4..8 => Ring::<4>::on_heap(),
            8..16 => Ring::<8>::on_heap(),
            16..32 => Ring::<16>::on_heap(),
            32..64 => Ring::<32>::on_heap(),
            64..128 => Ring::<64>::on_heap(),
            128..256 => Ring::<128>::on_heap(),
            256.. => Ring::<256>::on_heap(),
        }
    }

    /// Descriptors.
    pub(crate) fn size(&self) -> u16 {
        self.descriptors.len() as u16
    }

    /// Where the device finds the descriptors.
    pub(crate) fn descriptors_address(&self) -> u64 {
        self.descriptors.as_ptr() as u64
    }

    /// Where the device finds what the driver offers.
    pub(crate) fn available_address(&self) -> u64 {
        core::ptr::from_ref(self.available) as u64
    }

    /// Where the device puts what it gives back.
    pub(crate) fn used_address(&self) -> u64 {
        core::ptr::from_ref(self.used) as u64
    }

    /// Makes all as new, for a device in reset.
    pub(super) fn clear(&self) {
        for header in [self.available, self.used] {
            header.flags.store(0, Ordering::Relaxed);
            header.index.store(0, Ordering::Relaxed);
        }
        self.used_event.store(0, Ordering::Relaxed);
        self.available_event.store(0, Ordering::Relaxed);
        for (slot, next) in self.slots.iter().zip(1..) {
            slot.next.store(next, Ordering::Relaxed);
            slot.count.store(0, Ordering::Relaxed);
        }
    }

    /// A table for each descriptor, so that a chain costs the ring only one.
    pub(super) fn tables(&self) -> &'static [Table] {
        let tables: Vec<Table> = self
            .descriptors
            .iter()
            .map(|_| [const { Descriptor::new() }; TABLE_SIZE])
            .collect();
        Box::leak(tables.into_boxed_slice())
    }
}
