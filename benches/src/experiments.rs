//! The experiments: each makes the runs of a few metrics and returns their raw samples.

pub(crate) mod compute;
pub(crate) mod cpu;
pub(crate) mod disk;
pub(crate) mod first_byte;
pub(crate) mod flood;
pub(crate) mod flows;
pub(crate) mod gated;
pub(crate) mod idle;
pub(crate) mod jail;
pub(crate) mod legacy;
pub(crate) mod net;
pub(crate) mod per_packet;
pub(crate) mod qemu;
pub(crate) mod rate;
pub(crate) mod shape;
pub(crate) mod start;
pub(crate) mod uplink;
