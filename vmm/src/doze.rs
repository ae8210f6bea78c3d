//! Where an idle vCPU sleeps, and how it is woken without a wake-up ever being lost.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One vCPU's place to sleep. It may also wait elsewhere, see [`Doze::go_out`].
#[derive(Debug, Default)]
pub struct Doze {
    pending: Mutex<bool>,
    woken: Condvar,
    out: AtomicBool,
}

impl Doze {
    /// Wakes the vCPU, or makes its next sleep end at once. `true`: it may wait elsewhere, and has
    /// to be got from there, too.
    pub fn wake(&self) -> bool {
        *self.pending() = true;
        self.woken.notify_one();
        // The wake-up before the question, or both sides could miss each other.
        fence(Ordering::SeqCst);
        self.out.load(Ordering::SeqCst)
    }

    /// Takes a wake-up that has come.
    pub fn take(&self) -> bool {
        std::mem::take(&mut *self.pending())
    }

    /// Whether a wake-up has come that was not taken.
    pub fn is_woken(&self) -> bool {
        *self.pending()
    }

    /// The vCPU is about to wait elsewhere. `false`: a wake-up has come before, it must not.
    pub fn go_out(&self) -> bool {
        self.out.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let stay = self.is_woken();
        if stay {
            self.come_back();
        }
        !stay
    }

    /// It waits elsewhere no more.
    pub fn come_back(&self) {
        self.out.store(false, Ordering::SeqCst);
    }

    fn pending(&self) -> MutexGuard<'_, bool> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until woken, at most for `limit`. Returns at once if a wake-up came since the last
    /// sleep ended.
    pub fn sleep(&self, limit: Option<Duration>) {
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut pending = self.pending();
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
    fn who_waits_elsewhere_is_got_from_there() {
        let doze = Doze::default();
        assert!(!doze.wake());
        assert!(!doze.go_out());
        assert!(doze.take());
        assert!(doze.go_out());
        assert!(doze.wake());
        doze.come_back();
        assert!(doze.take());
        assert!(!doze.wake());
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
