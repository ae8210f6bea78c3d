//! The isolation kernel: everything that one sliver's monitor process does.

pub mod boot;
pub mod exit;
pub mod kvm;
pub mod spec;

/// Steering a running sliver.
pub mod control {
    pub mod proto;
}
