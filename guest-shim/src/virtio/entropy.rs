//! The driver of an entropy device (virtio 1.2, 5.4): one buffer, filled when asked for.
#![allow(unsafe_code, reason = "a device fills a buffer that the driver names")]

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU8, Ordering};

use slice_abi::device::DeviceState;

use super::mmio::{Device, F_VERSION_1, Setup, Window};
use super::ring::Parts;
use super::state::needs_reset;
use super::virtq::{Buffer, Queue, Tell};

/// The only queue.
const REQUESTS: u32 = 0;

/// Bytes of a seed.
pub(crate) const SEED: usize = 32;

/// An entropy device.
pub(crate) struct Entropy<W> {
    /// Kept, because it is what the device was started as.
    _device: Device<W>,
    queue: Queue,
    state: &'static DeviceState,
    bytes: &'static [AtomicU8; SEED],
}

impl<W: Window> Entropy<W> {
    /// Takes a device in reset into use.
    pub(crate) fn new(window: W, state: &'static DeviceState, queue_size: u32) -> Self {
        let queue = Queue::new(Parts::on_heap(queue_size.min(2)), F_VERSION_1);
        let mut setup = Setup::negotiate(window, F_VERSION_1);
        setup.queue(REQUESTS, queue.ring());
        Self {
            _device: setup.start(),
            queue,
            state,
            bytes: Box::leak(Box::new([const { AtomicU8::new(0) }; SEED])),
        }
    }

    /// A seed, waited for in `rest`, which is a doorbell and ends when the device has moved its
    /// ring or failed. `None` if the device fails.
    pub(crate) fn seed(&mut self, mut rest: impl FnMut()) -> Option<[u8; SEED]> {
        let mut seed = [0; SEED];
        let mut filled = 0;
        while filled < SEED {
            // The device may give fewer than asked for, but at least one (5.4.6.2).
            let count = self.ask(&mut rest)?.min(SEED - filled);
            let fresh = self.bytes.iter().take(count);
            for (to, from) in seed[filled..].iter_mut().zip(fresh) {
                // What was used as a seed is not left lying about.
                *to = from.swap(0, Ordering::Relaxed);
            }
            filled += count;
        }
        Some(seed)
    }

    /// Bytes that the device has put into the buffer.
    fn ask(&mut self, rest: &mut impl FnMut()) -> Option<usize> {
        let chain = [Buffer {
            address: self.bytes.as_ptr() as u64,
            length: SEED as u32,
            device_writes: true,
        }];
        // SAFETY: the buffer is leaked and made of atomics.
        unsafe { self.queue.add(&chain) }.ok()?;
        self.queue.publish();
        loop {
            if let Some(done) = self.queue.pop() {
                return (done.written > 0).then_some(done.written as usize);
            }
            if self.queue.is_broken() || needs_reset(self.state) {
                return None;
            }
            if !self.queue.ask(Tell::AT_NEXT) {
                rest();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::simulated::SimulatedDevice;
    use crate::virtio::state::tests::state;
    use slice_abi::device::STATUS_NEEDS_RESET;

    struct Nowhere;

    impl Window for Nowhere {
        fn write(&self, _: u64, _: u32) {}
    }

    fn pair() -> (Entropy<Nowhere>, SimulatedDevice) {
        let state: &'static DeviceState = Box::leak(Box::new(state()));
        let entropy = Entropy::new(Nowhere, state, 16);
        let device = SimulatedDevice::new(entropy.queue.ring(), F_VERSION_1);
        (entropy, device)
    }

    #[test]
    fn a_seed_comes_in_one_piece_and_leaves_no_trace() {
        let (mut entropy, mut device) = pair();
        let bytes = entropy.bytes;
        let seed = entropy.seed(|| {
            let (head, chain) = device.take().unwrap();
            assert_eq!(chain, [(bytes.as_ptr() as u64, 32, true)]);
            bytes
                .iter()
                .for_each(|byte| byte.store(9, Ordering::Relaxed));
            device.give_back(head.into(), 1000);
        });
        assert_eq!(seed, Some([9; SEED]));
        assert!(bytes.iter().all(|byte| byte.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn small_gifts_add_up() {
        let (mut entropy, mut device) = pair();
        let bytes = entropy.bytes;
        let mut gift = 0;
        let seed = entropy.seed(|| {
            let (head, _) = device.take().unwrap();
            gift += 1;
            bytes
                .iter()
                .for_each(|byte| byte.store(gift, Ordering::Relaxed));
            device.give_back(head.into(), 15);
        });
        let expected = [&[1; 15][..], &[2; 15], &[3; 2]].concat();
        assert_eq!(seed.unwrap(), expected[..]);
    }

    #[test]
    fn a_device_that_fails_or_gives_nothing_gives_no_seed() {
        let (mut entropy, mut device) = pair();
        let state = entropy.state;
        assert_eq!(
            entropy.seed(|| {
                let (head, _) = device.take().unwrap();
                device.give_back(head.into(), 0);
            }),
            None
        );
        let failed = entropy.seed(|| {
            state.status.fetch_or(STATUS_NEEDS_RESET, Ordering::Relaxed);
        });
        assert_eq!(failed, None);
    }
}
