//! The executor of a process: `async-executor`, which waits in `async-io`.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use async_executor::Executor;

use super::control;
use crate::time::Instant;

pub(crate) use async_executor::Task;

static EXECUTOR: Executor<'static> = Executor::new();

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    async_io::block_on(EXECUTOR.run(future))
}

pub(crate) fn spawn<F>(future: F) -> Task<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    EXECUTOR.spawn(async move {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            // A panic of a task ends the sliver; the message is out already.
            catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)))
                .unwrap_or_else(|_| control::panicked())
        })
        .await
    })
}

/// Waits for a moment.
pub(crate) struct Timer(async_io::Timer);

impl Timer {
    pub(crate) fn at(deadline: Instant) -> Self {
        // Both clocks are the host's monotonic one.
        Self(async_io::Timer::after(deadline - Instant::now()))
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(context).map(drop)
    }
}
