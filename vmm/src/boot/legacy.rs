//! Legacy images: kernels that were not written for us, and the machine that they expect.

mod entry;
pub mod map;

pub use entry::{DeviceWindow, Entry, Mode};
