//! Steering a running sliver: the protocol, and the monitor's side of it.

pub mod bell;
mod connection;
mod desk;
pub(crate) mod endings;
pub mod endpoint;
pub mod post;
pub mod proto;
pub mod server;
pub mod sessions;
pub(crate) mod traffic;
