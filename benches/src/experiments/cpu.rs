//! The processor quotas, measured from outside by the clocks of processes: caps, shares, reserves,
//! what floods cost and whom, how steadily slivers run, and what thieves get.
//!
//! No quota of a control group stands behind the slivers: what is measured is the monitor's own
//! doing. All that is measured is in one group that comes before the rest of the host.

mod cap;
mod charge;
mod share;
mod steady;
mod theft;

use crate::lab::Lab;
use crate::metrics::Experiment;

/// All of them.
pub(crate) fn experiments() -> impl Iterator<Item = &'static Experiment> {
    [
        cap::EXPERIMENTS,
        share::EXPERIMENTS,
        charge::EXPERIMENTS,
        steady::EXPERIMENTS,
        theft::EXPERIMENTS,
    ]
    .into_iter()
    .flatten()
}

/// Runs of each measurement: they are long, and each is made of many readings.
fn runs(lab: &Lab) -> usize {
    lab.pairs.min(if lab.quick { 2 } else { 6 })
}
