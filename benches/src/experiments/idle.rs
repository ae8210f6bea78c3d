//! What an idle sliver costs in memory: the monitor's own share, the host's whole loss, the file.
//!
//! Slivers are started one after the other; each prints a line and sleeps. The monitor's share is
//! the proportional set size of its process without the mapping that is the guest's memory. The
//! host's loss is the slope of MemAvailable over the number of slivers: guest pages and the
//! kernel's own memory are in it.

use std::fs;

use anyhow::{Context, Result, ensure};
use integration::{artifacts, guests};

use crate::host::available_kib;
use crate::lab::{Lab, Sliver, progress, progress_done};
use crate::metrics::Samples;
use crate::stats::slope;

/// A mapping at least this large is the guest's memory: half of what it was given. Nothing else of
/// a monitor comes near.
const GUEST_MAPPING_KIB: u64 = 32 << 10;

/// Runs it.
pub(crate) fn run(lab: &mut Lab) -> Result<Vec<Samples>> {
    let count = if lab.quick { 10 } else { 50 };
    let image = guests::bare();
    let mut slivers: Vec<Sliver> = Vec::new();
    let mut available = vec![(0.0, available_kib()? as f64)];
    for index in 1..=count {
        progress(&format!("idle slivers: {index} of {count}"));
        let spec = lab.spec(&format!("idle-{index}"), image, &["idle"])?;
        let sliver = lab.start_sliver(&spec)?;
        sliver.wait_for_output()?;
        slivers.push(sliver);
        available.push((index as f64, available_kib()? as f64));
    }
    let pss = slivers
        .iter()
        .map(|sliver| Ok(monitor_pss_kib(sliver.pid())? as f64 / 1024.0))
        .collect::<Result<_>>()?;
    for sliver in slivers {
        sliver.stop()?;
    }
    progress_done(&format!("idle slivers: {count}"));
    let file = fs::metadata(artifacts::slicevmm())?.len();
    Ok(vec![
        Samples::Alone(pss),
        Samples::Alone(vec![-slope(&available) / 1024.0]),
        Samples::Alone(vec![file as f64 / f64::from(1 << 20)]),
    ])
}

/// The proportional set size of a process without the guest's memory, in KiB.
fn monitor_pss_kib(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps");
    let smaps = fs::read_to_string(&path).context(path)?;
    let (mut own, mut guest, mut size) = (0, 0, 0);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(value)) = (words.next(), words.next()) else {
            continue;
        };
        match name {
            "Size:" => size = value.parse()?,
            "Pss:" if size >= GUEST_MAPPING_KIB => guest += value.parse::<u64>()?,
            "Pss:" => own += value.parse::<u64>()?,
            _ => {}
        }
    }
    ensure!(
        guest > 0,
        "process {pid} has no guest memory: it is not told apart"
    );
    Ok(own)
}
