//! How fast slivers come and go: one after the other, and a hundred at once.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use integration::artifacts;
use integration::sliver::monotonic_ns;

use crate::lab::{Lab, floor, ms, run_program};
use crate::metrics::Samples;
use crate::process::{self, Run};

/// Starts in one sample.
const ROW: usize = 25;

/// Slivers at once.
const CROWD: usize = 100;

/// A sample: wall milliseconds and processor milliseconds.
type Sample = (f64, f64);

/// 500 starts of `hello` and of the floor (50 if it may be rough), one after the other.
pub(crate) fn in_a_row(lab: &mut Lab) -> Result<Vec<Samples>> {
    let floor = floor(lab)?;
    let spec = lab.spec("hello", artifacts::image("hello"), &[])?;
    let starts = if lab.quick { 50 } else { 500 };
    let quads = lab.interleave(
        "starts in a row",
        starts / ROW,
        |lab| row(|| Ok(lab.run_sliver(&spec)?.0)),
        |_| row(|| run_program::<&str>(&floor, &[])),
    )?;
    Ok(samples(&quads))
}

/// A hundred slivers of `hello`, and a hundred floors, all started before the first is waited for.
/// Each must print and end with status 0.
pub(crate) fn at_once(lab: &mut Lab) -> Result<Vec<Samples>> {
    let floor = floor(lab)?;
    let image = artifacts::image("hello");
    let specs: Vec<PathBuf> = (0..CROWD)
        .map(|index| lab.spec(&format!("hello-{index}"), image, &[]))
        .collect::<Result<_>>()?;
    let pairs = if lab.quick { 2 } else { 10 };
    let ours = |lab: &Lab| {
        let since = monotonic_ns();
        let started: Vec<_> = specs
            .iter()
            .map(|spec| lab.start_sliver(spec))
            .collect::<Result<_>>()?;
        let runs = started
            .into_iter()
            .map(|sliver| Ok(sliver.finish(0)?.0))
            .collect::<Result<_>>()?;
        crowd(since, runs)
    };
    let peer = |_: &Lab| {
        let since = monotonic_ns();
        let started: Vec<_> = (0..CROWD)
            .map(|_| {
                let mut command = Command::new(&floor);
                command.stdin(Stdio::null());
                process::start(command, monotonic_ns())
            })
            .collect::<Result<_>>()?;
        let runs = started
            .into_iter()
            .map(|floor| floor.finish()?.expect("the floor", 0))
            .collect::<Result<_>>()?;
        crowd(since, runs)
    };
    let quads = lab.interleave("a hundred starts at once", pairs, ours, peer)?;
    Ok(samples(&quads))
}

fn row(mut start: impl FnMut() -> Result<Run>) -> Result<Sample> {
    let since = monotonic_ns();
    let mut cpu_ns = 0;
    for _ in 0..ROW {
        cpu_ns += start()?.cpu_ns;
    }
    let per_start = |ns: u64| ms(ns) / ROW as f64;
    Ok((per_start(monotonic_ns() - since), per_start(cpu_ns)))
}

fn crowd(since: u64, runs: Vec<Run>) -> Result<Sample> {
    let wall_ns = monotonic_ns() - since;
    for run in &runs {
        ensure!(!run.stdout.is_empty(), "one of the hundred printed nothing");
    }
    Ok((ms(wall_ns), ms(runs.iter().map(|run| run.cpu_ns).sum())))
}

fn samples(quads: &[crate::lab::QuadOf<Sample>]) -> Vec<Samples> {
    vec![Samples::Paired {
        values: quads.iter().map(|quad| quad.map(|run| run.0)).collect(),
        cpu_ms: quads.iter().map(|quad| quad.map(|run| run.1)).collect(),
    }]
}
