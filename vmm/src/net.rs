//! The way out to the host's network: taps, and what a sliver's frames pass on their way.

pub mod bucket;
pub mod capture;
pub mod events;
pub mod flows;
pub mod gate;
pub mod guard;
mod hash;
pub mod packet;
pub mod ports;
pub mod prefix;
pub mod shaper;
pub mod tap;
#[cfg(test)]
pub(crate) mod testing;
pub mod uplink;
pub mod wire;
