//! Memory of a native guest's machine that is not its RAM: what it may only read, the supervisor's
//! structures, the page tables. Mapped into the guest by page tables, unknown to devices.
#![allow(unsafe_code, reason = "accesses memory that guests share")]

use std::sync::atomic::{AtomicU64, Ordering};

use slice_abi::clock::ClockRecord;
use slice_abi::device::DeviceState;
use slice_abi::fault::FaultRecord;
use slice_abi::info::MAX_DEVICES;
use slice_abi::layout::PAGE_SIZE;
use slice_abi::quota::QuotaPage;

use super::mapping::{MapError, Mapping};

/// The system area.
#[derive(Debug)]
pub struct SystemArea {
    mapping: Mapping,
}

/// Offsets in the system area; the page tables follow the vCPU pages.
pub mod offset {
    /// The info page.
    pub const INFO: u64 = 0x0000;
    /// The arguments.
    pub const ARGS: u64 = 0x1000;
    /// The quota page.
    pub const QUOTA: u64 = 0x2000;
    /// The clock record.
    pub const CLOCK: u64 = 0x3000;
    /// Descriptor tables.
    pub const TABLES: u64 = 0x4000;
    /// Exception stubs.
    pub const STUBS: u64 = 0x5000;
    /// The device states.
    pub const STATES: u64 = 0x6000;
    /// The first vCPU page.
    pub const VCPU: u64 = 0x7000;
}

impl SystemArea {
    /// Maps `pages` pages.
    pub fn new(pages: usize) -> Result<Self, MapError> {
        let bytes = pages as u64 * PAGE_SIZE;
        let mapping = Mapping::new(bytes as usize, PAGE_SIZE as usize)
            .map_err(|source| MapError { bytes, source })?;
        Ok(Self { mapping })
    }

    /// Address in this process and length, for KVM.
    pub fn host_range(&self) -> (u64, u64) {
        (self.mapping.start.as_ptr() as u64, self.mapping.len as u64)
    }

    /// Copies bytes in, in words of eight; the last is filled up with zeros.
    ///
    /// # Panics
    /// If they do not fit or `offset` is not a multiple of eight: the layout is the monitor's own.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let offset = offset as usize;
        let room = bytes.len().next_multiple_of(8);
        assert!(offset.is_multiple_of(8));
        assert!(
            offset
                .checked_add(room)
                .is_some_and(|end| end <= self.mapping.len)
        );
        for (i, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            // SAFETY: the word lies inside the mapping and is aligned (both asserted), and all
            // access to this memory is atomic or volatile.
            let target = unsafe {
                AtomicU64::from_ptr(self.mapping.start.as_ptr().add(offset + i * 8).cast())
            };
            target.store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
    }

    /// The clock record.
    pub fn clock(&self) -> &ClockRecord {
        // SAFETY: the record lies inside the mapping, aligned to a page, was zeroed (a valid
        // value) by the kernel, and is made of atomics, which others may read at the same time.
        // The reference lives no longer than the mapping.
        unsafe {
            &*self
                .mapping
                .start
                .as_ptr()
                .add(offset::CLOCK as usize)
                .cast()
        }
    }

    /// The quota page.
    pub fn quota(&self) -> &QuotaPage {
        // SAFETY: as for the clock record: inside the mapping, aligned to a page, zeroed, atomics.
        unsafe {
            &*self
                .mapping
                .start
                .as_ptr()
                .add(offset::QUOTA as usize)
                .cast()
        }
    }

    /// The state of device `index` that the guest reads.
    pub fn device_state(&self, index: usize) -> &DeviceState {
        assert!(index < MAX_DEVICES);
        // SAFETY: the states fill their page of the mapping (asserted in the ABI), which was zeroed
        // (a valid value) by the kernel, and are made of atomics, which others may read at the same
        // time. The reference lives no longer than the mapping.
        unsafe {
            &*self
                .mapping
                .start
                .as_ptr()
                .add(offset::STATES as usize)
                .cast::<DeviceState>()
                .add(index)
        }
    }

    /// The record of an exception of vCPU `index`, read once its stub has reported.
    pub fn fault_record(&self, index: usize) -> FaultRecord {
        let offset = offset::VCPU
            + index as u64 * PAGE_SIZE
            + crate::boot::slice::platform::FAULT_RECORD_OFFSET;
        assert!(offset as usize + size_of::<FaultRecord>() <= self.mapping.len);
        // SAFETY: the record lies inside the mapping (asserted), on a multiple of 8, and any bytes
        // are a valid record. The vCPU that wrote it has left the guest.
        unsafe {
            self.mapping
                .start
                .as_ptr()
                .add(offset as usize)
                .cast::<FaultRecord>()
                .read_volatile()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_filled_up_with_zeros() {
        let area = SystemArea::new(1).unwrap();
        area.write(16, &[0xff; 16]);
        area.write(16, &[1, 2, 3]);
        // SAFETY: the bytes lie inside the mapping, and nobody else knows of it.
        let bytes = unsafe {
            area.mapping
                .start
                .as_ptr()
                .add(16)
                .cast::<[u8; 16]>()
                .read_volatile()
        };
        assert_eq!(bytes[..8], [1, 2, 3, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[8..], [0xff; 8]);
    }
}
