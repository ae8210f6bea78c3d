//! The isolation kernel: everything that one sliver's monitor process does.
//!
//! [`sliver::Sliver::run`] is the whole story: spec -> image -> memory -> vCPU -> run loop -> exit
//! record. [`launch`] is what comes before it, in the process of who starts slivers.

mod attend;
pub mod backtrace;
pub mod boot;
pub mod clock;
pub mod control;
pub mod core;
pub mod devices;
pub mod disk;
pub mod doze;
pub mod exit;
pub mod given;
pub mod inherited;
pub mod jail;
pub mod kvm;
pub mod launch;
pub mod lifecycle;
pub mod machine;
mod memory_access;
pub mod nanos;
pub mod net;
pub mod resident;
mod run;
pub mod say;
pub mod sched;
pub mod seed;
mod signals;
pub mod sliver;
pub mod spec;
pub mod start;
pub mod stopwatch;
