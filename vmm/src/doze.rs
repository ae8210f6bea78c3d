//! Where an idle vCPU sleeps, and how it is woken without a wake-up ever being lost.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One vCPU's place to sleep.
#[derive(Debug, Default)]
pub struct Doze {
    pending: Mutex<bool>,
    woken: Condvar,
}

impl Doze {
    /// Wakes the vCPU, or makes its next sleep end at once.
    pub fn wake(&self) {
        *self.pending.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.woken.notify_one();
    }

    /// Sleeps until woken, at most for `limit`. Returns at once if a wake-up came since the last
    /// sleep ended.
    pub fn sleep(&self, limit: Option<Duration>) {
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        while !*pending {
            pending = match until {
                None => self
                    .woken
                    .wait(pending)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    self.woken
                        .wait_timeout(pending, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
        *pending = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_wake_up_before_the_sleep_ends_it_at_once_and_counts_once() {
        let doze = Doze::default();
        doze.wake();
        doze.wake();
        doze.sleep(None);
        assert!(!*doze.pending.lock().unwrap());
    }

    #[test]
    fn a_sleep_is_not_short() {
        let start = Instant::now();
        Doze::default().sleep(Some(Duration::from_millis(5)));
        assert!(start.elapsed() >= Duration::from_millis(5));
    }

    #[test]
    fn a_sleeper_is_woken_by_another_thread() {
        let doze = Arc::new(Doze::default());
        let waker = Arc::clone(&doze);
        let thread = std::thread::spawn(move || waker.wake());
        doze.sleep(None);
        thread.join().unwrap();
    }
}
