//! A device's state in memory: its configuration space and whether it has failed, told without
//! leaving the guest.

use core::sync::atomic::{Ordering, fence};

use slice_abi::device::{CONFIG_BYTES, DeviceState, STATUS_NEEDS_RESET};

/// A copy of the configuration space, all of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Config([u8; CONFIG_BYTES]);

impl Config {
    /// Reads it.
    pub(crate) fn read(state: &DeviceState) -> Self {
        loop {
            let generation = state.generation.load(Ordering::Acquire);
            let mut bytes = [0; CONFIG_BYTES];
            for (to, word) in bytes.as_chunks_mut().0.iter_mut().zip(&state.config) {
                *to = word.load(Ordering::Relaxed).to_ne_bytes();
            }
            // The copy before the second look (virtio 1.2, 2.5.2).
            fence(Ordering::Acquire);
            let still = state.generation.load(Ordering::Relaxed) == generation;
            if still && generation.is_multiple_of(2) {
                return Self(bytes);
            }
            core::hint::spin_loop();
        }
    }

    /// The bytes at `offset`; zeros beyond the end.
    pub(crate) fn bytes<const N: usize>(&self, offset: usize) -> [u8; N] {
        let from = self.0.get(offset..).unwrap_or_default();
        from.first_chunk().copied().unwrap_or([0; N])
    }

    /// A number of 16 bits.
    pub(crate) fn u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.bytes(offset))
    }

    /// A number of 32 bits.
    pub(crate) fn u32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.bytes(offset))
    }

    /// A number of 64 bits.
    pub(crate) fn u64(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.bytes(offset))
    }
}

/// Whether the device has failed and works again only after a reset.
pub(crate) fn needs_reset(state: &DeviceState) -> bool {
    state.status.load(Ordering::Relaxed) & STATUS_NEEDS_RESET != 0
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU32};

    pub(crate) fn state() -> DeviceState {
        DeviceState {
            status: AtomicU32::new(15),
            generation: AtomicU32::new(0),
            config: [const { AtomicU32::new(0) }; CONFIG_BYTES / 4],
        }
    }

    #[test]
    fn numbers_of_any_width_are_read_where_they_are() {
        let state = state();
        state.config[1].store(0x4433_2211, Ordering::Relaxed);
        state.config[2].store(0x8877_6655, Ordering::Relaxed);
        let config = Config::read(&state);
        assert_eq!(config.bytes(5), [0x22, 0x33]);
        assert_eq!(config.u16(6), 0x4433);
        assert_eq!(config.u32(8), 0x8877_6655);
        assert_eq!(config.u64(4), 0x8877_6655_4433_2211);
        assert_eq!(config.u64(CONFIG_BYTES - 4), 0);
        assert_eq!(config.u16(CONFIG_BYTES + 9), 0);
    }

    #[test]
    fn a_copy_is_of_one_moment() {
        let state = state();
        let end = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..20_000 {
                    state.generation.fetch_add(1, Ordering::SeqCst);
                    state
                        .config
                        .iter()
                        .for_each(|word| word.store(round, Ordering::SeqCst));
                    state.generation.fetch_add(1, Ordering::SeqCst);
                }
                end.store(true, Ordering::Relaxed);
            });
            while !end.load(Ordering::Relaxed) {
                let config = Config::read(&state);
                assert_eq!(config.u32(0), config.u32(CONFIG_BYTES - 4));
            }
        });
    }

    #[test]
    fn a_device_that_failed_says_so() {
        let state = state();
        assert!(!needs_reset(&state));
        state.status.fetch_or(STATUS_NEEDS_RESET, Ordering::Relaxed);
        assert!(needs_reset(&state));
    }
}
