//! Virtio 1.2, driver side: queues, the MMIO transport and a device's state in memory, without any
//! device in particular.
#![allow(dead_code, reason = "each driver uses a part")]

pub(crate) mod mmio;
pub(crate) mod ring;
pub(crate) mod state;
pub(crate) mod virtq;
