//! What slivers tell each other of their traffic: the second part of each entry, with a sequence of
//! its own, since it is written by whoever moves frames and not by those who run.
//!
//! As with the rest, anybody may have written anything: what is read is checked each time.

use std::fs::File;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::error::{Guaranteed, NetRefusal};
use super::file;
use super::layout::{ATTEMPTS, STALE};
use super::mapping::Pages;
use super::{Ledger, LedgerError};
use crate::nanos::Nanos;
use crate::net::uplink::{Kbit, Membership, NameHash, NetClaim, NetRival};
use crate::spec::MAX_SHARE;

/// Percent of an uplink that can be reserved for one slice, as on PlanetLab.
const SLICE_PERCENT: u64 = 25;

/// What a sliver says of its traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NetRecord {
    uplink: NameHash,
    slice: NameHash,
    claim: NetClaim,
    demand: Kbit,
    tx_bytes: u64,
    updated: Nanos,
}

impl NetRecord {
    /// That of a sliver that has sent nothing yet.
    pub(super) fn new(membership: &Membership) -> Self {
        Self {
            uplink: membership.uplink,
            slice: membership.slice,
            claim: membership.claim,
            demand: Kbit(0),
            tx_bytes: 0,
            updated: Nanos::ZERO,
        }
    }
}

/// What an entry says of its sliver's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetStatement {
    /// Stands for the name of the uplink's interface.
    pub uplink: NameHash,
    /// Stands for the name of the slice.
    pub slice: NameHash,
    /// What it claims.
    pub claim: NetClaim,
    /// What it wants.
    pub demand: Kbit,
    /// Bytes that it has sent.
    pub tx_bytes: u64,
    /// When it said so.
    pub updated: Nanos,
}

/// The part of an entry.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct NetEntry {
    sequence: AtomicU32,
    share: AtomicU32,
    min: AtomicU32,
    max: AtomicU32,
    demand: AtomicU32,
    /// 0: it is on none.
    uplink: AtomicU64,
    slice: AtomicU64,
    tx_bytes: AtomicU64,
    updated: AtomicU64,
}

const _: () = assert!(size_of::<NetEntry>() == 64);

impl NetEntry {
    /// How often it was written, as its writer counts.
    pub(super) fn sequence(&self) -> u32 {
        self.sequence.load(Relaxed)
    }

    /// Writes it. `sequence` is the writer's own count.
    pub(super) fn write(&self, sequence: &mut u32, record: Option<&NetRecord>) {
        let before = *sequence & !1;
        self.sequence.store(before | 1, Relaxed);
        fence(Release);
        self.uplink
            .store(record.map_or(0, |record| record.uplink.0), Relaxed);
        if let Some(record) = record {
            self.slice.store(record.slice.0, Relaxed);
            self.share.store(record.claim.share, Relaxed);
            self.min.store(record.claim.min.0, Relaxed);
            self.max.store(record.claim.max.0, Relaxed);
            self.demand.store(record.demand.0, Relaxed);
            self.tx_bytes.store(record.tx_bytes, Relaxed);
            self.updated.store(record.updated.0, Relaxed);
        }
        *sequence = before.wrapping_add(2);
        self.sequence.store(*sequence, Release);
    }

    /// What it says of an uplink that carries `rate`, if it is at rest and speaks of that uplink.
    fn read(&self, uplink: NameHash, rate: Kbit) -> Option<NetRecord> {
        for _ in 0..ATTEMPTS {
            let before = self.sequence.load(Acquire);
            let record = self.load(uplink, rate);
            fence(Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Relaxed) == before {
                return record;
            }
            std::hint::spin_loop();
        }
        None
    }

    fn load(&self, uplink: NameHash, rate: Kbit) -> Option<NetRecord> {
        let share = self.share.load(Relaxed);
        let sane = self.is_on(uplink) && (1..=MAX_SHARE).contains(&share);
        sane.then(|| NetRecord {
            uplink,
            slice: NameHash(self.slice.load(Relaxed)),
            claim: NetClaim {
                share,
                min: Kbit(self.min.load(Relaxed)).min(rate),
                max: Kbit(self.max.load(Relaxed)).min(rate),
            },
            demand: Kbit(self.demand.load(Relaxed)).min(rate),
            tx_bytes: self.tx_bytes.load(Relaxed),
            updated: Nanos(self.updated.load(Relaxed)),
        })
    }

    /// What it says of whatever uplink it is on, for people to look at.
    pub(super) fn said(&self) -> Option<NetStatement> {
        let uplink = NameHash(self.uplink.load(Relaxed));
        let record = (uplink.0 != 0).then(|| self.read(uplink, Kbit(u32::MAX)))??;
        Some(NetStatement {
            uplink,
            slice: record.slice,
            claim: record.claim,
            demand: record.demand,
            tx_bytes: record.tx_bytes,
            updated: record.updated,
        })
    }

    /// Whether it speaks of an uplink. A quick look.
    fn is_on(&self, uplink: NameHash) -> bool {
        self.uplink.load(Relaxed) == uplink.0
    }
}

/// What the own entry says of traffic, for those who write it.
#[derive(Debug)]
pub(super) struct NetSaid(Mutex<Said>);

#[derive(Debug)]
struct Said {
    sequence: u32,
    rate: Kbit,
    record: Option<NetRecord>,
}

impl NetSaid {
    /// For a page that says `uplink` in its write number `sequence`.
    pub(super) fn new(sequence: u32, uplink: Option<&Membership>) -> Self {
        Self(Mutex::new(Said {
            sequence,
            rate: uplink.map_or(Kbit(0), |uplink| uplink.rate),
            record: uplink.map(NetRecord::new),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// Takes a place on an uplink, or changes what is claimed there. A guarantee that does not fit
    /// beside those of the others is refused, and nothing is changed.
    pub fn set_net(&self, wanted: &Membership) -> Result<(), LedgerError> {
        let _unlock = file::lock_for_now(&self.reader, &self.path)?;
        admit(&self.pages, &self.reader, self.slot(), wanted)?;
        let mut said = self.net.lock();
        let before = said.record.filter(|before| before.uplink == wanted.uplink);
        said.rate = wanted.rate;
        let anew = NetRecord::new(wanted);
        said.record = Some(before.map_or(anew, |before| NetRecord {
            slice: wanted.slice,
            claim: wanted.claim,
            ..before
        }));
        self.write_net(&mut said);
        Ok(())
    }

    /// Tells the others on the uplink what this sliver wants of it, and what it has sent so far. No
    /// system call; nothing, if it is on none.
    pub fn publish_net(&self, now: Nanos, demand: Kbit, tx_bytes: u64) {
        let mut said = self.net.lock();
        if let Some(record) = &mut said.record {
            (record.demand, record.tx_bytes, record.updated) = (demand, tx_bytes, now);
            self.write_net(&mut said);
        }
    }

    /// The others on the uplink, by their slots, as far as what they say makes sense and is of the
    /// present. No system call.
    pub fn net_rivals(&self, now: Nanos, out: &mut Vec<NetRival>) {
        out.clear();
        let (uplink, rate) = {
            let said = self.net.lock();
            let Some(record) = &said.record else {
                return;
            };
            (record.uplink, said.rate)
        };
        for (slot, entry) in self.pages.entries() {
            if slot == self.slot() || !entry.net().is_on(uplink) {
                continue;
            }
            let record = entry.net().read(uplink, rate);
            let fresh =
                |record: &NetRecord| record.updated + STALE >= now && record.updated <= now + STALE;
            if let Some(record) = record.filter(fresh) {
                out.push(NetRival {
                    slot,
                    claim: record.claim,
                    demand: record.demand,
                    tx_bytes: record.tx_bytes,
                });
            }
        }
    }

    /// Says that this sliver is on no uplink any more.
    pub fn leave_net(&self) {
        let mut said = self.net.lock();
        said.record = None;
        self.write_net(&mut said);
    }

    fn write_net(&self, said: &mut Said) {
        let Said {
            sequence, record, ..
        } = said;
        self.own.entry().net().write(sequence, record.as_ref());
    }
}

/// Checks that a guarantee fits on the uplink beside those of all others that live, and beside
/// those of its slice.
pub(super) fn admit(
    pages: &Pages,
    reader: &File,
    own: usize,
    wanted: &Membership,
) -> Result<(), LedgerError> {
    if wanted.claim.min == Kbit(0) {
        return Ok(());
    }
    let rate = u64::from(wanted.rate.0);
    let (mut all, mut slice): (u64, u64) = (0, 0);
    for (slot, entry) in pages.entries() {
        if slot == own || !entry.net().is_on(wanted.uplink) {
            continue;
        }
        let Some(record) = entry.net().read(wanted.uplink, wanted.rate) else {
            continue;
        };
        if record.claim.min > Kbit(0) && file::is_slot_locked(reader, slot) {
            // At most 4095 times 2^32.
            all += u64::from(record.claim.min.0);
            if record.slice == wanted.slice {
                slice += u64::from(record.claim.min.0);
            }
        }
    }
    let min = u64::from(wanted.claim.min.0);
    let bounds = [
        (Guaranteed::ToSlice, slice, rate * SLICE_PERCENT / 100),
        (Guaranteed::ToAll, all, rate),
    ];
    for (to, taken, total) in bounds {
        if min + taken > total {
            return Err(LedgerError::NetRefused(NetRefusal {
                to,
                wanted: min,
                taken,
                total,
                rate,
            }));
        }
    }
    Ok(())
}
