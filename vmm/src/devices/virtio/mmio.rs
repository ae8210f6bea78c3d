//! The virtio-mmio transport (virtio 1.2, 4.2): the registers of one device, as a pure state
//! machine. Writes give back what the device has to do; no queue is touched here.

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;

use super::queue::QueueConfig;

/// Register offsets (virtio 1.2, table 4.1).
#[allow(missing_docs, reason = "named as in the standard")]
pub mod register {
    pub const MAGIC: u64 = 0x00;
    pub const VERSION: u64 = 0x04;
    pub const DEVICE_ID: u64 = 0x08;
    pub const VENDOR_ID: u64 = 0x0c;
    pub const DEVICE_FEATURES: u64 = 0x10;
    pub const DEVICE_FEATURES_SEL: u64 = 0x14;
    pub const DRIVER_FEATURES: u64 = 0x20;
    pub const DRIVER_FEATURES_SEL: u64 = 0x24;
    pub const QUEUE_SEL: u64 = 0x30;
    pub const QUEUE_NUM_MAX: u64 = 0x34;
    pub const QUEUE_NUM: u64 = 0x38;
    pub const QUEUE_READY: u64 = 0x44;
    pub const QUEUE_NOTIFY: u64 = 0x50;
    pub const INTERRUPT_STATUS: u64 = 0x60;
    pub const INTERRUPT_ACK: u64 = 0x64;
    pub const STATUS: u64 = 0x70;
    pub const QUEUE_DESC_LOW: u64 = 0x80;
    pub const QUEUE_DESC_HIGH: u64 = 0x84;
    pub const QUEUE_DRIVER_LOW: u64 = 0x90;
    pub const QUEUE_DRIVER_HIGH: u64 = 0x94;
    pub const QUEUE_DEVICE_LOW: u64 = 0xa0;
    pub const QUEUE_DEVICE_HIGH: u64 = 0xa4;
    pub const CONFIG_GENERATION: u64 = 0xfc;
    pub const CONFIG: u64 = 0x100;
}

/// Device status bits (virtio 1.2, 2.1).
#[allow(missing_docs, reason = "named as in the standard")]
pub mod status {
    pub const ACKNOWLEDGE: u32 = 1;
    pub const DRIVER: u32 = 2;
    pub const DRIVER_OK: u32 = 4;
    pub const FEATURES_OK: u32 = 8;
    pub const NEEDS_RESET: u32 = 64;
    pub const FAILED: u32 = 128;
}

/// Bits of the interrupt status (virtio 1.2, 4.2.2).
#[allow(missing_docs, reason = "named as in the standard")]
pub mod interrupt {
    pub const USED_BUFFER: u32 = 1;
    pub const CONFIGURATION_CHANGE: u32 = 2;
}

/// "virt" in memory order.
const MAGIC_VALUE: u32 = u32::from_le_bytes(*b"virt");
/// Not the legacy interface.
const VERSION_VALUE: u32 = 2;
/// "SLCE" in memory order; the standard leaves the value to us.
const VENDOR_VALUE: u32 = u32::from_le_bytes(*b"SLCE");

/// What the device behind the transport has to do after a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Forget everything: the driver has reset the device.
    Reset,
    /// Start the queues that are ready: the driver is up.
    Activate,
    /// Look at this queue.
    Notify(usize),
    /// Nothing; the write was not a valid one and is to be counted.
    Ignored,
}

/// The registers of one device.
#[derive(Debug, Clone)]
pub struct Transport {
    device_id: u32,
    device_features: u64,
    queues: Vec<QueueConfig>,
    driver_features: u64,
    device_features_sel: u32,
    driver_features_sel: u32,
    queue_sel: u32,
    status: u32,
    interrupt_status: u32,
    /// The driver has asked for a reset that is not done yet.
    resetting: bool,
}

impl Transport {
    /// A device of type `device_id`, just reset, with queues of at most the given sizes.
    pub fn new(device_id: u32, features: u64, queue_sizes: &[u16]) -> Self {
        Self {
            device_id,
            device_features: features | 1 << VIRTIO_F_VERSION_1,
            queues: queue_sizes
                .iter()
                .map(|&size| QueueConfig::new(size))
                .collect(),
            driver_features: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            queue_sel: 0,
            status: 0,
            interrupt_status: 0,
            resetting: false,
        }
    }

    /// Feature bits that the driver has accepted.
    pub fn driver_features(&self) -> u64 {
        self.driver_features
    }

    /// Feature bits that are offered.
    pub fn device_features(&self) -> u64 {
        self.device_features
    }

    /// Type of the device.
    pub fn device_id(&self) -> u32 {
        self.device_id
    }

    /// The queues as configured.
    pub fn queues(&self) -> &[QueueConfig] {
        &self.queues
    }

    /// Whether the driver is up and the device sound.
    pub fn is_running(&self) -> bool {
        !self.resetting
            && self.status & status::DRIVER_OK != 0
            && self.status & (status::NEEDS_RESET | status::FAILED) == 0
    }

    /// Whether the driver is up, the device sound or not: before that it takes no interrupts.
    pub fn is_driven(&self) -> bool {
        !self.resetting && self.status & status::DRIVER_OK != 0
    }

    /// Notes for what there is an interrupt, in bits of [`interrupt`].
    pub fn raise(&mut self, bits: u32) {
        self.interrupt_status |= bits;
    }

    /// Latches a fault: nothing but a reset helps any more (virtio 1.2, 2.1.2).
    pub fn needs_reset(&mut self) {
        self.status |= status::NEEDS_RESET;
    }

    /// The reset is done: everything is as at first. Until then the status register does not read
    /// as 0, and the driver waits for that (virtio 1.2, 4.2.2.1).
    pub fn finish_reset(&mut self) {
        let sizes: Vec<u16> = self.queues.iter().map(QueueConfig::max_size).collect();
        *self = Self::new(self.device_id, self.device_features, &sizes);
    }

    /// Reads the register at `offset`; unknown ones are 0.
    pub fn read(&self, offset: u64) -> u32 {
        let queue = self.queues.get(self.queue_sel as usize);
        match offset {
            register::MAGIC => MAGIC_VALUE,
            register::VERSION => VERSION_VALUE,
            register::DEVICE_ID => self.device_id,
            register::VENDOR_ID => VENDOR_VALUE,
            register::DEVICE_FEATURES => half(self.device_features, self.device_features_sel),
            register::QUEUE_NUM_MAX => queue.map_or(0, |q| u32::from(q.max_size())),
            register::QUEUE_READY => queue.map_or(0, |q| u32::from(q.ready)),
            register::INTERRUPT_STATUS => self.interrupt_status,
            register::STATUS => self.status,
            _ => 0,
        }
    }

    /// Writes `value` to the register at `offset`.
    pub fn write(&mut self, offset: u64, value: u32) -> Effect {
        if self.resetting {
            return Effect::Ignored;
        }
        match offset {
            register::DEVICE_FEATURES_SEL => self.device_features_sel = value,
            register::DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            register::DRIVER_FEATURES => return self.write_features(value),
            register::QUEUE_SEL => self.queue_sel = value,
            register::QUEUE_NOTIFY => return self.notify(value),
            register::STATUS => return self.write_status(value),
            register::INTERRUPT_ACK => self.interrupt_status &= !value,
            _ => return self.write_queue(offset, value),
        }
        Effect::None
    }

    fn write_features(&mut self, value: u32) -> Effect {
        // Virtio 1.2, 3.1.1: features are settled once FEATURES_OK is set.
        if self.status & status::FEATURES_OK != 0 {
            return Effect::Ignored;
        }
        match self.driver_features_sel {
            0 => self.driver_features = self.driver_features & !0xffff_ffff | u64::from(value),
            1 => {
                self.driver_features = self.driver_features & 0xffff_ffff | u64::from(value) << 32;
            }
            _ if value == 0 => {}
            _ => return Effect::Ignored,
        }
        Effect::None
    }

    fn write_status(&mut self, value: u32) -> Effect {
        if value == 0 {
            self.resetting = true;
            return Effect::Reset;
        }
        let known = status::ACKNOWLEDGE
            | status::DRIVER
            | status::DRIVER_OK
            | status::FEATURES_OK
            | status::FAILED;
        let wanted = value & known;
        let held = self.status & known;
        // Virtio 1.2, 2.1.1: the driver must not clear a bit.
        if held & !wanted != 0 {
            return Effect::Ignored;
        }
        let mut news = wanted & !held;
        if news & status::FEATURES_OK != 0 && !self.features_acceptable() {
            // The driver reads the bit back and finds that its choice was refused.
            news &= !status::FEATURES_OK;
        }
        let features_ok = (self.status | news) & status::FEATURES_OK != 0;
        if news & status::DRIVER_OK != 0 && !features_ok {
            return Effect::Ignored;
        }
        self.status |= news;
        if news & status::DRIVER_OK != 0 {
            Effect::Activate
        } else {
            Effect::None
        }
    }

    fn features_acceptable(&self) -> bool {
        let unknown = self.driver_features & !self.device_features;
        unknown == 0 && self.driver_features & 1 << VIRTIO_F_VERSION_1 != 0
    }

    fn notify(&mut self, value: u32) -> Effect {
        if !self.is_running() || value as usize >= self.queues.len() {
            return Effect::Ignored;
        }
        Effect::Notify(value as usize)
    }

    /// Registers of the selected queue, which can be written until the driver is up.
    fn write_queue(&mut self, offset: u64, value: u32) -> Effect {
        let up = self.status & status::DRIVER_OK != 0;
        let Some(queue) = self.queues.get_mut(self.queue_sel as usize).filter(|_| !up) else {
            return Effect::Ignored;
        };
        let low = |word: &mut u64| *word = *word & !0xffff_ffff | u64::from(value);
        let high = |word: &mut u64| *word = *word & 0xffff_ffff | u64::from(value) << 32;
        match offset {
            register::QUEUE_READY => queue.ready = value & 1 == 1,
            // Virtio 1.2, 4.2.2.2: nothing else of a queue changes while it is ready.
            _ if queue.ready => return Effect::Ignored,
            register::QUEUE_NUM => queue.size = value,
            register::QUEUE_DESC_LOW => low(&mut queue.descriptors),
            register::QUEUE_DESC_HIGH => high(&mut queue.descriptors),
            register::QUEUE_DRIVER_LOW => low(&mut queue.available),
            register::QUEUE_DRIVER_HIGH => high(&mut queue.available),
            register::QUEUE_DEVICE_LOW => low(&mut queue.used),
            register::QUEUE_DEVICE_HIGH => high(&mut queue.used),
            _ => return Effect::Ignored,
        }
        Effect::None
    }
}

/// The 32 bits of a 64-bit field that a selector names; there is nothing above the second half.
fn half(word: u64, selector: u32) -> u32 {
    match selector {
        0 => word as u32,
        1 => (word >> 32) as u32,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn transport() -> Transport {
        Transport::new(3, 0, &[16, 16])
    }

    fn up() -> Transport {
        let mut t = transport();
        t.write(register::DRIVER_FEATURES_SEL, 1);
        t.write(register::DRIVER_FEATURES, 1);
        t.write(register::STATUS, 11);
        assert_eq!(t.write(register::STATUS, 15), Effect::Activate);
        t
    }

    #[test]
    fn it_says_what_it_is() {
        let t = transport();
        assert_eq!(t.read(register::MAGIC), 0x7472_6976);
        assert_eq!(t.read(register::VERSION), 2);
        assert_eq!(t.read(register::DEVICE_ID), 3);
        assert_eq!(t.read(register::QUEUE_NUM_MAX), 16);
        assert_eq!(t.read(0x2f8), 0);
    }

    #[test]
    fn features_that_were_not_offered_are_refused() {
        let mut t = transport();
        t.write(register::DRIVER_FEATURES, 1 << 28);
        t.write(register::DRIVER_FEATURES_SEL, 1);
        t.write(register::DRIVER_FEATURES, 1);
        t.write(register::STATUS, 11);
        assert_eq!(t.read(register::STATUS), 3);
        assert_eq!(t.write(register::STATUS, 7), Effect::Ignored);
    }

    #[test]
    fn version_1_is_demanded() {
        let mut t = transport();
        t.write(register::STATUS, 11);
        assert_eq!(t.read(register::STATUS) & status::FEATURES_OK, 0);
    }

    #[test]
    fn notifications_count_only_while_the_driver_is_up() {
        let mut t = transport();
        assert_eq!(t.write(register::QUEUE_NOTIFY, 1), Effect::Ignored);
        let mut t2 = up();
        assert_eq!(t2.write(register::QUEUE_NOTIFY, 1), Effect::Notify(1));
        assert_eq!(t2.write(register::QUEUE_NOTIFY, 2), Effect::Ignored);
        t2.needs_reset();
        assert_eq!(t2.write(register::QUEUE_NOTIFY, 1), Effect::Ignored);
        assert_eq!(t2.write(register::STATUS, 0), Effect::Reset);
        assert_ne!(t2.read(register::STATUS), 0);
        assert_eq!(t2.write(register::STATUS, 1), Effect::Ignored);
        t2.finish_reset();
        assert_eq!(t2.read(register::STATUS), 0);
        t.needs_reset();
        assert_eq!(t.read(register::STATUS), 64);
    }

    #[test]
    fn a_queue_does_not_change_once_ready_or_running() {
        let mut t = transport();
        t.write(register::QUEUE_DESC_LOW, 0x1000);
        t.write(register::QUEUE_READY, 1);
        assert_eq!(t.write(register::QUEUE_DESC_LOW, 0x2000), Effect::Ignored);
        assert_eq!(t.queues()[0].descriptors, 0x1000);
        let mut t = up();
        assert_eq!(t.write(register::QUEUE_READY, 1), Effect::Ignored);
        t.write(register::QUEUE_SEL, 9);
        assert_eq!(t.read(register::QUEUE_NUM_MAX), 0);
        assert_eq!(t.write(register::QUEUE_NUM, 4), Effect::Ignored);
    }

    #[test]
    fn an_interrupt_is_told_until_it_is_acknowledged_or_the_device_reset() {
        let mut t = up();
        t.raise(interrupt::USED_BUFFER | interrupt::CONFIGURATION_CHANGE);
        assert_eq!(t.read(register::INTERRUPT_STATUS), 3);
        t.write(register::INTERRUPT_ACK, 0xffff_fffd);
        assert_eq!(t.read(register::INTERRUPT_STATUS), 2);
        assert_eq!(t.write(register::STATUS, 0), Effect::Reset);
        t.finish_reset();
        assert_eq!(t.read(register::INTERRUPT_STATUS), 0);
    }

    #[test]
    fn status_bits_cannot_be_cleared_but_by_reset() {
        let mut t = up();
        assert_eq!(t.write(register::STATUS, 3), Effect::Ignored);
        assert_eq!(t.read(register::STATUS), 15);
    }

    proptest! {
        #[test]
        fn any_accesses_leave_a_sound_device(
            accesses in prop::collection::vec((0u64..0x120, any::<u32>()), 0..200),
        ) {
            let mut t = transport();
            for (offset, value) in accesses {
                t.read(offset);
                match t.write(offset & !3, value) {
                    Effect::Notify(queue) => {
                        prop_assert!(t.is_running() && queue < t.queues().len());
                    }
                    Effect::Reset => t.finish_reset(),
                    _ => {}
                }
            }
            prop_assert_eq!(t.write(register::STATUS, 0), Effect::Reset);
            t.finish_reset();
            prop_assert_eq!(t.read(register::STATUS), 0);
        }
    }
}
