//! The generator of a slice: ChaCha20, seeded from the entropy device and the processor.
#![allow(unsafe_code, reason = "instructions of some processors")]

use core::arch::x86_64::_rdrand64_step;

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use slice_abi::device::device_id;
use slice_abi::info::cpu_feature;

use super::device::{self, Registers};
use super::identity::info;
use super::{clock, control};
use crate::sync::Mutex;
use crate::virtio::entropy::{Entropy, SEED};

static GENERATOR: Mutex<Generator> = Mutex::new(Generator {
    source: None,
    stream: None,
});

struct Generator {
    source: Option<Entropy<Registers>>,
    /// With the clone generation that it was seeded in.
    stream: Option<(u64, ChaCha20Rng)>,
}

pub(crate) fn fill(bytes: &mut [u8]) {
    GENERATOR.lock().stream().fill_bytes(bytes);
}

impl Generator {
    /// The stream, which no copy of this sliver has.
    fn stream(&mut self) -> &mut ChaCha20Rng {
        let generation = clock::generation();
        if self.stream.as_ref().is_none_or(|(of, _)| *of != generation) {
            self.stream = Some((generation, ChaCha20Rng::from_seed(self.seed())));
        }
        let (_, stream) = self.stream.as_mut().expect("it was just seeded");
        stream
    }

    /// From all sources there are: as good as the best of them.
    fn seed(&mut self) -> [u8; SEED] {
        let from_device = self.ask_device();
        let from_processor = from_processor();
        assert!(
            from_device.is_some() || from_processor.is_some(),
            "there is no source of randomness"
        );
        let mut seed = from_device.unwrap_or_default();
        for (to, byte) in seed.iter_mut().zip(from_processor.unwrap_or_default()) {
            *to ^= byte;
        }
        // What was in the stream before counts, too: a seed is never worse than the last.
        if let Some((_, stream)) = &mut self.stream {
            let mut old = [0; SEED];
            stream.fill_bytes(&mut old);
            seed.iter_mut().zip(old).for_each(|(to, byte)| *to ^= byte);
        }
        seed
    }

    fn ask_device(&mut self) -> Option<[u8; SEED]> {
        if self.source.is_none() {
            self.source = device::find(device_id::ENTROPY).next().map(|found| {
                Entropy::new(found.registers(), found.state(), found.entry.queue_size_max)
            });
        }
        self.source.as_mut()?.seed(|| control::idle(None))
    }
}

/// From the processor's generator, if it has one that gives.
fn from_processor() -> Option<[u8; SEED]> {
    if info().cpu_features & cpu_feature::RDRAND == 0 {
        return None;
    }
    let mut seed = [0; SEED];
    for word in seed.as_chunks_mut().0 {
        *word = rdrand()?.to_ne_bytes();
    }
    Some(seed)
}

fn rdrand() -> Option<u64> {
    /// More tries than a generator in order ever needs.
    const TRIES: usize = 10;

    #[target_feature(enable = "rdrand")]
    fn step() -> Option<u64> {
        let mut value = 0;
        (_rdrand64_step(&mut value) == 1).then_some(value)
    }
    // SAFETY: the only caller has looked whether the processor has the instruction.
    (0..TRIES).find_map(|_| unsafe { step() })
}
