//! A hostile case from its beginning to its verdict: do the wrong thing, see what came of it, let
//! the host look for as long as it likes, and find that the device works again.

use core::sync::atomic::{AtomicU64, Ordering};

use super::virtio::Device;
use super::{block, memory, net, registers, rings, status, subject, vsock};
use crate::guest::Guest;
use crate::own;

/// What has to come of what a case did.
pub enum Verdict {
    /// The device asks for a reset.
    Fails,
    /// The device would not have it; whether that is so.
    Refused(bool),
    /// Anything but harm to others.
    Bears,
}

/// Not 0: the guest has seen what came of its case. Read by the host.
#[unsafe(no_mangle)]
pub static SETTLED: AtomicU64 = AtomicU64::new(0);

/// Not 0: the guest may go on. Written by the host.
#[unsafe(no_mangle)]
pub static RELEASED: AtomicU64 = AtomicU64::new(0);

/// How often a guest asks whether it may go on.
const LOOK_EVERY_NS: u64 = 100_000_000;

impl Guest {
    /// Does the case to the device that the second argument names, the console if there is none.
    /// With a third argument it waits to be released before it mends the device.
    pub fn hostile_case(&self, case: &[u8]) {
        let device = subject::named(self, self.argument(1));
        let verdict = rings::run(&device, case)
            .or_else(|| registers::run(&device, case))
            .or_else(|| block::run(&device, case))
            .or_else(|| memory::run(&device, case))
            .or_else(|| net::run(&device, case))
            .or_else(|| vsock::run(&device, case))
            .or_else(|| own::run(&device, case));
        match verdict {
            None => self.exit(status::UNKNOWN_CASE),
            Some(Verdict::Refused(false)) => self.exit(status::BAD_QUEUE_ACCEPTED),
            Some(Verdict::Refused(true) | Verdict::Bears) => {}
            Some(Verdict::Fails) => self.expect_failed(&device),
        }
        if !self.argument(2).is_empty() {
            self.settle();
        }
        subject::recover(&device);
    }

    fn expect_failed(&self, device: &Device) {
        if !device.wait(Device::needs_reset) {
            self.exit(status::NO_NEEDS_RESET);
        }
        // A device that has failed stays failed, and bothering it does no harm.
        for _ in 0..100 {
            device.notify();
        }
    }

    fn settle(&self) {
        SETTLED.store(1, Ordering::SeqCst);
        while RELEASED.load(Ordering::SeqCst) == 0 {
            self.rest_for(LOOK_EVERY_NS);
        }
    }

    /// A peaceful neighbour: counts, now and then, that it lives, until it is released.
    pub fn beat(&self) {
        while RELEASED.load(Ordering::SeqCst) == 0 {
            SETTLED.fetch_add(1, Ordering::SeqCst);
            self.rest_for(LOOK_EVERY_NS / 20);
        }
    }
}
