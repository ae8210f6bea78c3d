//! The node's ledger: a file in which every sliver tells the others what it was promised, what it
//! wants and what it has got, so that they can share the processors and the uplink without anybody in
//! the middle.
//!
//! Each sliver has a page that only it maps writable; it reads the others' through a descriptor
//! opened for reading. What they say is checked each time it is read, and reading is bounded work
//! whatever they write. A slot belongs to whoever holds the kernel's lock on its bytes, so that a
//! dead monitor's is free. That an entry tells the truth nobody checks here: see `slicectl ledger`.

mod error;
mod file;
mod guard;
mod layout;
mod mapping;
mod net;
#[cfg(test)]
mod tests;
mod view;

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::thread::futex;

pub use error::{Guaranteed, LedgerError, LedgerEvent, NetRefusal, Refusal};
pub use file::is_in_memory;
pub use layout::{Flaw, SLOTS};
pub use net::NetStatement;
pub use view::{LedgerView, State, Statement, ViewError, ViewedEntry};

use self::file::{LedgerFile, Unlock};
use self::layout::{FILE_BYTES, Header, PAGE, Record};
use self::mapping::{OwnPage, Pages};
use self::net::NetRecord;
use super::fair::{Claim, Rival};
use super::place::Place;
use crate::nanos::Nanos;
use crate::net::uplink::Membership;
use crate::spec::MilliCpu;

/// How much of the node can be reserved, in thousandths.
const RESERVABLE_PERMILLE: u32 = 1000;

/// How many taken slots a newcomer tries, in case their owners are dead, before it takes one that was
/// never used.
const PROBES: usize = 16;

/// What a sliver says at each look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// vCPUs that want to run; 0 if it is idle or throttled.
    pub demand: u32,
    /// Whether it has stepped back.
    pub waiting: bool,
    /// Where it runs.
    pub place: Place,
    /// Its virtual time.
    pub vtime: u64,
    /// Processor time that its process has used.
    pub service: Nanos,
}

/// A slot that has been taken for a sliver, on the way to its monitor. Closing the files gives it up.
#[derive(Debug)]
pub struct TakenSlot {
    /// The ledger, only to be read.
    pub reader: File,
    /// The ledger, to be written: its description holds the lock of the slot. Whoever has it can
    /// write what others say, so it is for [`Ledger::adopt`] and nobody else.
    pub writer: File,
    /// The slot.
    pub slot: usize,
}

/// A sliver's place in a ledger. Leaving is dropping it.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    processors: u32,
    reader: File,
    pages: Pages,
    own: OwnPage,
    said: Mutex<Said>,
    net: net::NetSaid,
}

/// Whom a slot is for, and what it claims.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Its process, by its number on the node.
    pub pid: u32,
    /// Its name.
    pub name: &'a str,
    /// What it claims of the processors.
    pub claim: Claim,
    /// What it claims of an uplink.
    pub uplink: Option<&'a Membership>,
}

impl Member<'_> {
    fn record(&self) -> Record {
        Record {
            pid: self.pid,
            claim: self.claim,
            demand: 0,
            waiting: false,
            place: Place::default(),
            vtime: 0,
            service: Nanos::ZERO,
            updated: Nanos::ZERO,
        }
    }
}

/// What the own page says, for those who write it: what is there may have been changed by others.
#[derive(Debug)]
struct Said {
    sequence: u32,
    record: Record,
}

impl Ledger {
    /// Takes a slot of the ledger at `path` for this process. The ledger is made if it is missing
    /// and replaced if it is corrupt. A reserve that does not fit is refused.
    pub fn join(
        path: &Path,
        name: &str,
        processors: u32,
        claim: Claim,
    ) -> Result<(Self, Option<LedgerEvent>), LedgerError> {
        let member = Member {
            pid: std::process::id(),
            name,
            claim,
            uplink: None,
        };
        let (taken, event) = Self::take(path, &member, processors)?;
        Ok((Self::adopt(taken, path, &member, processors)?, event))
    }

    /// Takes a slot for another process, which is to [`adopt`](Self::adopt) it. A reserve or a
    /// guarantee on the uplink that does not fit is refused.
    pub fn take(
        path: &Path,
        member: &Member<'_>,
        processors: u32,
    ) -> Result<(TakenSlot, Option<LedgerEvent>), LedgerError> {
        let path = std::path::absolute(path).map_err(|source| LedgerError::use_of(path, source))?;
        let (file, event) = file::open_locked(&path)?;
        let unlock = Unlock(&file.reader);
        let failed = |source| LedgerError::use_of(&path, source);
        let pages = Pages::map(&file.reader).map_err(failed)?;
        admit(&pages, &file.reader, None, member.claim.reserve, processors)?;
        let slot = take_slot(&file, &pages, &path)?;
        if let Some(uplink) = member.uplink {
            net::admit(&pages, &file.reader, slot, uplink)?;
        }
        // Room in the file system is taken here, where a lack of it is an error.
        let blank = [0; PAGE];
        let at = layout::page_offset(slot) as u64;
        file.writer.write_all_at(&blank, at).map_err(failed)?;
        let own = OwnPage::map(&file.writer, slot).map_err(failed)?;
        own.entry().write_name(member.name);
        own.entry().write(&mut 0, &member.record());
        own.entry()
            .net()
            .write(&mut 0, member.uplink.map(NetRecord::new).as_ref());
        let used = (slot + 1).max(last_taken(&pages)) as u32;
        file.writer
            .write_all_at(&used.to_ne_bytes(), Header::USED_OFFSET)
            .map_err(failed)?;
        drop(unlock);
        let LedgerFile { reader, writer, .. } = file;
        let taken = TakenSlot {
            reader,
            writer,
            slot,
        };
        Ok((taken, event))
    }

    /// Moves into a slot that was taken for this sliver, as what it was taken for. `path` is only for
    /// messages.
    pub fn adopt(
        taken: TakenSlot,
        path: &Path,
        member: &Member<'_>,
        processors: u32,
    ) -> Result<Self, LedgerError> {
        let TakenSlot {
            reader,
            writer,
            slot,
        } = taken;
        let failed = |source| LedgerError::use_of(path, source);
        if slot >= SLOTS {
            return Err(failed(io::ErrorKind::InvalidInput.into()));
        }
        let pages = Pages::map(&reader).map_err(failed)?;
        // The mapping keeps this description open, and with it the slot's lock.
        let own = OwnPage::map(&writer, slot).map_err(failed)?;
        let said = Said {
            sequence: own.entry().sequence(),
            record: member.record(),
        };
        Ok(Self {
            net: net::NetSaid::new(own.entry().net().sequence(), member.uplink),
            processors,
            reader,
            pages,
            own,
            said: Mutex::new(said),
            path: path.to_owned(),
        })
    }

    /// Its slot.
    pub fn slot(&self) -> usize {
        self.own.slot()
    }

    /// Changes what is claimed. A reserve that does not fit is refused and nothing is changed.
    pub fn set_claim(&self, claim: Claim) -> Result<(), LedgerError> {
        let _unlock = file::lock_for_now(&self.reader, &self.path)?;
        let slot = Some(self.slot());
        admit(
            &self.pages,
            &self.reader,
            slot,
            claim.reserve,
            self.processors,
        )?;
        self.write(|record| record.claim = claim);
        Ok(())
    }

    /// Tells the others. No system call.
    pub fn publish(&self, now: Nanos, entry: Published) {
        self.write(|record| {
            record.demand = entry.demand;
            record.waiting = entry.waiting;
            record.place = entry.place;
            record.vtime = entry.vtime;
            record.service = entry.service;
            record.updated = now;
        });
    }

    /// The others that want to run, as far as what they say makes sense and is of the present. No
    /// system call.
    pub fn rivals(&self, now: Nanos, out: &mut Vec<Rival>) {
        out.clear();
        let most = MilliCpu(self.processors.saturating_mul(1000));
        for (slot, entry) in self.pages.entries() {
            if slot == self.slot() || entry.is_idle() {
                continue;
            }
            let Some(record) = entry.read().filter(|record| record.is_fresh(now)) else {
                continue;
            };
            out.push(Rival {
                slot,
                claim: Claim {
                    reserve: record.claim.reserve.min(most),
                    ..record.claim
                },
                demand: record.demand,
                waiting: record.waiting,
                place: record.place,
                vtime: record.vtime,
            });
        }
    }

    /// The word that this sliver waits on when it has stepped back: a futex between processes.
    /// Others can wake who waits, but not change the word, so a wait needs an end of its own.
    pub fn word(&self) -> &AtomicU32 {
        self.own.word()
    }

    /// Wakes the sliver in a slot, if it waits.
    pub fn wake(&self, slot: usize) {
        if slot < SLOTS {
            let word = self.pages.entry(slot).word();
            // Not finding the page any more is found out elsewhere, too.
            let _ = futex::wake(word, futex::Flags::empty(), i32::MAX as u32);
        }
    }

    /// Whether this is still a ledger that has a name, and sound. Who finds that it is not drops it
    /// and asks for a slot in another. Where its name leads is not looked at: who keeps to its
    /// descriptors sees no names.
    pub fn is_current(&self) -> bool {
        let has_name = self
            .reader
            .metadata()
            .is_ok_and(|metadata| metadata.nlink() > 0 && metadata.len() == FILE_BYTES as u64);
        has_name
            && self.pages.header().check().is_ok()
            && self.pages.header().used() > self.slot()
            && self.own.entry().is_of(self.said().record.pid)
            && !self.pages.is_damaged()
            && !self.own.is_damaged()
    }

    fn write(&self, change: impl FnOnce(&mut Record)) {
        let mut said = self.said();
        change(&mut said.record);
        let Said { sequence, record } = &mut *said;
        self.own.entry().write(sequence, record);
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.leave_net();
        self.write(|record| {
            record.pid = 0;
            record.demand = 0;
        });
    }
}

/// Checks that a reserve fits beside those of all others that live.
fn admit(
    pages: &Pages,
    reader: &File,
    own: Option<usize>,
    wanted: MilliCpu,
    processors: u32,
) -> Result<(), LedgerError> {
    if wanted == MilliCpu(0) {
        return Ok(());
    }
    let total = processors.saturating_mul(RESERVABLE_PERMILLE);
    let mut taken: u32 = 0;
    for (slot, entry) in pages.entries() {
        let reserve = entry.read().map_or(0, |record| record.claim.reserve.0);
        // No more than anybody can have been admitted with.
        let reserve = reserve.min(total);
        if reserve > 0 && Some(slot) != own && file::is_slot_locked(reader, slot) {
            taken = taken.saturating_add(reserve);
        }
    }
    if taken.saturating_add(wanted.0) <= total {
        return Ok(());
    }
    Err(LedgerError::Refused(Refusal {
        wanted,
        taken: MilliCpu(taken),
        total: MilliCpu(total),
        processors,
    }))
}

/// Takes the lock of a slot: of one that was left, of a dead sliver's, or of a new one.
fn take_slot(file: &LedgerFile, pages: &Pages, path: &Path) -> Result<usize, LedgerError> {
    let used = pages.header().used();
    let free = pages.entries().filter(|(_, entry)| entry.is_free());
    // Not the same for each newcomer, so that in time all of the dead are found.
    let from = std::process::id() as usize % used.max(1);
    let probed = (from..used).chain(0..from).take(PROBES);
    let candidates = free
        .map(|(slot, _)| slot)
        .chain(probed)
        .chain(used..SLOTS)
        .chain(0..used);
    for slot in candidates {
        match file::try_lock_slot(&file.writer, slot) {
            Ok(true) => return Ok(slot),
            Ok(false) => {}
            Err(source) => return Err(LedgerError::use_of(path, source)),
        }
    }
    Err(LedgerError::Full(path.to_owned()))
}

/// One more than the highest slot that somebody seems to have.
fn last_taken(pages: &Pages) -> usize {
    let taken = pages.entries().filter(|(_, entry)| !entry.is_free());
    taken.last().map_or(0, |(slot, _)| slot + 1)
}
