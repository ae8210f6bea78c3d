//! The transport's registers in any order, before a device that gives back what it is given.
#![no_main]
#![allow(missing_docs, reason = "a program")]

use libfuzzer_sys::fuzz_target;
use vmm::devices::virtio::backend::{Backend, Fault, Identity, Progress, Queues};
use vmm::devices::virtio::chain::Chain;
use vmm::nanos::Nanos;
use vmm_fuzz::drive;

#[derive(Debug, Default)]
struct Echo {
    config: [u8; 16],
    running: bool,
}

impl Backend for Echo {
    fn identity(&self) -> Identity {
        Identity {
            id: 42,
            tag: "echo".to_owned(),
            features: 0x55,
            queue_sizes: vec![256, 16, 1],
        }
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) -> bool {
        let place = self
            .config
            .get_mut(offset..)
            .and_then(|rest| rest.get_mut(..data.len()));
        place.map(|place| place.copy_from_slice(data)).is_some()
    }

    fn start(&mut self, features: u64) {
        assert!(!self.running, "it was not stopped");
        assert_eq!(features & !(0x55 | 1 << 28 | 1 << 29 | 1 << 32), 0);
        self.running = true;
    }

    fn stop(&mut self) -> bool {
        self.running = false;
        true
    }

    fn serve(&mut self, queues: &mut Queues<'_>, _now: Nanos) -> Result<Progress, Fault> {
        assert!(self.running, "it was not started");
        let mut chain = Chain::default();
        for queue in 0..4 {
            let Some(mut port) = queues.get(queue) else {
                continue;
            };
            while port.pop(&mut chain)? {
                port.push(chain.head, 0)?;
            }
            port.listen()?;
        }
        Ok(Progress::Done)
    }
}

fuzz_target!(|data: &[u8]| drive(data, Box::new(Echo::default()), |_| {}));
