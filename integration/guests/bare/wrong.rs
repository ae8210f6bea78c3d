//! Everything wrong that is done to the console. After each, the device must ask for a reset or
//! have refused, and must work again once it was reset.

use crate::console::{Console, Desc, INDIRECT, NEEDS_RESET, NEXT, QUEUE_SIZE, WRITE, layout, reg};
use crate::guest::Guest;
use crate::status;

impl Guest {
    /// Does to the console what `case` names.
    pub fn console_case(&self, case: &[u8]) {
        let console = self.console();
        let refused = match case {
            b"notify-early" => {
                console.negotiate();
                console.notify(1);
                console.notify(7);
                console.write(reg::QUEUE_NOTIFY, u32::MAX);
                true
            }
            b"reset-busy" => {
                console.start();
                for _ in 0..50 {
                    console.submit(&[Desc::text(console.ram + layout::DATA, 4096)]);
                    console.write(reg::STATUS, 0);
                    console.start();
                }
                true
            }
            b"queue-size-0" => console.bad_queue(|c| c.write(reg::QUEUE_NUM, 0)),
            b"queue-size-3" => console.bad_queue(|c| c.write(reg::QUEUE_NUM, 3)),
            b"queue-size-huge" => console.bad_queue(|c| c.write(reg::QUEUE_NUM, 0x1_0000)),
            b"queue-no-addresses" => console.bad_queue(|c| {
                for ring in [reg::QUEUE_DESC, reg::QUEUE_DRIVER, reg::QUEUE_DEVICE] {
                    c.write_address(ring, 0);
                }
            }),
            b"queue-unaligned" => {
                console.bad_queue(|c| c.write_address(reg::QUEUE_DESC, c.ram + 3))
            }
            b"queue-beyond-ram" => {
                console.bad_queue(|c| c.write_address(reg::QUEUE_DRIVER, 1 << 45))
            }
            b"queue-over-the-end" => {
                console.bad_queue(|c| c.write_address(reg::QUEUE_DESC, self.info.heap.end() - 16))
            }
            b"used-ring-in-text" => {
                let text = self.info.memory[0].range.start;
                console.bad_queue(|c| c.write_address(reg::QUEUE_DEVICE, text))
            }
            b"queue-select-missing" => {
                console.negotiate();
                console.write(reg::QUEUE_SEL, 99);
                console.write(reg::QUEUE_NUM, 8);
                console.write(reg::QUEUE_READY, 1);
                console.read(reg::QUEUE_NUM_MAX) == 0 && console.read(reg::QUEUE_READY) == 0
            }
            b"feature-select-missing" => {
                console.negotiate();
                console.write(reg::DEVICE_FEATURES_SEL, 5);
                console.write(reg::DRIVER_FEATURES_SEL, 5);
                console.write(reg::DRIVER_FEATURES, u32::MAX);
                console.read(reg::DEVICE_FEATURES) == 0
            }
            _ => {
                self.chain_case(&console, case);
                true
            }
        };
        if !refused {
            self.exit(status::BAD_QUEUE_ACCEPTED);
        }
        console.recover();
    }

    /// Chains that no device may follow.
    fn chain_case(&self, console: &Console, case: &[u8]) {
        let data = console.ram + layout::DATA;
        let end = self.info.heap.end();
        console.start();
        let must_fail = match case {
            b"loop" => {
                let [a, b] = [1, 0].map(|next| Desc::text(data, 1).with(NEXT, next));
                console.submit(&[a, b]);
                true
            }
            b"loop-to-itself" => {
                console.submit(&[Desc::text(data, 1).with(NEXT, 0)]);
                true
            }
            b"next-out-of-range" => {
                console.submit(&[Desc::text(data, 1).with(NEXT, QUEUE_SIZE)]);
                true
            }
            b"address-beyond-ram" => {
                console.submit(&[Desc::text(1 << 45, 8)]);
                true
            }
            b"address-in-null-page" => {
                console.submit(&[Desc::text(0, 8)]);
                true
            }
            b"address-over-the-end" => {
                console.submit(&[Desc::text(end - 8, 64)]);
                true
            }
            b"address-wraps" => {
                console.submit(&[Desc::text(u64::MAX - 4, 64)]);
                true
            }
            b"length-huge" => {
                console.submit(&[Desc::text(data, u32::MAX)]);
                true
            }
            b"length-zero" => {
                console.submit(&[Desc::text(data, 0)]);
                false
            }
            b"device-writable" => {
                console.submit(&[Desc::text(data, 8).with(WRITE, 0)]);
                false
            }
            b"aliases-the-ring" => {
                console.submit(&[Desc::text(console.ram, 64)]);
                false
            }
            b"indirect-not-negotiated" => {
                console.submit(&[Desc::text(data, 16).with(INDIRECT, 0)]);
                true
            }
            b"avail-forward" => {
                console.offer(0, 1000);
                true
            }
            b"avail-backward" => {
                console.offer(0, u16::MAX);
                true
            }
            b"head-out-of-range" => {
                console.offer(QUEUE_SIZE, 1);
                true
            }
            b"changed-in-flight" => {
                for round in 0..100u64 {
                    console.submit(&[Desc::text(data, 64)]);
                    console.describe(0, &Desc::text(round << 40, u32::MAX));
                }
                false
            }
            _ => self.exit(status::UNKNOWN_CASE),
        };
        let failed = console
            .wait(|c| c.read(reg::STATUS) & NEEDS_RESET != 0 || (!must_fail && c.used_idx() != 0));
        if !failed {
            self.exit(status::NO_NEEDS_RESET);
        }
        // A queue that has failed stays failed, and bothering it does no harm.
        for _ in 0..100 {
            console.notify(1);
        }
    }
}
