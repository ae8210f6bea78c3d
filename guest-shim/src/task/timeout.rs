//! A future with a limit to its patience.
#![allow(unsafe_code, reason = "a pinned struct lends its pinned fields")]

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;

use super::{Sleep, sleep};

/// Waits for `future`, but no longer than `limit`; then it is dropped with the result.
///
/// ```
/// use core::time::Duration;
/// use guest_shim::task;
///
/// task::block_on(async {
///     let answer = task::timeout(Duration::from_secs(1), async { 42 }).await;
///     assert_eq!(answer, Ok(42));
/// });
/// ```
pub fn timeout<F: Future>(limit: Duration, future: F) -> Timeout<F> {
    Timeout {
        future,
        limit: sleep(limit),
    }
}

/// What was waited for has not happened in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it has not happened in time")
    }
}

impl core::error::Error for Elapsed {}

/// What [`timeout`] returns.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Timeout<F> {
    future: F,
    limit: Sleep,
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: the struct is pinned, its fields are never moved out of it, it has no `Drop` of
        // its own, and it is `Unpin` only if the future is: `Sleep` always is.
        let (future, limit) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.future), &mut this.limit)
        };
        if let Poll::Ready(value) = future.poll(context) {
            return Poll::Ready(Ok(value));
        }
        Pin::new(limit).poll(context).map(|()| Err(Elapsed))
    }
}
