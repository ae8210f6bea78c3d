//! Where whoever attends to the devices waits for them: descriptors, moments, nudges.
//!
//! Two kinds of thread wait here. A vCPU that idles attends to the devices itself: what comes for
//! the guest reaches it without a detour over another thread, and its cost is plainly the sliver's.
//! One more thread waits here all the time and serves what comes while every vCPU is in the guest.
//! The kernel wakes who came last (epoll wakes one waiter, the latest first), so with an idle vCPU
//! that thread sleeps on. Correctness does not depend on who is woken.
//!
//! Everything is watched edge-triggered: an event that nobody could act on is noted in its device
//! and not told again.
#![allow(
    unsafe_code,
    reason = "waits with a signal mask and nanoseconds, which rustix does not offer together"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::virtio::backend::{Interest, Source};
use crate::kvm::kick::WaitMask;
use crate::nanos::Nanos;

/// Events taken at once.
const EVENTS: usize = 32;
/// Stands for the nudge among device numbers.
const NUDGE: u64 = u64::MAX;
/// Stands for the timer.
const TIMER: u64 = u64::MAX - 1;
/// Stands for the serial port.
const SERIAL: u64 = u64::MAX - 2;
/// Stands for a device's doorbell among the numbers of its sources.
const DOORBELL: u64 = u32::MAX as u64;

/// What woke a waiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A source of a device became ready.
    Source {
        /// Index of the device.
        device: usize,
        /// Number of the source.
        source: usize,
    },
    /// A guest rang a device's doorbell without leaving for it.
    Doorbell {
        /// Index of the device.
        device: usize,
    },
    /// The serial port may have room, or input.
    Serial,
    /// The moment came that was set with [`Attendant::set_timer`].
    Timer,
    /// Somebody wants everything to be looked at.
    Nudge,
}

/// The place to wait.
#[derive(Debug)]
pub struct Attendant {
    epoll: OwnedFd,
    nudge: OwnedFd,
    timer: OwnedFd,
    /// The moment for which the timer is set.
    timer_at: Mutex<Option<Nanos>>,
}

impl Attendant {
    /// A place where nothing is watched yet.
    pub fn new() -> io::Result<Self> {
        let attendant = Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            nudge: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            timer: timerfd_create(
                TimerfdClockId::Monotonic,
                TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
            )?,
            timer_at: Mutex::default(),
        };
        let edge = EventFlags::IN | EventFlags::ET;
        for (fd, data) in [(&attendant.nudge, NUDGE), (&attendant.timer, TIMER)] {
            epoll::add(&attendant.epoll, fd, EventData::new_u64(data), edge)?;
        }
        Ok(attendant)
    }

    /// Watches source number `number` of device `device`. What cannot be watched because it is
    /// always ready, such as a plain file, never waits either.
    pub fn watch(&self, device: usize, number: usize, source: Source<'_>) -> io::Result<()> {
        self.add(source.fd, source.interest, data(device, number as u64))
    }

    /// Watches the doorbell of device `device`. It need not be read: each ring is told.
    pub fn watch_doorbell(&self, device: usize, doorbell: BorrowedFd<'_>) -> io::Result<()> {
        self.add(doorbell, Interest::Read, data(device, DOORBELL))
    }

    /// Watches what the serial port writes to and reads from.
    pub fn watch_serial(
        &self,
        output: BorrowedFd<'_>,
        input: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        self.add(output, Interest::Write, SERIAL)?;
        input.map_or(Ok(()), |input| self.add(input, Interest::Read, SERIAL))
    }

    fn add(&self, fd: BorrowedFd<'_>, interest: Interest, data: u64) -> io::Result<()> {
        let interest = match interest {
            Interest::Read => EventFlags::IN,
            Interest::Write => EventFlags::OUT,
            Interest::Both => EventFlags::IN | EventFlags::OUT,
        };
        let data = EventData::new_u64(data);
        match epoll::add(&self.epoll, fd, data, interest | EventFlags::ET) {
            Ok(()) | Err(rustix::io::Errno::PERM | rustix::io::Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes one waiter, present or next, look at everything.
    pub fn nudge(&self) {
        // Adding 1 fails only when the counter is full, and then the event is there already.
        let _ = rustix::io::write(&self.nudge, &1u64.to_ne_bytes());
    }

    /// Wakes a waiter at `moment` at the latest.
    pub fn set_timer(&self, moment: Nanos) -> io::Result<()> {
        let mut timer_at = self.timer_at();
        if timer_at.is_some_and(|set| set <= moment) {
            return Ok(());
        }
        let value = Itimerspec {
            it_interval: Timespec::default(),
            // A moment of 0 would disarm the timer (timerfd_settime(2)).
            it_value: timespec(Duration::from_nanos(moment.0.max(1))),
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &value)?;
        *timer_at = Some(moment);
        Ok(())
    }

    fn timer_at(&self) -> MutexGuard<'_, Option<Nanos>> {
        self.timer_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for events and calls `visit` with each; at most for `timeout`, and no longer than to a
    /// signal of `mask`. How many there were.
    pub fn wait(
        &self,
        timeout: Option<Duration>,
        mask: Option<&WaitMask>,
        mut visit: impl FnMut(Event),
    ) -> io::Result<usize> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        let count = self.wait_raw(&mut events, timeout, mask)?;
        for event in &events[..count] {
            let data = event.u64;
            visit(match data {
                NUDGE => Event::Nudge,
                TIMER => {
                    *self.timer_at() = None;
                    Event::Timer
                }
                SERIAL => Event::Serial,
                data if data & DOORBELL == DOORBELL => Event::Doorbell {
                    device: (data >> 32) as usize,
                },
                data => Event::Source {
                    device: (data >> 32) as usize,
                    source: data as u32 as usize,
                },
            });
        }
        Ok(count)
    }

    fn wait_raw(
        &self,
        events: &mut [libc::epoll_event; EVENTS],
        timeout: Option<Duration>,
        mask: Option<&WaitMask>,
    ) -> io::Result<usize> {
        let epoll = self.epoll.as_fd().as_raw_fd();
        let set = mask.map_or(std::ptr::null(), WaitMask::as_ptr);
        let limit = timeout.map(timespec);
        let limit_ptr = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the events, the limit (a timespec of the kernel's layout on this architecture) and
        // the set live through the call, and the numbers are their true sizes.
        let result = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                epoll,
                events.as_mut_ptr(),
                EVENTS,
                limit_ptr,
                set,
                WaitMask::BYTES,
            )
        };
        match result {
            -1 => self.after_error(io::Error::last_os_error(), events, timeout, mask),
            count => Ok(count as usize),
        }
    }

    /// A signal is no error. A kernel before 5.11 has only the older call, in milliseconds.
    fn after_error(
        &self,
        error: io::Error,
        events: &mut [libc::epoll_event; EVENTS],
        timeout: Option<Duration>,
        mask: Option<&WaitMask>,
    ) -> io::Result<usize> {
        match error.raw_os_error() {
            Some(libc::EINTR) => return Ok(0),
            Some(libc::ENOSYS) => {}
            _ => return Err(error),
        }
        let millis = timeout.map_or(-1, |limit| {
            // Rounded up: who waits too short waits again and again.
            i32::try_from(limit.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
        });
        let set = mask.map_or(std::ptr::null(), WaitMask::as_ptr);
        // SAFETY: as in `wait_raw`.
        let count = unsafe {
            libc::epoll_pwait(
                self.epoll.as_raw_fd(),
                events.as_mut_ptr(),
                EVENTS as i32,
                millis,
                set,
            )
        };
        match usize::try_from(count) {
            Ok(count) => Ok(count),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                error => Err(error),
            },
        }
    }
}

/// What stands for one of a device's descriptors.
fn data(device: usize, number: u64) -> u64 {
    (device as u64) << 32 | number
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    fn events(attendant: &Attendant, timeout: Duration) -> Vec<Event> {
        let mut events = Vec::new();
        attendant
            .wait(Some(timeout), None, |event| events.push(event))
            .unwrap();
        events
    }

    #[test]
    fn sources_are_told_once_each_time_they_become_ready() {
        let attendant = Attendant::new().unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let source = Source {
            fd: theirs.as_fd(),
            interest: Interest::Read,
        };
        attendant.watch(3, 1, source).unwrap();
        assert_eq!(events(&attendant, Duration::ZERO), []);
        for _ in 0..2 {
            ours.write_all(b"x").unwrap();
            let expected = Event::Source {
                device: 3,
                source: 1,
            };
            assert_eq!(events(&attendant, Duration::from_secs(9)), [expected]);
            assert_eq!(events(&attendant, Duration::ZERO), []);
        }
    }

    #[test]
    fn a_plain_file_needs_no_watching() {
        let attendant = Attendant::new().unwrap();
        let file = tempfile::tempfile().unwrap();
        let source = Source {
            fd: file.as_fd(),
            interest: Interest::Both,
        };
        attendant.watch(0, 0, source).unwrap();
    }

    #[test]
    fn each_ring_of_a_doorbell_is_told_though_nobody_reads_it() {
        let attendant = Attendant::new().unwrap();
        let doorbell = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        attendant.watch_doorbell(5, doorbell.as_fd()).unwrap();
        for _ in 0..3 {
            rustix::io::write(&doorbell, &1u64.to_ne_bytes()).unwrap();
            let expected = Event::Doorbell { device: 5 };
            assert_eq!(events(&attendant, Duration::from_secs(9)), [expected]);
            assert_eq!(events(&attendant, Duration::ZERO), []);
        }
    }

    #[test]
    fn nudges_and_moments_wake() {
        let attendant = Attendant::new().unwrap();
        attendant.nudge();
        attendant.nudge();
        assert_eq!(events(&attendant, Duration::from_secs(9)), [Event::Nudge]);
        for _ in 0..2 {
            attendant.set_timer(Nanos(1)).unwrap();
            assert_eq!(events(&attendant, Duration::from_secs(9)), [Event::Timer]);
        }
        attendant.set_timer(Nanos(u64::MAX / 4)).unwrap();
        assert_eq!(events(&attendant, Duration::from_millis(1)), []);
        attendant.set_timer(Nanos(2)).unwrap();
        assert_eq!(events(&attendant, Duration::from_secs(9)), [Event::Timer]);
    }
}
