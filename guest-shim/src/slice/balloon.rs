//! The balloon of a slice, over its heap.
#![allow(unsafe_code, reason = "memory is taken from the heap by hand")]

use alloc::alloc::{alloc, dealloc};
use alloc::boxed::Box;
use core::alloc::Layout;
use core::future::poll_fn;

use slice_abi::device::device_id;

use super::device::{self, Registers};
use super::{heap, task};
use crate::sync::Mutex;
use crate::virtio::balloon::{Balloon, Memory};

/// Bytes that a program is left with in one piece, whatever the host wishes.
const RESERVE: usize = 4 << 20;

type Device = Balloon<Registers, Heap>;

pub(crate) fn follow() {
    if let Some(balloon) = balloon() {
        balloon.follow();
        task::attend();
    }
}

pub(crate) async fn report_free() -> u64 {
    let Some(balloon) = balloon() else {
        return 0;
    };
    let bytes = balloon.begin_report();
    poll_fn(|context| balloon.reported(context)).await;
    bytes
}

/// The first balloon of the table; it comes up when first used.
fn balloon() -> Option<&'static Device> {
    static BALLOON: Mutex<Option<&'static Device>> = Mutex::new(None);
    let mut balloon = BALLOON.lock();
    if balloon.is_none() {
        let found = device::find(device_id::BALLOON).next()?;
        let entry = found.entry;
        let started: &'static Device = Box::leak(Box::new(Balloon::new(
            found.registers(),
            found.state(),
            entry.features,
            entry.queue_size_max,
            Heap,
        )));
        task::register(started);
        *balloon = Some(started);
    }
    *balloon
}

struct Heap;

fn block(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, bytes).expect("blocks are powers of two")
}

impl Memory for Heap {
    fn take(&self, bytes: usize) -> Option<usize> {
        // SAFETY: neither layout is empty; the reserve is given back at once, as it was taken.
        unsafe {
            let taken = alloc(block(bytes));
            let reserve = alloc(block(RESERVE));
            if reserve.is_null() {
                if !taken.is_null() {
                    dealloc(taken, block(bytes));
                }
                return None;
            }
            dealloc(reserve, block(RESERVE));
            (!taken.is_null()).then_some(taken as usize)
        }
    }

    fn take_used(&self, bytes: usize) -> Option<usize> {
        // What the heap has not grown into was never touched, and the host has it still.
        let end = heap::end();
        let taken = self.take(bytes)?;
        if taken + bytes > end {
            // SAFETY: just taken, with this size.
            unsafe { self.give_back(taken, bytes) };
            return None;
        }
        Some(taken)
    }

    unsafe fn give_back(&self, address: usize, bytes: usize) {
        // SAFETY: as the caller promises.
        unsafe { dealloc(address as *mut u8, block(bytes)) }
    }
}
