//! Those who wait for the same thing, when whoever tells of it knows of one only.

use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::task::{Context, Waker};

use crate::sync::Mutex;

/// All of them are woken when it is.
#[derive(Debug, Default)]
pub(crate) struct Crowd(Mutex<Vec<Waker>>);

impl Crowd {
    /// Lets whoever asks wait with the others. The waker wakes them all.
    pub(crate) fn join(self: &Arc<Self>, context: &Context<'_>) -> Waker {
        add_waker(&mut self.0.lock(), context);
        Waker::from(Arc::clone(self))
    }
}

impl Wake for Crowd {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let all = core::mem::take(&mut *self.0.lock());
        all.into_iter().for_each(Waker::wake);
    }
}

/// Has whoever asks woken with others, once, however often they ask.
pub(crate) fn add_waker(wakers: &mut Vec<Waker>, context: &Context<'_>) {
    let waker = context.waker();
    if !wakers.iter().any(|known| known.will_wake(waker)) {
        wakers.push(waker.clone());
    }
}
