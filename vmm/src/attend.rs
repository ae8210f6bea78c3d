//! How a machine's devices are attended to: by its idle vCPUs, and by one thread while none idles.
//!
//! See [`Attendant`] for who is woken when. A vCPU that has lately been woken soon after it fell
//! asleep looks for a moment before it sleeps again, for at most [`LONGEST_LOOK`]: waking a thread
//! costs more than that. All of it is processor time of this process, and so the sliver's.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rustix::thread::set_current_timer_slack;
use rustix::time::{ClockId, clock_gettime};

use crate::devices::attendant::{Attendant, Event};
use crate::devices::bus::{DeviceSet, Done};
use crate::exit::Exit;
use crate::kvm::kick::WaitMask;
use crate::machine::{EndGuard, Machine, TIMER_SLACK_NS};
use crate::nanos::Nanos;
use crate::sched::account::Doing;

/// The longest look for events before a vCPU sleeps: a quick disk answers within it.
const LONGEST_LOOK: Duration = Duration::from_micros(100);
/// The first one, after a sleep that was so short that looking would have been better.
const FIRST_LOOK: Duration = Duration::from_micros(10);

/// For how long the devices' thread leaves a device alone that a vCPU serves: that vCPU sees what
/// comes meanwhile, and each of it would else wake this thread for nothing.
const STAND_BACK: Duration = Duration::from_micros(100);

/// Batches, one after another, that a vCPU serves before it leaves the rest to others: devices that
/// other vCPUs keep busy must not keep it for ever.
pub(crate) const TURNS: usize = 32;

/// For how long a vCPU looks before it sleeps; grows while that helps, ends when it does not.
#[derive(Debug, Default)]
pub(crate) struct Look {
    window_ns: AtomicU64,
    /// Nanoseconds spent looking, so far.
    spent_ns: AtomicU64,
}

impl Look {
    fn window(&self) -> u64 {
        self.window_ns.load(Ordering::Relaxed)
    }

    /// A sleep, after a look in vain, took this long.
    fn slept(&self, for_ns: u64) {
        let (first, longest) = (FIRST_LOOK.as_nanos() as u64, LONGEST_LOOK.as_nanos() as u64);
        let window = match self.window() {
            _ if for_ns > longest => 0,
            0 => first,
            window => (window * 2).min(longest),
        };
        self.window_ns.store(window, Ordering::Relaxed);
    }

    /// Microseconds spent looking, so far.
    pub(crate) fn spent_us(&self) -> u64 {
        self.spent_ns.load(Ordering::Relaxed) / 1000
    }
}

/// Now.
pub(crate) fn now() -> Nanos {
    let time = clock_gettime(ClockId::Monotonic);
    Nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

impl Machine {
    /// Sees to what follows from something that was done for the guest. Gives the devices that have
    /// more to serve.
    pub(crate) fn follow_up(self: &Arc<Self>, done: Done) -> DeviceSet {
        if done.notify {
            self.wake_all();
        }
        if done.attend {
            self.attend();
        }
        done.unfinished
    }

    /// vCPU `index` rests: serves every queue, then sleeps until woken or until the host's monotonic
    /// clock shows `until`. It may come back early. Gives the devices that have more to serve.
    pub(crate) fn rest(self: &Arc<Self>, index: usize, until: Option<Nanos>) -> DeviceSet {
        let doze = &self.slots[index].doze;
        let mut work = DeviceSet::ALL;
        loop {
            let mut left = false;
            while !work.is_empty() {
                if !self.pass_gate(Some(index)) {
                    return work;
                }
                let done = self.bus().serve(work, self.vm(), now());
                left = done.left;
                work = self.follow_up(done);
                if self.lifecycle.wants_attention() {
                    return work;
                }
                if !work.is_empty() && doze.take() {
                    // The guest can go on already: it does, while another thread serves the rest.
                    self.hand_over();
                    return DeviceSet::default();
                }
            }
            let limit = until.map(|until| until.0.saturating_sub(now().0));
            if doze.take() || limit == Some(0) || self.lifecycle.wants_attention() {
                return work;
            }
            let limit = limit.map(Duration::from_nanos);
            // Who serves a device will wake this vCPU: there is nothing to look for meanwhile.
            let window = if left {
                0
            } else {
                self.slots[index].look.window()
            };
            match self.attendant.get() {
                None => {
                    self.rests();
                    doze.sleep(limit);
                    self.governor().busy(now());
                    return work;
                }
                Some(attendant) => match self.wait_at(attendant, index, window, limit) {
                    Ok(more) => work = more,
                    Err(error) => self.end(cannot_wait(&error)),
                },
            }
        }
    }

    /// Leaves what is not finished to the devices' thread, or to a vCPU that idles.
    pub(crate) fn hand_over(self: &Arc<Self>) {
        self.attend();
        if let Some(attendant) = self.attendant.get() {
            attendant.nudge();
        }
    }

    /// Looks for events and then sleeps until there are some. Gives the devices to serve.
    fn wait_at(
        &self,
        attendant: &Attendant,
        index: usize,
        window: u64,
        limit: Option<Duration>,
    ) -> std::io::Result<DeviceSet> {
        let slot = &self.slots[index];
        let began = now();
        let mut set = DeviceSet::default();
        let mut looked = 0;
        while looked < window {
            attendant.wait(Some(Duration::ZERO), None, |event| {
                self.note(event, &mut set)
            })?;
            looked = now().0.saturating_sub(began.0);
            if !set.is_empty() || slot.doze.is_woken() || self.lifecycle.wants_attention() {
                slot.look.spent_ns.fetch_add(looked, Ordering::Relaxed);
                return Ok(set);
            }
        }
        slot.look.spent_ns.fetch_add(looked, Ordering::Relaxed);
        let mask = WaitMask::hold();
        if !slot.doze.go_out() {
            return Ok(set);
        }
        let result = if self.lifecycle.wants_attention() {
            Ok(0)
        } else {
            self.rests();
            let result = attendant.wait(limit, Some(&mask), |event| self.note(event, &mut set));
            self.governor().busy(now());
            result
        };
        slot.doze.come_back();
        drop(mask);
        let slept = now().0.saturating_sub(began.0).saturating_sub(looked);
        slot.look.slept(slept);
        if result? == 0 {
            // Work that this thread gave to the kernel may have interrupted it, to be done now: what
            // came of it is told to who waits just then, which is not this thread.
            set = DeviceSet::ALL;
        }
        Ok(set)
    }

    /// Notes an event in its device and the device in `set`.
    fn note(&self, event: Event, set: &mut DeviceSet) {
        match event {
            Event::Source { device, source } => {
                self.bus().ready(device, source);
                set.insert(device);
            }
            Event::Doorbell { device } => {
                self.bus().rang(device);
                set.insert(device);
            }
            Event::Serial => self.serve_serial(),
            Event::Timer => {
                let now = now();
                set.add(self.bus().due(now));
                // Whoever set a later moment since the timer went off has seen it still set.
                self.set_timer(self.bus().again_after(now));
                self.serve_serial();
            }
            Event::Nudge => *set = DeviceSet::ALL,
        }
    }

    /// Sees to a legacy guest's serial port. That touches no guest memory: it may be paused.
    fn serve_serial(&self) {
        let Some(legacy) = self.legacy() else {
            return;
        };
        let (again_at, full) = legacy.serve_serial(now());
        self.set_timer(again_at);
        if !full {
            // One that waits for room.
            self.slots.iter().for_each(|slot| {
                slot.doze.wake();
            });
        }
    }

    /// Has whoever attends to the devices do so at `moment` at the latest.
    pub(crate) fn set_timer(&self, moment: Option<Nanos>) {
        if let (Some(attendant), Some(moment)) = (self.attendant.get(), moment)
            && let Err(error) = attendant.set_timer(moment)
        {
            self.end(cannot_wait(&error));
        }
    }

    /// Has somebody attend to the devices from now on, if nobody does yet, and to the sources and
    /// moments that have come up since.
    pub(crate) fn attend(self: &Arc<Self>) {
        if let Err(error) = self.try_attend() {
            self.end(cannot_wait(&error));
        }
    }

    fn try_attend(self: &Arc<Self>) -> std::io::Result<()> {
        if self.attendant.get().is_none() {
            let machine = Arc::clone(self);
            let attendant = Attendant::new()?;
            self.bus()
                .doorbells(|device, doorbell| attendant.watch_doorbell(device, doorbell))?;
            if let Some(legacy) = self.legacy() {
                let ports = legacy.ports();
                let (output, input) = ports.serial.descriptors();
                attendant.watch_serial(output, input)?;
            }
            if self.attendant.set(attendant).is_ok() {
                let thread = std::thread::Builder::new()
                    .name("devices".to_owned())
                    .spawn(move || machine.attend_always())?;
                let mut devices_thread = self
                    .devices_thread
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                *devices_thread = Some(thread);
            }
        }
        let Some(attendant) = self.attendant.get() else {
            return Ok(());
        };
        self.bus()
            .watch_sources(|device, number, source| attendant.watch(device, number, source))?;
        match self.bus().again_at() {
            Some(moment) => attendant.set_timer(moment),
            None => Ok(()),
        }
    }

    /// The life of the devices' thread.
    fn attend_always(self: Arc<Self>) {
        let _guard = EndGuard::new(&self);
        let _ = set_current_timer_slack(NonZeroU64::new(TIMER_SLACK_NS));
        let Some(attendant) = self.attendant.get() else {
            return;
        };
        self.devices_account.adopt(Doing::Device);
        let mut work = DeviceSet::default();
        while self.lifecycle.end_reason().is_none() {
            // A device that always has more must not keep this thread from what comes for others.
            let limit = (!work.is_empty()).then_some(Duration::ZERO);
            if let Err(error) = attendant.wait(limit, None, |event| self.note(event, &mut work)) {
                return self.end(cannot_wait(&error));
            }
            if work.is_empty() {
                continue;
            }
            self.governor().serving(true, now());
            // While the sliver is paused nothing is served: it is nudged when it goes on.
            if !self.pass_gate(None) || !self.lifecycle.begin_service() {
                self.governor().serving(false, now());
                work = DeviceSet::default();
                continue;
            }
            let done = self.bus().serve(work, self.vm(), now());
            work = self.follow_up(done);
            if self.lifecycle.end_service() {
                self.bell.ring();
            }
            self.governor().serving(false, now());
            if done.left {
                std::thread::sleep(STAND_BACK);
            }
        }
    }

    /// Wakes every idle vCPU: a device has something for its driver.
    pub(crate) fn wake_all(&self) {
        for index in 0..self.slots.len() {
            self.wake_vcpu(index);
        }
    }

    /// Wakes vCPU `index`, wherever it rests.
    pub(crate) fn wake_vcpu(&self, index: usize) {
        let slot = &self.slots[index];
        if slot.doze.wake()
            && let Some(kick) = slot.kick.get()
        {
            kick.kick();
        }
    }
}

fn cannot_wait(error: &std::io::Error) -> Exit {
    Exit::error(format!("cannot attend to the devices: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_grows_while_sleeps_are_short_and_ends_with_a_long_one() {
        let look = Look::default();
        assert_eq!(look.window(), 0);
        for expected in [10_000, 20_000, 40_000, 80_000, 100_000, 100_000] {
            look.slept(60_000);
            assert_eq!(look.window(), expected);
        }
        look.slept(100_001);
        assert_eq!(look.window(), 0);
    }
}
