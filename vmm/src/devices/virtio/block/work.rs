//! Does the requests of one disk: job after job until each is done, in whatever order they end.
//!
//! A request is one job, mostly. It is several if the host does less than it was asked, if it has
//! several segments, or if its memory has to be copied (see [`super::lane`]). Flushes are joined:
//! those that come while the disk is being synced wait for the next sync, all for the same.
#![allow(unsafe_code, reason = "hands guest memory to an engine")]

use std::io;

use crate::devices::guest_io::{FromGuest, ToGuest, Unreachable};
use crate::devices::virtio::backend::Counter;
use crate::devices::virtio::chain::Chain;
use crate::disk::Disk;
use crate::disk::aligned::Pages;
use crate::disk::engine::{Completion, Engine, Extent, Job, Vectors};
use crate::kvm::memory::GuestRam;

use super::lane::{LANE_BYTES, Lane, suits};
use super::request::{HEADER_BYTES, Request};
use super::slots::{Index, Slots, ZeroBy};
use super::tally::Tally;

/// The token of the sync that flushes wait for.
const SYNC: Index = Index::MAX;
/// A job that comes back so often without having been done has failed.
const MAX_RETRIES: u32 = 64;
/// Zeros that are written at once: this many bytes, this often.
const ZERO_BYTES: usize = 64 << 10;
const ZERO_REPEATS: u64 = 64;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Done,
    Failed,
    Unsupported,
}

/// The work on one disk.
#[derive(Debug)]
pub(super) struct Work {
    /// The first to go: it waits for what uses the memory of the others.
    engine: Box<dyn Engine>,
    pub(super) disk: Disk,
    pub(super) slots: Slots,
    pub(super) tally: Tally,
    pub(super) lane: Lane,
    /// Requests that have ended and have not been given back.
    pub(super) ended: Vec<(Index, End)>,
    tag: String,
    /// Writes are durable when they are done: the driver does not know of flushes.
    write_through: bool,
    syncing: Vec<Index>,
    to_sync: Vec<Index>,
    /// What was not made durable may be lost, and the host would not say so again.
    sync_failed: Option<i32>,
    zeros: Option<Pages>,
    /// Bytes of zeros that were written since somebody asked.
    zeroed: u64,
    completions: Vec<Completion>,
}

impl Work {
    /// Work on `disk` by `engine`.
    pub(super) fn new(disk: Disk, engine: Box<dyn Engine>, tag: &str) -> Self {
        Self {
            disk,
            slots: Slots::default(),
            tally: Tally::default(),
            lane: Lane::default(),
            ended: Vec::new(),
            engine,
            tag: tag.to_owned(),
            write_through: false,
            syncing: Vec::new(),
            to_sync: Vec::new(),
            sync_failed: None,
            zeros: None,
            zeroed: 0,
            completions: Vec::new(),
        }
    }

    /// From now on, writes are durable when they are done, or else when they are flushed.
    pub(super) fn set_write_through(&mut self, write_through: bool) {
        self.write_through = write_through;
    }

    /// What does its jobs.
    pub(super) fn engine(&mut self) -> &mut dyn Engine {
        self.engine.as_mut()
    }

    /// Begins a request. Its chain is exchanged for another, whose memory can be used.
    pub(super) fn begin(&mut self, chain: &mut Chain, request: Request, ram: &GuestRam) {
        let sync = match request {
            Request::Flush => true,
            Request::WriteZeroes(_) => self.write_through,
            _ => false,
        };
        let index = self.slots.begin(chain, request, sync);
        self.step(index, ram);
    }

    /// Submits what was begun. `false`: it has to be tried again.
    pub(super) fn submit(&mut self) -> bool {
        if self.syncing.is_empty() && !self.to_sync.is_empty() {
            std::mem::swap(&mut self.syncing, &mut self.to_sync);
            self.tally.syncs += 1;
            self.queue(SYNC, Job::Sync);
        }
        self.engine.submit()
    }

    /// Takes what is done and goes on with it. Whether there was anything.
    pub(super) fn reap(&mut self, ram: &GuestRam) -> bool {
        let mut completions = std::mem::take(&mut self.completions);
        self.engine.reap(&mut completions);
        let any = !completions.is_empty();
        for completion in completions.drain(..) {
            self.completed(completion, ram);
        }
        while let Some(next) = self.lane.take_next() {
            self.step(next, ram);
        }
        self.completions = completions;
        any
    }

    /// Bytes of zeros that had to be written since this was asked last.
    pub(super) fn take_zeroed(&mut self) -> u64 {
        std::mem::take(&mut self.zeroed)
    }

    /// Forgets every request. Whether nothing uses guest memory any more; if something does, it is
    /// told when that is done.
    pub(super) fn forget(&mut self) -> bool {
        loop {
            self.engine.submit();
            self.engine.reap(&mut self.completions);
            self.completions.clear();
            if self.engine.in_flight() == 0 {
                break;
            }
            if !self.engine.listen() {
                return false;
            }
        }
        self.slots.end_all();
        self.lane.end_all();
        self.ended.clear();
        self.syncing.clear();
        self.to_sync.clear();
        true
    }

    /// All counters.
    pub(super) fn counters(&self) -> Vec<Counter> {
        let mut counters = self.tally.counters();
        counters.extend([
            ("in_flight_max", self.slots.most_used() as u64),
            ("submissions", self.engine.submissions()),
            ("io_uring", self.engine.is_ring().into()),
        ]);
        counters
    }

    /// Does the next thing for a request.
    pub(super) fn step(&mut self, index: Index, ram: &GuestRam) {
        let slot = self.slots.get(index);
        let Some(left) = slot.left() else {
            return match std::mem::take(&mut slot.sync) {
                true => self.join_sync(index),
                false => self.end(index, End::Done),
            };
        };
        match (&slot.request, slot.zero_by) {
            (Request::Read(_) | Request::Write(_), _) => self.move_data(index, left, ram),
            (Request::WriteZeroes(_), ZeroBy::Unmapping) => self.queue(index, Job::Unmap(left)),
            (Request::WriteZeroes(_), ZeroBy::Marking) => self.queue(index, Job::Zero(left)),
            (Request::WriteZeroes(_), ZeroBy::Writing) => self.write_zeros(index, left, ram),
            (Request::Discard(_), _) => self.queue(index, Job::Discard(left)),
            (Request::Flush | Request::Serial, _) => self.end(index, End::Done),
        }
    }

    fn move_data(&mut self, index: Index, left: Extent, ram: &GuestRam) {
        let slot = self.slots.get(index);
        let read = matches!(slot.request, Request::Read(_));
        let (buffers, skip) = match read {
            true => (&slot.chain.writable, slot.done),
            false => (&slot.chain.readable, slot.done + HEADER_BYTES as u64),
        };
        if let Some(alignment) = self.disk.direct()
            && !suits(alignment, left, buffers, skip)
        {
            return self.use_lane(index, left, alignment, ram);
        }
        // What is left after a piece that had to go through it may go without.
        self.lane.leave(index);
        let vectors = if read {
            let mut vectors = slot.room.begin::<ToGuest>(ram);
            vectors.add(buffers, skip, left.len).map(|_| Vectors {
                first: vectors.as_ptr(),
                count: vectors.count() as u32,
            })
        } else {
            let mut vectors = slot.room.begin::<FromGuest>(ram);
            vectors.add(buffers, skip, left.len).map(|_| Vectors {
                first: vectors.as_ptr(),
                count: vectors.count() as u32,
            })
        };
        self.queue_move(index, vectors, left.at, read);
    }

    fn write_zeros(&mut self, index: Index, left: Extent, ram: &GuestRam) {
        if let Some(alignment) = self.disk.direct()
            && !suits(alignment, left, &[], 0)
        {
            self.zeroed += left.len.min(LANE_BYTES);
            return self.use_lane(index, left, alignment, ram);
        }
        self.lane.leave(index);
        let zeros = self.zeros.get_or_insert_with(|| Pages::new(ZERO_BYTES));
        let mut vectors = self.slots.get(index).room.begin::<FromGuest>(ram);
        let mut wanted = left.len.min(ZERO_BYTES as u64 * ZERO_REPEATS);
        self.zeroed += wanted;
        while wanted > 0 {
            let part = wanted.min(ZERO_BYTES as u64);
            vectors.add_own(&zeros.bytes()[..part as usize]);
            wanted -= part;
        }
        let vectors = Vectors {
            first: vectors.as_ptr(),
            count: vectors.count() as u32,
        };
        self.queue_move(index, Ok(vectors), left.at, false);
    }

    /// Queues a read or write of the vectors in the slot's room.
    pub(super) fn queue_move(
        &mut self,
        index: Index,
        vectors: Result<Vectors, Unreachable>,
        at: u64,
        read: bool,
    ) {
        match vectors {
            Ok(vectors) if read => self.queue(index, Job::Read(vectors, at)),
            Ok(vectors) if self.write_through => self.queue(index, Job::WriteThrough(vectors, at)),
            Ok(vectors) => self.queue(index, Job::Write(vectors, at)),
            // The chain was checked when it was taken.
            Err(_) => self.fail(index, libc::EFAULT),
        }
    }

    fn queue(&mut self, token: Index, job: Job) {
        // SAFETY: a job's vectors lie in the room of its slot, which is left alone until the job's
        // completion: a slot has one job at a time, and slots are only freed when no job is in
        // flight for them. They name guest memory, which stays mapped as long as the machine lives
        // and is never referred to by references, as the guest changes it at any time; or the zeros
        // and the lane's pages, which live as long as `self.engine` does (it is dropped, and waits,
        // before them) and are left alone while a job is under way.
        unsafe { self.engine.queue(token, job) };
    }

    fn join_sync(&mut self, index: Index) {
        match self.sync_failed {
            Some(errno) => self.fail(index, errno),
            None => self.to_sync.push(index),
        }
    }

    fn completed(&mut self, completion: Completion, ram: &GuestRam) {
        let Completion { token, result } = completion;
        match u32::try_from(result) {
            Ok(_) if token == SYNC => self.synced(None),
            Ok(bytes) => self.moved(token, bytes.into(), ram),
            Err(_) => self.came_back(token, -result, ram),
        }
    }

    /// A job was done; if it moves data, so many bytes of it.
    fn moved(&mut self, index: Index, bytes: u64, ram: &GuestRam) {
        if self.lane.is_of(index) {
            return self.lane_moved(index, bytes, ram);
        }
        let slot = self.slots.get(index);
        let Some(left) = slot.left() else {
            return self.end(index, End::Done);
        };
        let moves = match slot.request {
            Request::Read(_) | Request::Write(_) => true,
            Request::WriteZeroes(_) => slot.zero_by == ZeroBy::Writing,
            _ => false,
        };
        if moves && bytes == 0 {
            // The file has become shorter.
            return self.fail(index, libc::EIO);
        }
        let done = if moves { bytes.min(left.len) } else { left.len };
        slot.advance(done);
        self.step(index, ram);
    }

    /// A job was not done.
    fn came_back(&mut self, token: Index, errno: i32, ram: &GuestRam) {
        // ECANCELED: the thread that submitted it has ended.
        if matches!(errno, libc::EINTR | libc::EAGAIN | libc::ECANCELED) {
            self.tally.retries += 1;
            if token == SYNC {
                return self.queue(SYNC, Job::Sync);
            }
            let slot = self.slots.get(token);
            slot.retries += 1;
            if slot.retries <= MAX_RETRIES {
                return self.step(token, ram);
            }
        }
        if token == SYNC {
            return self.synced(Some(errno));
        }
        let slot = self.slots.get(token);
        let unsupported = matches!(errno, libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL);
        match (&slot.request, slot.zero_by) {
            (Request::WriteZeroes(_), ZeroBy::Unmapping) if unsupported => {
                slot.zero_by = ZeroBy::Marking;
                self.step(token, ram);
            }
            (Request::WriteZeroes(_), ZeroBy::Marking) if unsupported => {
                slot.zero_by = ZeroBy::Writing;
                self.step(token, ram);
            }
            (Request::Discard(_), _) if unsupported => self.end(token, End::Unsupported),
            _ => self.fail(token, errno),
        }
    }

    /// The disk was synced, or not.
    fn synced(&mut self, errno: Option<i32>) {
        self.sync_failed = self.sync_failed.or(errno);
        while let Some(index) = self.syncing.pop() {
            match errno {
                None => self.end(index, End::Done),
                Some(errno) => self.fail(index, errno),
            }
        }
        if let Some(errno) = self.sync_failed {
            while let Some(index) = self.to_sync.pop() {
                self.fail(index, errno);
            }
        }
    }

    pub(super) fn fail(&mut self, index: Index, errno: i32) {
        self.tally.fail(errno, &self.tag, self.disk.name());
        self.end(index, End::Failed);
    }

    fn end(&mut self, index: Index, end: End) {
        self.lane.leave(index);
        let request = &self.slots.get(index).request;
        if end == End::Done {
            self.tally.count(request);
        }
        self.ended.push((index, end));
    }
}

/// Chooses an engine for `disk`, and tells the operator if it is not the usual one.
pub(super) fn choose_engine(disk: &Disk, depth: u16, tag: &str) -> Box<dyn Engine> {
    let (engine, refused) = disk.target().engine(depth);
    if let Some(error) = refused {
        let error: io::Error = error;
        crate::say::say(&format!(
            "{tag}: this host refuses io_uring ({error}): its disk is slower, on threads"
        ));
    }
    engine
}
