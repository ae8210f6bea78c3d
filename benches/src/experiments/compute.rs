//! The same loop in a slice and in an ordinary process, compiled alike, on the same processor.
//!
//! Each tells by its own clock how long a round took, so that starting is not part of it.

use anyhow::{Context, Result};
use integration::artifacts;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::lab::{Lab, ms, run_program};
use crate::metrics::Samples;
use crate::process::Run;

/// Rounds of one run: about a tenth of a second. Many short runs tell more than few long ones,
/// because what disturbs the machine then falls on whole pairs and leaves their ratio alone.
const ROUNDS: &str = "2500";

/// Pairs for each pair that is asked for.
const PAIRS: usize = 5;

/// Runs it.
pub(crate) fn run(lab: &mut Lab) -> Result<Vec<Samples>> {
    let args = ["--rounds", ROUNDS];
    let spec = lab.spec("spin", artifacts::image("spin"), &args)?;
    let native = artifacts::desktop("spin");
    let everywhere = sched_getaffinity(None)?;
    // Children inherit it: both run where the harness runs, one after the other.
    sched_setaffinity(None, &last_of(&everywhere)?)?;
    let quads = lab.interleave(
        "compute",
        PAIRS * lab.pairs,
        |lab| ns_per_round(&lab.run_sliver(&spec)?.0),
        |_| ns_per_round(&run_program(native, &args)?),
    );
    sched_setaffinity(None, &everywhere)?;
    let quads = quads?;
    Ok(vec![Samples::Paired {
        values: quads.iter().map(|quad| quad.map(|run| run.0)).collect(),
        cpu_ms: quads.iter().map(|quad| quad.map(|run| run.1)).collect(),
    }])
}

/// The last of these processors: the first tends to have the host's interrupts.
fn last_of(all: &CpuSet) -> Result<CpuSet> {
    let last = (0..CpuSet::MAX_CPU).rev().find(|&cpu| all.is_set(cpu));
    let mut one = CpuSet::new();
    one.set(last.context("this process may run nowhere")?);
    Ok(one)
}

/// What `spin` says of its pace, and the processor milliseconds of the run.
pub(super) fn ns_per_round(run: &Run) -> Result<(f64, f64)> {
    let text = String::from_utf8_lossy(&run.stdout);
    let ns: f64 = text
        .lines()
        .find_map(|line| line.strip_prefix("ns per round "))
        .with_context(|| format!("spin did not tell its time: {text:?}"))?
        .parse()?;
    Ok((ns, ms(run.cpu_ns)))
}
