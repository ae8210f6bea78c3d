//! Everything wrong that can be done with a device's registers.

use super::low::{load, store};
use super::subject;
use super::verdict::Verdict;
use super::virtio::{Device, bit, reg};

/// Does what `case` names; `None` if it is not about registers.
pub fn run(device: &Device, case: &[u8]) -> Option<Verdict> {
    let window = device.entry.window;
    Some(match case {
        b"wrong-widths" => {
            let mut zeros = true;
            for register in (0..reg::CONFIG).step_by(4).map(|offset| window + offset) {
                zeros &= load::<u8>(register) == 0
                    && load::<u16>(register) == 0
                    && load::<u64>(register) == 0
                    && load::<u32>(register + 1) == 0;
            }
            for register in [
                reg::STATUS,
                reg::QUEUE_NOTIFY,
                reg::QUEUE_SEL,
                reg::QUEUE_NUM,
            ] {
                store::<u8>(window + register, 0xff);
                store::<u16>(window + register, 0xff);
                store::<u64>(window + register, u64::MAX);
                store::<u32>(window + register + 2, u32::MAX);
            }
            Verdict::Refused(zeros)
        }
        b"undefined-offsets" => {
            let mut zeros = true;
            for register in [0x018, 0x03c, 0x048, 0x054, 0x068, 0x0c0, 0x0f8] {
                device.write(register, u32::MAX);
                zeros &= device.read(register) == 0;
            }
            Verdict::Refused(zeros)
        }
        b"read-only-registers" => {
            let constant = [
                reg::MAGIC,
                reg::VERSION,
                reg::DEVICE_ID,
                reg::DEVICE_FEATURES,
                reg::QUEUE_NUM_MAX,
                reg::CONFIG_GENERATION,
            ];
            let before = constant.map(|register| device.read(register));
            for register in constant {
                device.write(register, !device.read(register));
            }
            Verdict::Refused(constant.map(|register| device.read(register)) == before)
        }
        b"feature-select-missing" => {
            device.reset();
            device.write(reg::DEVICE_FEATURES_SEL, 5);
            device.write(reg::DRIVER_FEATURES_SEL, 5);
            device.write(reg::DRIVER_FEATURES, u32::MAX);
            Verdict::Refused(device.read(reg::DEVICE_FEATURES) == 0)
        }
        b"queue-select-missing" => {
            device.negotiate();
            device.write(reg::QUEUE_SEL, 99);
            device.write(reg::QUEUE_NUM, 8);
            device.write(reg::QUEUE_READY, 1);
            let none = device.read(reg::QUEUE_NUM_MAX) == 0;
            Verdict::Refused(none && device.read(reg::QUEUE_READY) == 0)
        }
        b"features-not-offered" => Verdict::Refused(!device.agree(u64::MAX)),
        b"no-version-1" => Verdict::Refused(!device.agree(0)),
        b"driver-ok-too-soon" => {
            device.reset();
            device.place_queue();
            device.write(reg::QUEUE_READY, 1);
            device.write(reg::STATUS, bit::ACKNOWLEDGE | bit::DRIVER | bit::DRIVER_OK);
            Verdict::Refused(device.read(reg::STATUS) & bit::DRIVER_OK == 0)
        }
        b"config-while-up" => {
            device.start();
            for offset in (0..0x80).step_by(8) {
                let at = window + reg::CONFIG + offset;
                store::<u8>(at, 0xff);
                store::<u16>(at + 1, 0xffff);
                store::<u32>(at + 2, u32::MAX);
                store::<u64>(at, u64::MAX);
            }
            store::<u64>(window + 0xff8, u64::MAX);
            subject::ask(device);
            Verdict::Refused(!device.needs_reset() && load::<u64>(window + 0xff8) == 0)
        }
        b"device-holes" => {
            for offset in (0..0x1000).step_by(0x3c) {
                load::<u8>(window + offset);
                load::<u16>(window + offset);
                load::<u32>(window + offset);
                load::<u64>(window + offset);
            }
            for offset in [0x000, 0x004, 0x008, 0x034, 0x0fc, 0x100, 0x2f0, 0xff8] {
                store::<u8>(window + offset, 0xff);
                store::<u32>(window + offset, u32::MAX);
                store::<u64>(window + offset, u64::MAX);
            }
            Verdict::Bears
        }
        _ => return None,
    })
}
