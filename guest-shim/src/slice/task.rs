//! The one executor of a slice, which rests in `IDLE`.

use core::future::Future;

use super::{clock, control, identity};
use crate::task::executor::{self, Executor, Poller, Rest};
use crate::time::Instant;

pub(crate) use async_task::Task;

static EXECUTOR: Executor<Vcpus> = Executor::new(Vcpus);

/// Has a driver polled from now on, on every turn of the executor.
pub(crate) fn register(poller: &'static dyn Poller) {
    EXECUTOR.register(poller);
}

/// Has what was given to a driver attended to, also if this vCPU is not inside the executor.
pub(crate) fn attend() {
    EXECUTOR.attend();
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    EXECUTOR.block_on(future)
}

pub(crate) fn spawn<F>(future: F) -> Task<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    EXECUTOR.spawn(future)
}

/// Waits for a moment.
pub(crate) struct Timer(executor::Timer<Vcpus>);

impl Timer {
    pub(crate) fn at(deadline: Instant) -> Self {
        Self(EXECUTOR.timer(deadline))
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(
        mut self: core::pin::Pin<&mut Self>,
        context: &mut core::task::Context<'_>,
    ) -> core::task::Poll<()> {
        core::pin::Pin::new(&mut self.0).poll(context)
    }
}

struct Vcpus;

impl Rest for Vcpus {
    fn me(&self) -> usize {
        identity::current_vcpu()
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(clock::monotonic_ns())
    }

    fn rest(&self, deadline: Option<Instant>) {
        control::idle(deadline.map(|deadline| deadline.since_start().as_nanos() as u64));
    }

    fn wake(&self, vcpu: usize) {
        control::wake(vcpu);
    }
}
