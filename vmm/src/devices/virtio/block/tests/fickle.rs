//! An engine that does things by halves: it is interrupted, moves less than it was asked to, and
//! knows no way to make zeros.
#![allow(unsafe_code, reason = "an engine for tests")]

use std::cell::Cell;

use crate::disk::engine::{Completion, Engine, Job, Target, Vectors};

thread_local! {
    static FAIL_SYNCS: Cell<bool> = const { Cell::new(false) };
}

/// Whether syncs that this thread begins fail.
pub(super) fn fail_syncs(fail: bool) {
    FAIL_SYNCS.set(fail);
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Fickle {
    inner: Box<dyn Engine>,
    done: Vec<Completion>,
    turn: u32,
    /// What is left of the vectors of jobs that are done in part.
    #[allow(clippy::vec_box, reason = "whoever does the jobs has their addresses")]
    parts: Vec<Box<libc::iovec>>,
}

// SAFETY: the vectors hold addresses of no thread, for which whoever queued the job answers.
unsafe impl Send for Fickle {}

impl Fickle {
    pub(super) fn new(target: &Target) -> Self {
        Self {
            inner: target.engine(256).0,
            done: Vec::new(),
            turn: 0,
            parts: Vec::new(),
        }
    }

    /// At most a page of the first vector.
    fn part(&mut self, vectors: Vectors) -> Vectors {
        // SAFETY: there is a first vector, and it can be read (the trait's contract).
        let mut first = Box::new(unsafe { vectors.first.read() });
        first.iov_len = first.iov_len.min(4096);
        let part = Vectors {
            first: &raw const *first,
            count: 1,
        };
        self.parts.push(first);
        part
    }
}

impl Engine for Fickle {
    fn is_ring(&self) -> bool {
        self.inner.is_ring()
    }

    unsafe fn queue(&mut self, token: u32, job: Job) {
        self.turn += 1;
        let failed = |result| Completion { token, result };
        let job = match (job, self.turn % 3) {
            (Job::Sync, _) if FAIL_SYNCS.get() => return self.done.push(failed(-libc::EIO)),
            (Job::Zero(_) | Job::Unmap(_), _) => {
                return self.done.push(failed(-libc::EOPNOTSUPP));
            }
            (_, 0) => return self.done.push(failed(-libc::EINTR)),
            (Job::Read(vectors, at), 1) => Job::Read(self.part(vectors), at),
            (Job::Write(vectors, at), 1) => Job::Write(self.part(vectors), at),
            (job, _) => job,
        };
        // SAFETY: the caller's contract; the memory of a part is kept as long as the engine, and is
        // part of the caller's.
        unsafe { self.inner.queue(token, job) }
    }

    fn submit(&mut self) -> bool {
        self.inner.submit()
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        done.append(&mut self.done);
        self.inner.reap(done);
    }

    fn listen(&mut self) -> bool {
        self.inner.listen() || !self.done.is_empty()
    }

    fn ignore(&mut self) {
        self.inner.ignore();
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight() + self.done.len()
    }

    fn submissions(&self) -> u64 {
        self.inner.submissions()
    }
}
