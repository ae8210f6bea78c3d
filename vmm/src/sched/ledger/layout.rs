//! What the bytes of a ledger mean: a header page, then a page for each slot.
//!
//! Any process that may write the file may write anything at any moment, so everything is an atomic
//! and nothing is believed before it is checked. An entry is a sequence lock: its writer makes the
//! count odd, writes, and makes it even again; a reader that finds it odd or changed looks a few
//! times more and then takes the entry for absent. The entries begin at different offsets of their
//! pages, so that reading all of them does not use the same few cache lines for each.
#![allow(
    unsafe_code,
    reason = "shared memory is read and written in place, through references to atomics"
)]

use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};

use slice_abi::info::NAME_BYTES;
use slice_abi::layout::MAX_VCPUS;

use super::net::NetEntry;
use crate::nanos::Nanos;
use crate::sched::fair::Claim;
use crate::sched::place::Place;
use crate::spec::{MAX_SHARE, MilliCpu};

/// Bytes of a page.
pub(super) const PAGE: usize = 4096;

/// Slivers that find room in a ledger.
pub const SLOTS: usize = 4095;

/// Bytes of a ledger. The pages of slots that were never used are holes.
pub(super) const FILE_BYTES: usize = (SLOTS + 1) * PAGE;

/// The first bytes of a ledger.
pub(super) const MAGIC: [u8; 8] = *b"slcledgr";

/// Version of this layout.
pub(super) const VERSION: u32 = 2;

/// How often a reader tries to find an entry at rest.
pub(super) const ATTEMPTS: usize = 4;

/// An entry that wants to run and was not written for so long counts as idle: its writer is dead,
/// stopped, or gets no processor anyway. The same holds for one from the future.
pub(super) const STALE: Nanos = Nanos::from_millis(500);

/// Virtual time runs no faster than real time in the long run. An entry further ahead of the
/// clock than this is no use to anybody, and would push those who align with it to the end of
/// time.
const MAX_LEAD: Nanos = Nanos::from_millis(3_600_000);

const WAITING: u32 = 1 << 31;

/// The first page.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Header {
    magic: AtomicU64,
    version: AtomicU32,
    slots: AtomicU32,
    /// Slots from here on were never used.
    used: AtomicU32,
}

impl Header {
    /// Where the number of used slots is in the file.
    pub(super) const USED_OFFSET: u64 = std::mem::offset_of!(Self, used) as u64;

    /// The bytes of a new ledger's header.
    pub(super) fn initial() -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_ne_bytes());
        bytes[12..16].copy_from_slice(&(SLOTS as u32).to_ne_bytes());
        bytes
    }

    /// A copy of one in a file's first bytes.
    pub(super) fn from_bytes(bytes: &[u8; size_of::<Self>()]) -> Self {
        let word = |at: usize| {
            let bytes = bytes[at..at + 4].try_into().unwrap_or_default();
            AtomicU32::new(u32::from_ne_bytes(bytes))
        };
        let magic = bytes[..8].try_into().unwrap_or_default();
        Self {
            magic: AtomicU64::new(u64::from_ne_bytes(magic)),
            version: word(8),
            slots: word(12),
            used: word(16),
        }
    }

    /// What is wrong with it.
    pub(super) fn check(&self) -> Result<(), Flaw> {
        if self.magic.load(Relaxed) != u64::from_ne_bytes(MAGIC) {
            return Err(Flaw::Magic);
        }
        match self.version.load(Relaxed) {
            VERSION => {}
            other => return Err(Flaw::Version(other)),
        }
        if self.slots.load(Relaxed) != SLOTS as u32 || self.used.load(Relaxed) > SLOTS as u32 {
            return Err(Flaw::Slots);
        }
        Ok(())
    }

    /// How many slots may have been used, whatever is written there.
    pub(super) fn used(&self) -> usize {
        (self.used.load(Relaxed) as usize).min(SLOTS)
    }
}

/// Why a file is no sound ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Its length.
    #[error("it has {0} bytes, not {FILE_BYTES}")]
    Size(u64),
    /// Its first bytes.
    #[error("its first bytes are not a ledger's")]
    Magic,
    /// Its layout.
    #[error("it is of version {0}, not {VERSION}")]
    Version(u32),
    /// Its number of slots.
    #[error("its number of slots is wrong")]
    Slots,
}

/// What a sliver tells the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) pid: u32,
    pub(super) claim: Claim,
    pub(super) demand: u32,
    pub(super) waiting: bool,
    pub(super) place: Place,
    pub(super) vtime: u64,
    pub(super) service: Nanos,
    pub(super) updated: Nanos,
}

impl Record {
    /// Whether the entry speaks of the present.
    pub(super) fn is_fresh(&self, now: Nanos) -> bool {
        self.updated + STALE >= now
            && self.updated <= now + STALE
            && Nanos(self.vtime) <= now + MAX_LEAD
    }
}

/// A sliver's entry. What changes and is read all the time is in its first cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Entry {
    sequence: AtomicU32,
    word: AtomicU32,
    pid: AtomicU32,
    /// And, in the highest bit, whether it waits.
    demand: AtomicU32,
    share: AtomicU32,
    reserve: AtomicU32,
    ceiling: AtomicU32,
    processor: AtomicU32,
    vtime: AtomicU64,
    service: AtomicU64,
    updated: AtomicU64,
    until: AtomicU64,
    name: [AtomicU64; NAME_BYTES / 8],
    net: NetEntry,
}

const _: () = assert!(NAME_BYTES == 64 && size_of::<Entry>() == 192);

impl Entry {
    /// How often it was written, as its writer counts.
    pub(super) fn sequence(&self) -> u32 {
        self.sequence.load(Relaxed)
    }

    /// Writes it. `sequence` is the writer's own count, which nobody else can change.
    pub(super) fn write(&self, sequence: &mut u32, record: &Record) {
        let before = *sequence & !1;
        self.sequence.store(before | 1, Relaxed);
        fence(Release);
        self.pid.store(record.pid, Relaxed);
        let waiting = if record.waiting { WAITING } else { 0 };
        self.demand.store(record.demand | waiting, Relaxed);
        self.share.store(record.claim.share, Relaxed);
        self.reserve.store(record.claim.reserve.0, Relaxed);
        self.ceiling.store(record.claim.ceiling.0, Relaxed);
        self.processor.store(record.place.processor, Relaxed);
        self.until.store(record.place.until.0, Relaxed);
        self.vtime.store(record.vtime, Relaxed);
        self.service.store(record.service.0, Relaxed);
        self.updated.store(record.updated.0, Relaxed);
        *sequence = before.wrapping_add(2);
        self.sequence.store(*sequence, Release);
    }

    /// What it says, if it is at rest and makes sense.
    pub(super) fn read(&self) -> Option<Record> {
        for _ in 0..ATTEMPTS {
            let before = self.sequence.load(Acquire);
            let record = self.load();
            fence(Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Relaxed) == before {
                return record;
            }
            std::hint::spin_loop();
        }
        None
    }

    fn load(&self) -> Option<Record> {
        let demand = self.demand.load(Relaxed);
        let share = self.share.load(Relaxed);
        let most = MAX_VCPUS as u32;
        let pid = self.pid.load(Relaxed);
        let sane = i32::try_from(pid).is_ok_and(|pid| pid > 0) && (1..=MAX_SHARE).contains(&share);
        sane.then(|| Record {
            pid,
            claim: Claim {
                share,
                reserve: MilliCpu(self.reserve.load(Relaxed)),
                ceiling: MilliCpu(self.ceiling.load(Relaxed).clamp(1, most * 1000)),
            },
            demand: (demand & !WAITING).min(most),
            waiting: demand & WAITING != 0,
            place: Place {
                processor: self.processor.load(Relaxed),
                until: Nanos(self.until.load(Relaxed)),
            },
            vtime: self.vtime.load(Relaxed),
            service: Nanos(self.service.load(Relaxed)),
            updated: Nanos(self.updated.load(Relaxed)),
        })
    }

    /// Whether it does not want to run. A quick look.
    pub(super) fn is_idle(&self) -> bool {
        self.demand.load(Relaxed) & !WAITING == 0
    }

    /// Whether it says that nobody has it.
    pub(super) fn is_free(&self) -> bool {
        self.pid.load(Relaxed) == 0
    }

    /// Whether it says that this process has it.
    pub(super) fn is_of(&self, pid: u32) -> bool {
        self.pid.load(Relaxed) == pid
    }

    /// What it says of traffic.
    pub(super) fn net(&self) -> &NetEntry {
        &self.net
    }

    /// What its owner waits on.
    pub(super) fn word(&self) -> &AtomicU32 {
        &self.word
    }

    pub(super) fn write_name(&self, name: &str) {
        let mut bytes = [0; NAME_BYTES];
        let len = name.len().min(NAME_BYTES - 1);
        bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
        for (to, from) in self.name.iter().zip(bytes.chunks_exact(8)) {
            to.store(
                u64::from_ne_bytes(from.try_into().unwrap_or_default()),
                Relaxed,
            );
        }
    }

    /// Its name, or whatever is in its place.
    pub(super) fn name(&self) -> String {
        let mut bytes = Vec::with_capacity(NAME_BYTES);
        for part in &self.name {
            bytes.extend(part.load(Relaxed).to_ne_bytes());
        }
        let len = bytes.iter().position(|&byte| byte == 0);
        String::from_utf8_lossy(&bytes[..len.unwrap_or(NAME_BYTES)]).into_owned()
    }
}

/// Where the page of a slot begins in the file.
pub(super) const fn page_offset(slot: usize) -> usize {
    (1 + slot) * PAGE
}

/// Where in its page the entry of a slot begins.
pub(super) const fn entry_offset(slot: usize) -> usize {
    slot % (PAGE / size_of::<Entry>()) * size_of::<Entry>()
}

/// The header in a page.
///
/// # Safety
/// `page` is the beginning of a page that stays readable for `'a` and is only accessed atomically.
pub(super) unsafe fn header<'a>(page: NonNull<u8>) -> &'a Header {
    // SAFETY: as the caller says; a page is large enough and aligned, and atomics may have any value.
    unsafe { page.cast().as_ref() }
}

/// The entry of `slot` in its page.
///
/// # Safety
/// As for [`header`]; who writes to the entry has a page that may be written.
pub(super) unsafe fn entry<'a>(page: NonNull<u8>, slot: usize) -> &'a Entry {
    // SAFETY: as the caller says; the offset is a multiple of an entry's size, which is one of its
    // alignment, and less than as many of them as a page has room for, so that the entry lies in
    // the page and is aligned.
    unsafe { page.add(entry_offset(slot)).cast().as_ref() }
}
