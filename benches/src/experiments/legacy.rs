//! A Linux guest against QEMU's microvm machine: the same kernel and RAM disk, in the lab.
//!
//! Both run in hosts of the same kind, emulated where this one has neither VMX nor SVM: times are
//! long there, their ratio is what tells.

use anyhow::{Context, Result, anyhow};
use integration::lab::Lab as LinuxLab;
use integration::lab::cases::{self, Case, INIT_MS, PSS_MIB};

use crate::lab::{Lab, QuadOf};
use crate::metrics::Samples;

/// Pairs, of which each takes half a minute.
const PAIRS: usize = 10;
/// The same with `--quick`.
const FEW_PAIRS: usize = 2;

/// Runs it.
pub(crate) fn run(lab: &mut Lab) -> Result<Vec<Samples>> {
    let [ours, peer] = ["init", "init-qemu"].map(|name| cases::find(name).expect("it is a case"));
    let linux = LinuxLab::assemble(&[ours, peer], false)?;
    let pairs = if lab.quick { FEW_PAIRS } else { PAIRS };
    let quads = lab.interleave(
        "Linux in the lab",
        pairs,
        |_| measure(&linux, ours),
        |_| measure(&linux, peer),
    )?;
    let memory: Vec<_> = { quads.iter() }
        .flat_map(|quad| quad.map(|run| run.pss_mib).ours)
        .collect();
    Ok(vec![
        paired(&quads, |run| run.init_ms),
        Samples::Alone(memory),
        paired(&quads, |run| run.pss_mib),
    ])
}

/// What one run gave.
#[derive(Debug)]
struct Run {
    init_ms: f64,
    pss_mib: f64,
}

fn measure(linux: &LinuxLab, case: &'static Case) -> Result<Run> {
    let outcome = linux.run(case)?;
    let text = outcome.text();
    let figures = outcome.result.map_err(|_| anyhow!("{text}"))?;
    let figure = |name: &str| {
        let sample = figures.get(name).and_then(|samples| samples.first());
        sample
            .copied()
            .with_context(|| format!("no sample of {name}"))
    };
    Ok(Run {
        init_ms: figure(INIT_MS)?,
        pss_mib: figure(PSS_MIB)?,
    })
}

fn paired(quads: &[QuadOf<Run>], number: fn(&Run) -> f64) -> Samples {
    Samples::Paired {
        values: quads.iter().map(|quad| quad.map(number)).collect(),
        cpu_ms: Vec::new(),
    }
}
