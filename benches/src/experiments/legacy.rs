//! A Linux guest against QEMU's microvm machine: the same kernel and RAM disk, in the lab.
//!
//! Both run in the same host, which is emulated where this one has neither VMX nor SVM: times are
//! long there, their ratio is what tells.

use anyhow::{Result, anyhow, ensure};
use integration::lab::Lab as LinuxLab;
use integration::lab::cases::{self, OURS_MS, OURS_PSS_MIB, PEER_MS, PEER_PSS_MIB};
use integration::lab::message::Figures;

use crate::lab::{Lab, progress_done};
use crate::metrics::Samples;
use crate::stats::Quad;

/// Runs of each side in a quad.
const RUNS: usize = 2;

/// Runs it.
pub(crate) fn run(lab: &mut Lab) -> Result<Vec<Samples>> {
    let quads = if lab.quick { 1 } else { 5 };
    let case = cases::find("against-qemu").expect("there is such a case");
    let linux = LinuxLab::assemble(&[case], false)?;
    progress_done(&format!("Linux in the lab: {} pairs follow", RUNS * quads));
    let outcome = linux.run(case, &[&quads.to_string()])?;
    let text = outcome.text();
    let figures = outcome.result.map_err(|_| anyhow!("{text}"))?;
    progress_done(&format!("Linux in the lab: {} pairs", RUNS * quads));
    let sizes = sorted(&figures, OURS_PSS_MIB, PEER_PSS_MIB, quads)?;
    let ours = sizes.iter().flat_map(|quad| quad.ours).collect();
    Ok(vec![
        paired(sorted(&figures, OURS_MS, PEER_MS, quads)?),
        Samples::Alone(ours),
        paired(sizes),
    ])
}

fn paired(values: Vec<Quad>) -> Samples {
    Samples::Paired {
        values,
        cpu_ms: Vec::new(),
    }
}

/// The samples of these names in the quads in which they were taken.
fn sorted(figures: &Figures, ours: &str, peer: &str, quads: usize) -> Result<Vec<Quad>> {
    let of = |name: &str| figures.get(name).map(Vec::as_slice).unwrap_or_default();
    let (ours, peer) = (of(ours), of(peer));
    ensure!(
        ours.len() == RUNS * quads && peer.len() == RUNS * quads,
        "{} and {} samples instead of {} each",
        ours.len(),
        peer.len(),
        RUNS * quads
    );
    let (ours, peer) = (ours.chunks_exact(RUNS), peer.chunks_exact(RUNS));
    Ok(ours
        .zip(peer)
        .map(|(ours, peer)| Quad {
            ours: [ours[0], ours[1]],
            peer: [peer[0], peer[1]],
        })
        .collect())
}
