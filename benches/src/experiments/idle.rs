//! What an idle sliver costs in memory: the monitor's own share, the host's whole loss, the file.
//!
//! Slivers are started one after the other; each prints a line and sleeps. The monitor's share is
//! the proportional set size of its process without the mapping that is the guest's memory: once
//! for the first sliver while it is alone, once when all share the monitor's program. The
//! host's loss is the slope of MemAvailable over the number of slivers: guest pages and the
//! kernel's own memory are in it.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use integration::pss::own_pss_kib;
use integration::{artifacts, guests};
use vmm::spec::DEFAULT_MEMORY_MIB;

use crate::host::available_kib;
use crate::lab::{Lab, Sliver, progress, progress_done};
use crate::metrics::Samples;
use crate::stats::slope;

/// Memory of a sliver, as the monitor gives it to who asks for nothing else.
const GUEST_KIB: u64 = DEFAULT_MEMORY_MIB << 10;

/// By then a sliver's start is over and its monitor has given back what only the start needed.
const SETTLED_AFTER: Duration = Duration::from_millis(500);

/// Runs it.
pub(crate) fn run(lab: &mut Lab) -> Result<Vec<Samples>> {
    let count = if lab.quick { 10 } else { 50 };
    let image = guests::bare();
    let mut slivers: Vec<Sliver> = Vec::new();
    let mut alone = 0.0;
    let mut available = vec![(0.0, available_kib()? as f64)];
    for index in 1..=count {
        progress(&format!("idle slivers: {index} of {count}"));
        let spec = lab.spec(&format!("idle-{index}"), image, &["idle"])?;
        let sliver = lab.start_sliver(&spec)?;
        sliver.wait_for_output()?;
        if slivers.is_empty() {
            thread::sleep(SETTLED_AFTER);
            alone = pss_mib(&sliver)?;
        }
        slivers.push(sliver);
        available.push((index as f64, available_kib()? as f64));
    }
    let pss = slivers.iter().map(pss_mib).collect::<Result<_>>()?;
    for sliver in slivers {
        sliver.stop()?;
    }
    progress_done(&format!("idle slivers: {count}"));
    let file = fs::metadata(artifacts::slicevmm())?.len();
    Ok(vec![
        Samples::Alone(pss),
        Samples::Alone(vec![alone]),
        Samples::Alone(vec![-slope(&available) / 1024.0]),
        Samples::Alone(vec![file as f64 / f64::from(1 << 20)]),
    ])
}

/// The proportional set size of a monitor without the guest's memory, in MiB.
fn pss_mib(sliver: &Sliver) -> Result<f64> {
    let path = format!("/proc/{}/smaps", sliver.pid());
    let smaps = fs::read_to_string(&path).with_context(|| path.clone())?;
    let own = own_pss_kib(&smaps, GUEST_KIB)
        .with_context(|| format!("no guest memory in {path}: {smaps}"))?;
    Ok(own as f64 / 1024.0)
}
