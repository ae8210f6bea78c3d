//! Group commit: all changes that wait are made durable with one flush, by one task, and those that
//! come meanwhile wait for the next.

use alloc::sync::Arc;
use core::future::poll_fn;
use core::mem;
use core::task::{Poll, Waker};

use guest_shim::alloc;
use guest_shim::prelude::*;
use guest_shim::sync::Mutex;
use guest_shim::task;

use crate::log::{Change, Counts, Error, Log, Usage};
use crate::storage::Storage;

/// What a change came to: for a removal, whether there was anything to remove.
pub(crate) type Outcome = Result<bool, Error>;

/// Hands changes to the task that makes them.
#[derive(Debug)]
pub(crate) struct Writer(Arc<Mutex<Queue>>);

#[derive(Debug)]
struct Queue {
    waiting: Vec<Request>,
    writer: Option<Waker>,
    figures: (Counts, Usage),
}

#[derive(Debug)]
struct Request {
    changes: Vec<Change>,
    answer: Arc<Mutex<Answer>>,
}

#[derive(Debug)]
enum Answer {
    Waited(Option<Waker>),
    Given(Vec<Outcome>),
}

impl Writer {
    /// Starts the task.
    pub(crate) fn start<S: Storage>(mut log: Log<S>) -> Self {
        let queue = Arc::new(Mutex::new(Queue {
            waiting: Vec::new(),
            writer: None,
            figures: (log.counts(), log.usage()),
        }));
        let theirs = Arc::clone(&queue);
        task::spawn(async move {
            loop {
                let requests = all_that_wait(&theirs).await;
                commit(&mut log, requests).await;
                theirs.lock().figures = (log.counts(), log.usage());
            }
        });
        Self(queue)
    }

    /// Has the changes made, in their order. When this is done, they are durable.
    pub(crate) async fn make(&self, changes: Vec<Change>) -> Vec<Outcome> {
        let answer = Arc::new(Mutex::new(Answer::Waited(None)));
        let request = Request {
            changes,
            answer: Arc::clone(&answer),
        };
        let writer = {
            let mut queue = self.0.lock();
            queue.waiting.push(request);
            queue.writer.take()
        };
        if let Some(writer) = writer {
            writer.wake();
        }
        poll_fn(|context| match &mut *answer.lock() {
            Answer::Given(outcomes) => Poll::Ready(mem::take(outcomes)),
            Answer::Waited(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }

    /// What the log has done, and how much it holds.
    pub(crate) fn figures(&self) -> (Counts, Usage) {
        self.0.lock().figures
    }
}

/// Waits until something waits, and takes all of it.
async fn all_that_wait(queue: &Mutex<Queue>) -> Vec<Request> {
    poll_fn(|context| {
        let mut queue = queue.lock();
        if queue.waiting.is_empty() {
            queue.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(mem::take(&mut queue.waiting))
    })
    .await
}

async fn commit<S: Storage>(log: &mut Log<S>, requests: Vec<Request>) {
    let mut changes = Vec::new();
    let mut shares = Vec::new();
    for request in requests {
        shares.push((request.changes.len(), request.answer));
        changes.extend(request.changes);
    }
    let mut outcomes = log.commit(&changes).await.into_iter();
    for (length, answer) in shares {
        let given = Answer::Given(outcomes.by_ref().take(length).collect());
        let waited = mem::replace(&mut *answer.lock(), given);
        if let Answer::Waited(Some(waker)) = waited {
            waker.wake();
        }
    }
}
