//! Virtio 1.2: the MMIO transport, queues that trust nothing, and devices.

pub mod backend;
pub mod balloon;
pub mod block;
pub mod chain;
pub mod console;
pub mod device;
pub mod mmio;
pub mod net;
pub mod queue;
pub mod rng;
#[cfg(test)]
pub(crate) mod testing;
pub mod transfer;
pub mod vsock;
