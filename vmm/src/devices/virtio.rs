//! Virtio 1.2: the MMIO transport, queues that trust nothing, and devices.

pub mod chain;
pub mod console;
pub mod mmio;
pub mod queue;
