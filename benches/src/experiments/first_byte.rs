//! From the start of the monitor's process to the first byte of its guest's console.
//!
//! Ours is the `hello` example with its whole runtime; the floor's guest does nothing but leave.

use anyhow::{Context, Result};
use integration::artifacts;

use crate::lab::{Lab, floor, ms, run_program};
use crate::metrics::Samples;
use crate::process::Run;

/// Runs it.
pub(crate) fn run(lab: &mut Lab) -> Result<Vec<Samples>> {
    let floor = floor(lab)?;
    let spec = lab.spec("hello", artifacts::image("hello"), &[])?;
    let first_byte = |run: Run| -> Result<(f64, f64)> {
        let ns = run.first_byte_ns.context("the guest printed nothing")?;
        Ok((ms(ns), ms(run.cpu_ns)))
    };
    let quads = lab.interleave(
        "start to first console byte",
        lab.pairs,
        |lab| first_byte(lab.run_sliver(&spec)?.0),
        |_| first_byte(run_program::<&str>(&floor, &[])?),
    )?;
    Ok(vec![Samples::Paired {
        values: quads.iter().map(|quad| quad.map(|run| run.0)).collect(),
        cpu_ms: quads.iter().map(|quad| quad.map(|run| run.1)).collect(),
    }])
}
