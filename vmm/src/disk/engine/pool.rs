//! The engine on threads, for hosts that refuse io_uring: a few of them, started when there is work.
#![allow(unsafe_code, reason = "makes calls on guest memory, and BLKDISCARD")]

use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::{Completion, Engine, Extent, Job, Target};

/// The most threads: enough to keep a disk busy while one of them waits for a flush.
const MAX_THREADS: usize = 4;
/// They call the kernel and little else.
const STACK_BYTES: usize = 128 << 10;

/// See the module's documentation.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    queued: Vec<(u32, Job)>,
    in_flight: usize,
    submissions: u64,
}

#[derive(Debug)]
struct Shared {
    target: Target,
    work: Mutex<Work>,
    news: Condvar,
    done: Mutex<Vec<Completion>>,
    /// Whether completions are to be told through the descriptor.
    listening: AtomicBool,
}

#[derive(Debug, Default)]
struct Work {
    jobs: VecDeque<(u32, Job)>,
    idle: usize,
    closing: bool,
}

impl Pool {
    /// A pool without threads yet.
    pub fn new(target: Target) -> Self {
        Self {
            shared: Arc::new(Shared {
                target,
                work: Mutex::default(),
                news: Condvar::new(),
                done: Mutex::default(),
                listening: AtomicBool::new(true),
            }),
            threads: Vec::new(),
            queued: Vec::new(),
            in_flight: 0,
            submissions: 0,
        }
    }

    /// Starts another thread. Whether there is at least one.
    fn grow(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new()
            .name("disk".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || shared.work());
        self.threads.extend(thread);
        !self.threads.is_empty()
    }
}

impl Engine for Pool {
    fn is_ring(&self) -> bool {
        false
    }

    unsafe fn queue(&mut self, token: u32, job: Job) {
        self.in_flight += 1;
        self.queued.push((token, job));
    }

    fn submit(&mut self) -> bool {
        if self.queued.is_empty() {
            return true;
        }
        self.submissions += 1;
        let (idle, waiting) = {
            let mut work = self.shared.lock();
            work.jobs.extend(self.queued.drain(..));
            (work.idle, work.jobs.len())
        };
        if waiting > idle && self.threads.len() < MAX_THREADS && !self.grow() {
            // A host that gives us no thread has to wait for its disk here.
            while self.shared.do_one() {}
        }
        match waiting {
            1 => self.shared.news.notify_one(),
            _ => self.shared.news.notify_all(),
        }
        true
    }

    fn reap(&mut self, done: &mut Vec<Completion>) {
        if self.in_flight > 0 {
            let before = done.len();
            done.append(&mut self.shared.done());
            self.in_flight -= done.len() - before;
        }
    }

    fn listen(&mut self) -> bool {
        self.shared.listening.store(true, Ordering::SeqCst);
        // Whoever adds one later asks after it was unlocked, and then sees the flag.
        self.in_flight > 0 && !self.shared.done().is_empty()
    }

    fn ignore(&mut self) {
        self.shared.listening.store(false, Ordering::SeqCst);
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn submissions(&self) -> u64 {
        self.submissions
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.ignore();
        {
            let mut work = self.shared.lock();
            // What nobody has begun touches nothing.
            work.jobs.clear();
            work.closing = true;
        }
        self.shared.news.notify_all();
        for thread in self.threads.drain(..) {
            // A panic has been reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The life of a thread.
    fn work(&self) {
        loop {
            while self.do_one() {}
            let mut work = self.lock();
            work.idle += 1;
            while work.jobs.is_empty() && !work.closing {
                let woken = self.news.wait(work);
                work = woken.unwrap_or_else(PoisonError::into_inner);
            }
            work.idle -= 1;
            if work.closing {
                return;
            }
        }
    }

    /// Does a job, if there is one.
    fn do_one(&self) -> bool {
        let Some((token, job)) = self.lock().jobs.pop_front() else {
            return false;
        };
        // SAFETY: whoever queued the job answers for its memory until its completion is reaped.
        let result = unsafe { perform(&self.target, job) };
        self.done().push(Completion { token, result });
        if self.listening.swap(false, Ordering::SeqCst) {
            // Adding 1 fails only when the counter is full, and then it is readable already.
            let _ = rustix::io::write(&self.target.event, &1u64.to_ne_bytes());
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn done(&self) -> MutexGuard<'_, Vec<Completion>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does a job and waits for it. Its result, or a negative error number.
///
/// # Safety
/// The vectors and the memory they name can be accessed.
unsafe fn perform(target: &Target, job: Job) -> i32 {
    let fd = target.file.as_raw_fd();
    let allocate = |extent: Extent, mode| {
        // SAFETY: takes no memory.
        unsafe {
            libc::fallocate(
                fd,
                mode | libc::FALLOC_FL_KEEP_SIZE,
                extent.at as i64,
                extent.len as i64,
            ) as isize
        }
    };
    // SAFETY: the memory is as this function's contract says, and BLKDISCARD reads two numbers that
    // live through the call.
    let result = unsafe {
        match job {
            Job::Read(vectors, at) => {
                libc::preadv(fd, vectors.first, vectors.count as i32, at as i64)
            }
            Job::Write(vectors, at) => {
                libc::pwritev(fd, vectors.first, vectors.count as i32, at as i64)
            }
            Job::WriteThrough(vectors, at) => libc::pwritev2(
                fd,
                vectors.first,
                vectors.count as i32,
                at as i64,
                libc::RWF_DSYNC,
            ),
            Job::Sync => libc::fdatasync(fd) as isize,
            Job::Discard(extent) if target.block_device => {
                const BLKDISCARD: libc::c_ulong = 0x1277;
                let range = [extent.at, extent.len];
                libc::ioctl(fd, BLKDISCARD, range.as_ptr()) as isize
            }
            Job::Discard(extent) | Job::Unmap(extent) => {
                allocate(extent, libc::FALLOC_FL_PUNCH_HOLE)
            }
            Job::Zero(extent) => allocate(extent, libc::FALLOC_FL_ZERO_RANGE),
        }
    };
    match i32::try_from(result) {
        // A call moves less than 2 GiB (read(2)).
        Ok(result) if result >= 0 => result,
        _ => -std::io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EIO),
    }
}
