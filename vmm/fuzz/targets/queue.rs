//! A queue of any configuration over rings of any bytes, driven in any order.
#![no_main]
#![allow(missing_docs, reason = "a program")]

use libfuzzer_sys::arbitrary::Result;
use libfuzzer_sys::fuzz_target;
use vmm::devices::virtio::chain::Chain;
use vmm::devices::virtio::queue::QueueConfig;
use vmm_fuzz::{DATA, RAM, Unstructured, ram};

fuzz_target!(|data: &[u8]| {
    // An input that ends is at its end.
    let _ = run(&mut Unstructured::new(data));
});

fn run(input: &mut Unstructured) -> Result<()> {
    let ram = ram();
    let mut config = QueueConfig::new(256);
    let place = |input: &mut Unstructured, usual: u64| -> Result<u64> {
        Ok(match input.arbitrary::<u8>()? {
            0 => input.arbitrary()?,
            1 => RAM.end() - u64::from(input.arbitrary::<u16>()?),
            2 => DATA + u64::from(input.arbitrary::<u16>()?),
            _ => usual,
        })
    };
    config.descriptors = place(input, DATA)?;
    config.available = place(input, DATA + 0x1000)?;
    config.used = place(input, DATA + 0x2000)?;
    config.size = match input.arbitrary::<u8>()? {
        0 => input.arbitrary()?,
        shift => 1 << (shift % 9),
    };
    let features = u64::from(input.arbitrary::<u32>()?);
    let Ok(mut queue) = config.start(&ram, features) else {
        return Ok(());
    };
    let mut chain = Chain::default();
    let mut held = 0;
    for _ in 0..200 {
        let alive = match input.arbitrary::<u8>()? % 8 {
            0 | 1 => queue
                .pop(&ram, &mut chain)
                .map(|taken| held += u16::from(taken)),
            2 if held > 0 => {
                held -= 1;
                queue.unpop(1);
                Ok(())
            }
            3 => queue.stage(&ram, input.arbitrary()?, input.arbitrary()?),
            4 => queue.publish(&ram),
            5 => queue.wants_notification(&ram).map(drop),
            6 => queue.listen(&ram).map(drop),
            _ => {
                let at = config.descriptors & !1;
                let at = at.wrapping_add(u64::from(input.arbitrary::<u16>()? % 0x2800));
                let len = usize::from(input.arbitrary::<u8>()? % 32);
                let _ = ram.write_any(input.bytes(len)?, at);
                Ok(())
            }
        };
        if let Err(error) = alive {
            assert!(!error.to_string().is_empty());
            // The transport lets go of a queue that has failed.
            return Ok(());
        }
    }
    Ok(())
}
