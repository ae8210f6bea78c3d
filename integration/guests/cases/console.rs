//! Printing with the console, gently or not.

use super::status;
use super::virtio::{Desc, Device};

/// Index of the console's transmit queue.
pub const TRANSMIT: u32 = 1;

impl Device<'_> {
    /// Brings the console up anew and prints `text`.
    pub fn print(&self, text: &[u8]) {
        self.start();
        self.fill(self.data(), text);
        self.submit(&[Desc::text(self.data(), text.len() as u32)]);
        if !self.await_used(1) {
            self.guest.exit(status::NOT_PRINTED);
        }
    }

    /// Resets the console and prints with it.
    pub fn recover(&self) {
        self.print(b"recovered\n");
    }

    /// Prints a mebibyte as one buffer and does not wait for it.
    pub fn flood(&self) {
        self.start();
        self.submit(&[Desc::text(self.data(), 1 << 20)]);
    }
}
