//! Virtio 1.2, driver side: queues, the MMIO transport and a device's state in memory, without any
//! device in particular.

pub(crate) mod balloon;
pub(crate) mod blk;
pub(crate) mod entropy;
pub(crate) mod mmio;
pub(crate) mod ring;
#[cfg(test)]
pub(crate) mod simulated;
pub(crate) mod state;
pub(crate) mod virtq;
pub(crate) mod vsock;
