//! Work on further vCPUs.
//!
//! A sliver starts on vCPU 0; the others rest until [`spawn`] gives them something to do, and rest
//! again when it is done. There is no scheduler: a vCPU runs one piece of work from beginning to
//! end, and when all are busy `spawn` says so. A panic in any of them ends the sliver.
//!
//! ```
//! use guest_shim::vcpu;
//!
//! match vcpu::spawn(|| (1..=1000u64).sum::<u64>()) {
//!     Ok(work) => assert_eq!(work.join(), 500_500),
//!     Err(busy) => guest_shim::println!("{busy}"),
//! }
//! ```
//!
//! Both backends bring vCPUs as the slice ABI describes them: the first wake of a vCPU starts it,
//! later ones end its rest.

mod packet;
mod slots;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use slice_abi::layout::MAX_VCPUS;

use crate::backend::{control, identity};
use packet::Packet;
use slots::Slots;

/// vCPUs of this sliver.
pub fn count() -> usize {
    identity::vcpu_count()
}

/// Index of the vCPU that asks: 0 for the one that the sliver started on.
pub fn current() -> usize {
    identity::current_vcpu()
}

/// Lets other work on the host's processor go first, once. For loops that wait for another vCPU
/// and have no better way; [`crate::sync::Mutex`] and [`JoinHandle::join`] wait by themselves.
pub fn yield_now() {
    control::yield_now();
}

/// Work on another vCPU. Dropping the handle lets the work go on unattended.
#[derive(Debug)]
#[must_use = "without a join nobody learns the result"]
pub struct JoinHandle<T>(Arc<Packet<T>>);

impl<T> JoinHandle<T> {
    /// Waits for the work to be done and returns its result. The waiting vCPU rests.
    pub fn join(self) -> T {
        self.0.wait(current(), || control::idle(None))
    }

    /// Whether the work is done, so that a join would return at once.
    pub fn is_finished(&self) -> bool {
        self.0.is_complete()
    }
}

/// No vCPU is free to take work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpawnError {
    vcpus: usize,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vcpus {
            1 => f.write_str("no vCPU is free: the sliver has only 1"),
            n => write!(f, "no vCPU is free: all {n} are busy"),
        }
    }
}

impl core::error::Error for SpawnError {}

type Work = Box<dyn FnOnce() + Send>;

/// Which vCPUs have work. vCPU 0 always has.
static SLOTS: Slots = Slots::new();

/// Work that waits for its vCPU to take it; a `Box<Work>` each, or null.
static MAILBOXES: [AtomicPtr<Work>; MAX_VCPUS] =
    [const { AtomicPtr::new(ptr::null_mut()) }; MAX_VCPUS];

/// Runs `work` on a free vCPU. After a join there is always a vCPU free again. A result whose handle
/// was dropped is itself dropped there, when the vCPU may already have other work waiting.
pub fn spawn<F, T>(work: F) -> Result<JoinHandle<T>, SpawnError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let vcpus = count();
    let index = SLOTS.claim(vcpus).ok_or(SpawnError { vcpus })?;
    let packet = Arc::new(Packet::new());
    let result = Arc::clone(&packet);
    let whole: Work = Box::new(move || {
        let value = work();
        // Free first: who joins finds it free. Work that comes at once waits in the mailbox.
        SLOTS.release(index);
        if let Some(waiter) = result.complete(value) {
            control::wake(waiter);
        }
    });
    MAILBOXES[index].store(Box::into_raw(Box::new(whole)), Ordering::Release);
    control::wake(index);
    Ok(JoinHandle(packet))
}

/// Runs `work` on every vCPU at once, this one included, each with a part of its own: a number
/// below [`count`]. Returns the results in the order of the parts.
///
/// If a vCPU is busy nothing is returned, and what has begun elsewhere goes on unattended.
///
/// ```
/// use guest_shim::vcpu;
///
/// let parts = vcpu::count();
/// let sums = vcpu::on_all(move |part| (part..1000).step_by(parts).sum::<usize>());
/// assert_eq!(sums.map(|sums| sums.iter().sum()), Ok(499_500));
/// ```
pub fn on_all<F, T>(work: F) -> Result<Vec<T>, SpawnError>
where
    F: Fn(usize) -> T + Send + Sync + 'static,
    T: Send + 'static,
{
    let work = Arc::new(work);
    let mut others = Vec::with_capacity(count() - 1);
    for part in 1..count() {
        let work = Arc::clone(&work);
        others.push(spawn(move || work(part))?);
    }
    let mine = work(0);
    let theirs = others.into_iter().map(JoinHandle::join);
    Ok(core::iter::once(mine).chain(theirs).collect())
}

/// The life of a vCPU other than 0; the backend calls it when the vCPU is first woken.
pub(crate) fn work() -> ! {
    let mailbox = &MAILBOXES[current()];
    loop {
        match take(mailbox) {
            Some(work) => work(),
            None => control::idle(None),
        }
    }
}

#[allow(unsafe_code, reason = "a box travels as a pointer")]
fn take(mailbox: &AtomicPtr<Work>) -> Option<Box<Work>> {
    let work = mailbox.swap(ptr::null_mut(), Ordering::Acquire);
    // SAFETY: what is not null came from `Box::into_raw` in `spawn`, and the swap gives each
    // pointer to one taker only.
    (!work.is_null()).then(|| unsafe { Box::from_raw(work) })
}
