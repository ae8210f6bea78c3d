//! Guests that want nothing but processor time, their own or what others spend on their behalf.

use slice_abi::device::device_id;

use super::net::honest_frame;
use super::subject::TRANSMIT;
use super::virtio::{Desc, reg};
use crate::guest::Guest;

impl Guest {
    /// Does what `case` names, for ever; comes back if that is none of these.
    pub fn flood(&self, case: &[u8]) {
        match case {
            // Computes on all vCPUs: the others are in `run_beside`.
            b"busy-all" => {
                for vcpu in 1..self.number(1) {
                    self.wake(vcpu);
                }
                self.spin()
            }
            b"flood-registers" => {
                let console = self.console();
                loop {
                    console.read(reg::STATUS);
                }
            }
            b"flood-rests" => loop {
                self.rest_for(1000);
            },
            b"flood-frames" => self.flood_frames(),
            // Computes but is nowhere to be found when somebody comes to look.
            b"dodge" => loop {
                self.compute_for(100_000);
                self.rest_for(1);
            },
            // Comes late to every contest, and leaves early.
            b"come-and-go" => loop {
                self.rest_for(50_000_000);
                self.compute_for(50_000_000);
            },
            _ => {}
        }
    }

    /// Sends as many frames as the card takes.
    fn flood_frames(&self) -> ! {
        let card = self.device(device_id::NET, TRANSMIT);
        card.start();
        let bytes = honest_frame(&card);
        card.fill(card.data(), &bytes);
        card.describe(0, &Desc::text(card.data(), bytes.len() as u32));
        loop {
            let held = card.avail_idx().wrapping_sub(card.used_idx());
            if held == 0 {
                for _ in 0..card.size() {
                    card.queue_again();
                }
                card.notify();
            } else {
                self.rest_for(1_000_000);
            }
        }
    }

    pub fn compute_for(&self, nanoseconds: u64) {
        self.compute_until(self.now() + nanoseconds);
    }

    pub fn compute_until(&self, moment: u64) {
        while self.now() < moment {
            core::hint::spin_loop();
        }
    }
}
