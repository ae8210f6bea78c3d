//! Virtio 1.2, driver side: queues and the MMIO transport, without any device in particular.

pub(crate) mod mmio;
pub(crate) mod virtq;
