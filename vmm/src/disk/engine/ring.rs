//! The engine on io_uring: one system call submits a batch, completions are found in shared memory.
//!
//! Any thread may submit; the kernel finishes a direct read or write in the thread that submitted
//! it. What has no operation of its own in io_uring, discarding of a block device, is left to a
//! [`Pool`] that has no threads until then.
#![allow(unsafe_code, reason = "hands memory to the kernel until a job is done")]

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode, squeue, types};

use super::pool::Pool;
use super::{Completion, Engine, Extent, Job, Target};

/// The operations that are used: kernels from 5.6 on have them.
const OPERATIONS: [u8; 6] = [
    opcode::Read::CODE,
    opcode::Write::CODE,
    opcode::Readv::CODE,
    opcode::Writev::CODE,
    opcode::Fsync::CODE,
    opcode::Fallocate::CODE,
];

/// See the module's documentation.
pub struct Ring {
    ring: IoUring,
    target: Target,
    pool: Pool,
    in_flight: usize,
    submissions: u64,
}

impl Ring {
    /// Sets a ring up for up to `depth` jobs at a time.
    pub fn new(target: Target, depth: u16) -> io::Result<Self> {
        let ring = IoUring::builder().dontfork().build(depth.into())?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !OPERATIONS.iter().all(|code| probe.is_supported(*code)) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        ring.submitter()
            .register_eventfd(target.event.as_raw_fd())?;
        Ok(Self {
            ring,
            pool: Pool::new(target.clone()),
            target,
            in_flight: 0,
            submissions: 0,
        })
    }

    /// The kernel's form of a job, if it has one.
    ///
    /// # Safety
    /// The vectors can be read.
    unsafe fn entry(&self, job: Job) -> Option<squeue::Entry> {
        let fd = types::Fd(self.target.file.as_raw_fd());
        Some(match job {
            Job::Read(vectors, at) if vectors.count == 1 => {
                // SAFETY: there is one vector, and it can be read (this function's contract).
                let only = unsafe { vectors.first.read() };
                opcode::Read::new(fd, only.iov_base.cast(), only.iov_len as u32)
                    .offset(at)
                    .build()
            }
            Job::Read(vectors, at) => opcode::Readv::new(fd, vectors.first, vectors.count)
                .offset(at)
                .build(),
            Job::Write(vectors, at) if vectors.count == 1 => {
                // SAFETY: as for a read.
                let only = unsafe { vectors.first.read() };
                opcode::Write::new(fd, only.iov_base.cast(), only.iov_len as u32)
                    .offset(at)
                    .build()
            }
            Job::Write(vectors, at) => opcode::Writev::new(fd, vectors.first, vectors.count)
                .offset(at)
                .build(),
            Job::WriteThrough(vectors, at) => opcode::Writev::new(fd, vectors.first, vectors.count)
                .offset(at)
                .rw_flags(libc::RWF_DSYNC)
                .build(),
            Job::Sync => opcode::Fsync::new(fd)
                .flags(types::FsyncFlags::DATASYNC)
                .build(),
            Job::Discard(_) if self.target.block_device => return None,
            Job::Discard(extent) | Job::Unmap(extent) => {
                allocate(fd, extent, libc::FALLOC_FL_PUNCH_HOLE)
            }
            Job::Zero(extent) => allocate(fd, extent, libc::FALLOC_FL_ZERO_RANGE),
        })
    }

    /// Takes what is done, with `visit`.
    fn take(&mut self, mut visit: impl FnMut(Completion)) {
        for entry in self.ring.completion() {
            self.in_flight = self.in_flight.saturating_sub(1);
            visit(Completion {
                token: entry.user_data() as u32,
                result: entry.result(),
            });
        }
    }
}

fn allocate(fd: types::Fd, extent: Extent, mode: i32) -> squeue::Entry {
    opcode::Fallocate::new(fd, extent.len)
        .offset(extent.at)
        .mode(mode | libc::FALLOC_FL_KEEP_SIZE)
        .build()
}

impl Engine for Ring {
    fn is_ring(&self) -> bool {
        true
    }

    unsafe fn queue(&mut self, token: u32, job: Job) {
        // SAFETY: the vectors can be read (the trait's contract).
        let Some(entry) = (unsafe { self.entry(job) }) else {
            // SAFETY: the contract is the same.
            unsafe { self.pool.queue(token, job) };
            return;
        };
        let entry = entry.user_data(token.into());
        self.in_flight += 1;
        // SAFETY: what the entry names lasts until its completion (the trait's contract), and the
        // descriptor for as long as this engine, which waits for its jobs before it goes.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            // The ring is as deep as the jobs are many: only if the kernel takes none for long.
            if !self.submit() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn submit(&mut self) -> bool {
        let pool_idle = self.pool.submit();
        loop {
            if self.ring.submission().is_empty() {
                return pool_idle;
            }
            self.submissions += 1;
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The kernel is short of something. Nothing is lost: the entries are still there.
                Err(_) => return false,
            }
        }
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        self.take(|completion| done.push(completion));
        self.pool.reap(done);
    }

    fn listen(&mut self) -> bool {
        self.ring.completion().enable_eventfd();
        // The flag before the question. The kernel has a barrier between writing the queue's tail
        // and reading the flag, too: one side sees the other.
        fence(Ordering::SeqCst);
        let pool = self.pool.listen();
        !self.ring.completion().is_empty() || pool
    }

    fn ignore(&mut self) {
        self.ring.completion().disable_eventfd();
        self.pool.ignore();
    }

    fn in_flight(&self) -> usize {
        self.in_flight + self.pool.in_flight()
    }

    fn submissions(&self) -> u64 {
        self.submissions + self.pool.submissions()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.ignore();
        loop {
            self.take(|_| {});
            // What was never submitted is unknown to the kernel.
            if self.in_flight <= self.ring.submission().len() {
                return;
            }
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("target", &self.target)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}
