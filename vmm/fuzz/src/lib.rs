//! What the fuzz targets share: a guest made of bytes, the specs and the outsides of devices.
//!
//! An input is read as a list of things that a guest, its host or the time may do to one device.
//! Whatever it says, no device may panic, touch memory that devices may not write, go on for ever
//! without new work, or survive a fault without a reset.

pub mod aml;
mod frames;
mod guest;
mod outside;

pub use frames::frame;
pub use guest::{DATA, Guest, RAM, WRITABLE_FROM, drive, ram};
pub use libfuzzer_sys::arbitrary::Unstructured;
pub use outside::{ignore_closed_pipes, shown_in_one_line, spec, taps};
