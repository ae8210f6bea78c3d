//! Asynchronous tasks: many things waited for at once, on few vCPUs.
//!
//! [`block_on`] runs a future, and with it every task that was [`spawn`]ed. It is the executor:
//! tasks run on the vCPUs that are inside it, and only while they are. A program usually calls it
//! once, around all it does; called on several vCPUs at once, all of them serve the same tasks.
//!
//! ```
//! use core::time::Duration;
//! use guest_shim::task;
//!
//! let sum = task::block_on(async {
//!     let slow = task::spawn(async {
//!         task::sleep(Duration::from_millis(5)).await;
//!         40
//!     });
//!     let quick = task::spawn(async { 2 });
//!     slow.await + quick.await
//! });
//! assert_eq!(sum, 42);
//! ```
//!
//! In a slice a vCPU with nothing to do rests in `IDLE` until the next deadline, a device or
//! another vCPU ends its rest; it never spins. On a desktop this is `async-executor` on top of the
//! host's pollers. A task that computes for long keeps the others waiting: let it [`yield_now`] now
//! and then, or give the work to another vCPU with [`vcpu::spawn`](crate::vcpu::spawn).

#[cfg(any(test, not(feature = "desktop")))]
pub(crate) mod crowd;
#[cfg(any(test, not(feature = "desktop")))]
pub(crate) mod executor;
#[cfg(any(test, not(feature = "desktop")))]
mod timers;

mod timeout;

use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;

use crate::backend::task as backend;
use crate::time::Instant;

#[cfg(not(any(test, feature = "desktop")))]
pub(crate) use backend::{attend, register};
#[cfg(any(test, not(feature = "desktop")))]
pub(crate) use executor::Poller;
pub use timeout::{Elapsed, Timeout, timeout};

/// Runs `future` to its end on this vCPU, and spawned tasks beside it.
///
/// When it returns, tasks that have not ended keep their state and go on when some vCPU next
/// calls this.
pub fn block_on<F: Future>(future: F) -> F::Output {
    backend::block_on(future)
}

/// Makes `future` a task that runs beside all others, on whatever vCPU serves them.
///
/// It begins at the next opportunity, whether or not somebody waits for the handle.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    JoinHandle(Some(backend::spawn(future)))
}

/// A task. It is a future of the task's result; dropping it lets the task go on unattended.
#[derive(Debug)]
pub struct JoinHandle<T>(Option<backend::Task<T>>);

impl<T> JoinHandle<T> {
    /// Ends the task: it is not polled again, and what it holds is dropped, at once or as soon as
    /// the vCPU that is running it is done with that.
    ///
    /// ```
    /// use core::time::Duration;
    /// use guest_shim::task;
    ///
    /// task::block_on(async {
    ///     let endless = task::spawn(async {
    ///         loop {
    ///             task::sleep(Duration::from_secs(1)).await;
    ///         }
    ///     });
    ///     endless.abort();
    /// });
    /// ```
    pub fn abort(mut self) {
        drop(self.0.take());
    }

    /// Whether the task has ended, so that its result is there.
    pub fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(|task| task.is_finished())
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.detach();
        }
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let task = self.0.as_mut().expect("only an abort takes the task away");
        Pin::new(task).poll(context)
    }
}

/// Lets all other tasks that are ready go first, once.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Waits for `duration` or a little longer, never shorter, while other tasks run.
///
/// Unlike [`time::sleep`](crate::time::sleep), which makes the whole vCPU rest.
pub fn sleep(duration: Duration) -> Sleep {
    Sleep(match Instant::now().checked_add(duration) {
        Some(deadline) => Wait::Until(backend::Timer::at(deadline)),
        None => Wait::Forever,
    })
}

/// Waits until `deadline`, while other tasks run. One that has passed is not waited for.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep(Wait::Until(backend::Timer::at(deadline)))
}

/// What [`sleep`] and [`sleep_until`] return.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Sleep(Wait);

enum Wait {
    Until(backend::Timer),
    /// Until a moment beyond the clock's range.
    Forever,
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Until(_) => "Until(..)",
            Self::Forever => "Forever",
        })
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Wait::Until(timer) => Pin::new(timer).poll(context),
            Wait::Forever => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_task_whose_handle_is_dropped_goes_on() {
        let done = Arc::new(crate::sync::Mutex::new(false));
        let done_there = Arc::clone(&done);
        drop(spawn(async move {
            yield_now().await;
            *done_there.lock() = true;
        }));
        block_on(async {
            while !*done.lock() {
                yield_now().await;
            }
        });
    }

    #[test]
    fn an_aborted_task_lets_go_of_what_it_holds() {
        let held = Arc::new(());
        let held_there = Arc::clone(&held);
        let task = spawn(async move {
            core::future::pending::<()>().await;
            drop(held_there);
        });
        block_on(async {
            yield_now().await;
            task.abort();
            while Arc::strong_count(&held) > 1 {
                yield_now().await;
            }
        });
    }

    #[test]
    fn a_sleep_lasts_at_least_as_long_as_asked() {
        let start = Instant::now();
        block_on(sleep(Duration::from_millis(3)));
        assert!(start.elapsed() >= Duration::from_millis(3));
        block_on(sleep_until(start));
    }

    #[test]
    fn what_takes_too_long_is_given_up() {
        block_on(async {
            let slow = timeout(Duration::from_millis(1), core::future::pending::<()>());
            assert_eq!(slow.await, Err(Elapsed));
            assert_eq!(timeout(Duration::MAX, async { 5 }).await, Ok(5));
        });
    }
}
