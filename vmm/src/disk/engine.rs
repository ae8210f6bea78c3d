//! How a disk's reads, writes and the rest are done without anybody waiting for them.
//!
//! Two engines do the same: [`ring::Ring`] hands jobs to the kernel through io_uring, and
//! [`pool::Pool`] to a few threads, where io_uring is refused. Jobs are queued, submitted together,
//! and come back in any order as [`Completion`]s, which are found without a system call.
#![allow(unsafe_code, reason = "hands memory to the kernel until a job is done")]

pub mod pool;
pub mod ring;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// A part of the disk, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins.
    pub at: u64,
    /// How long it is.
    pub len: u64,
}

impl Extent {
    /// Its end.
    pub fn end(self) -> u64 {
        self.at.saturating_add(self.len)
    }
}

/// Vectors as in readv(2), by address: see [`Engine::queue`] for how long they have to last.
#[derive(Clone, Copy)]
pub struct Vectors {
    /// The first.
    pub first: *const libc::iovec,
    /// How many.
    pub count: u32,
}

// SAFETY: an address alone is of no thread; who uses it answers for what it points to.
unsafe impl Send for Vectors {}

impl fmt::Debug for Vectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vectors({})", self.count)
    }
}

/// Something to do.
#[derive(Debug, Clone, Copy)]
pub enum Job {
    /// Read from here on.
    Read(Vectors, u64),
    /// Write from here on.
    Write(Vectors, u64),
    /// The same, and done only when it is durable.
    WriteThrough(Vectors, u64),
    /// Make durable what was written.
    Sync,
    /// This is of no use any more: whatever is read from it later.
    Discard(Extent),
    /// Zeros, without keeping room for it.
    Unmap(Extent),
    /// Zeros, keeping room for it.
    Zero(Extent),
}

/// A job that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// Whose it is.
    pub token: u32,
    /// Bytes read or written, 0, or a negative error number.
    pub result: i32,
}

/// Does jobs. Dropping it waits for those that were submitted.
pub trait Engine: fmt::Debug + Send {
    /// Whether it is io_uring.
    fn is_ring(&self) -> bool;

    /// Adds a job to those to be submitted.
    ///
    /// # Safety
    /// Until the completion with this token has come, or the engine is dropped, the vectors stay
    /// where they are, and the memory that they name stays mapped, is not referred to by Rust
    /// references that forbid it to change (for reads) or to be read (for writes), and may be
    /// accessed from any thread.
    unsafe fn queue(&mut self, token: u32, job: Job);

    /// Submits what is queued, with one system call or none. What could not be submitted stays
    /// queued: whether that is nothing.
    fn submit(&mut self) -> bool;

    /// Appends what is done to `done`, without a system call.
    fn reap(&mut self, done: &mut Vec<Completion>);

    /// From now on, completions make the event descriptor readable. `true`: there are some already.
    fn listen(&mut self) -> bool;

    /// From now on, completions need not make the event descriptor readable.
    fn ignore(&mut self);

    /// Jobs that were queued and have not been reaped.
    fn in_flight(&self) -> usize;

    /// System calls, or wake-ups of threads, with which jobs were submitted.
    fn submissions(&self) -> u64;
}

/// What an engine works on: the disk's file, and the descriptor that tells of completions.
#[derive(Debug, Clone)]
pub struct Target {
    file: Arc<File>,
    event: Arc<OwnedFd>,
    block_device: bool,
}

impl Target {
    /// Makes the descriptor for a file, which may be a block device.
    pub fn new(file: File, block_device: bool) -> io::Result<Self> {
        Ok(Self {
            file: Arc::new(file),
            event: Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?),
            block_device,
        })
    }

    /// The descriptor that tells of completions. It stays readable once it has been; what counts
    /// is that it is told again (edge-triggered, epoll(7)).
    pub fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// An engine for up to `depth` jobs at a time: io_uring, or threads and why not.
    pub fn engine(&self, depth: u16) -> (Box<dyn Engine>, Option<io::Error>) {
        match ring::Ring::new(self.clone(), depth) {
            Ok(ring) => (Box::new(ring), None),
            Err(error) => (Box::new(pool::Pool::new(self.clone())), Some(error)),
        }
    }
}
