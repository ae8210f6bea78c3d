//! A simulated node: the real [`Budget`](super::budget::Budget) and [`Fair`](super::fair::Fair) of
//! any number of slivers, on any number of processors of a modelled host.
//!
//! Time is a number here: the same workload, setup and seed give the same report, on any machine.

mod host;
mod measure;
mod node;
mod random;
mod report;
mod sliver;
#[cfg(test)]
mod tests;
mod workload;

use crate::nanos::Nanos;

pub use report::{GroupReport, Latency, Report, Spread};
pub use workload::{MAX_SLIVERS, Workload, WorkloadError};

/// The node, and how long it is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    /// Its processors.
    pub processors: u32,
    /// How long.
    pub seconds: u32,
    /// What chance is drawn from.
    pub seed: u64,
    /// What it takes to get a vCPU out of its guest, about.
    pub kick: Nanos,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            processors: 2,
            seconds: 20,
            seed: 1,
            kick: Nanos::from_micros(45),
        }
    }
}

/// Simulates a workload.
pub fn simulate(workload: &Workload, setup: &Setup) -> Report {
    let measured = node::Node::new(setup, workload).run();
    Report::new(workload, setup, measured)
}
