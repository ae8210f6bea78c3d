//! From the start of the monitor's process to its guest's first instruction, against the floor.
//!
//! The floor stamps the clock when its guest's first instruction has left the guest. The slice
//! notes the time-stamp counter as its first instruction, which the monitor turns into the time
//! since the harness's own stamp. The end of the process is seen by the harness, for both.

use anyhow::{Context, Result};

use crate::lab::{Lab, QuadOf, exit_image, floor, ms, run_program};
use crate::metrics::Samples;
use crate::process::Run;
use crate::stats::Quad;

/// One start.
struct Start {
    first_instruction_ms: f64,
    whole_ms: f64,
    cpu_ms: f64,
    /// Of a `/bin/true` run next to it.
    true_ms: f64,
}

impl Start {
    fn new(first_instruction_ns: u64, run: &Run) -> Self {
        Self {
            first_instruction_ms: ms(first_instruction_ns),
            whole_ms: ms(run.wall_ns),
            cpu_ms: ms(run.cpu_ns),
            true_ms: 0.0,
        }
    }
}

/// Runs it.
pub(crate) fn run(lab: &mut Lab) -> Result<Vec<Samples>> {
    let floor = floor(lab)?;
    let spec = lab.spec("exit", &exit_image(lab)?, &[])?;
    let ours = |lab: &Lab| {
        let (run, record) = lab.run_sliver(&spec)?;
        Ok(Start::new(record.timing_us.first_instruction * 1000, &run))
    };
    let peer = |_: &Lab| {
        let run = run_program::<&str>(&floor, &[])?;
        let stamp = first_instruction(&run)?;
        let process = run_program::<&str>("/bin/true", &[])?;
        Ok(Start {
            true_ms: ms(process.wall_ns),
            ..Start::new(stamp - run.since, &run)
        })
    };
    let quads = lab.interleave("start to first instruction", lab.pairs, ours, peer)?;
    let paired = |values: fn(&QuadOf<Start>) -> Quad| Samples::Paired {
        values: quads.iter().map(values).collect(),
        cpu_ms: quads
            .iter()
            .map(|quad| quad.map(|run| run.cpu_ms))
            .collect(),
    };
    Ok(vec![
        paired(|quad| {
            quad.map_each(
                |run| run.first_instruction_ms,
                |run| 2.0 * run.first_instruction_ms + run.true_ms,
            )
        }),
        paired(|quad| quad.map(|run| run.first_instruction_ms)),
        paired(|quad| quad.map(|run| run.whole_ms)),
    ])
}

/// What the floor printed: the moment of its guest's first exit.
fn first_instruction(run: &Run) -> Result<u64> {
    let text = String::from_utf8_lossy(&run.stdout);
    text.trim()
        .parse()
        .with_context(|| format!("the floor printed {text:?} instead of a time"))
}
