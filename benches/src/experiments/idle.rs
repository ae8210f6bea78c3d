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
    let own = own_pss_kib(&smaps).with_context(|| format!("no guest memory in {path}: {smaps}"))?;
    Ok(own as f64 / 1024.0)
}

/// A run of writable mappings without a gap between them.
#[derive(Debug, Default)]
struct Stretch {
    end: u64,
    size_kib: u64,
    pss_kib: u64,
}

/// Adds up the proportional set sizes in an `smaps` file except that of the guest's memory: the
/// only writable stretch as large as it. The kernel may show it as several mappings side by side.
fn own_pss_kib(smaps: &str) -> Option<u64> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(value)) = (words.next(), words.next()) else {
            continue;
        };
        let number = value.parse::<u64>().ok();
        if let Some((start, end)) = name.split_once('-') {
            let start = u64::from_str_radix(start, 16).ok()?;
            let end = u64::from_str_radix(end, 16).ok()?;
            let goes_on = value == "rw-p" && stretches.last().is_some_and(|s| s.end == start);
            if !goes_on {
                stretches.push(Stretch::default());
            }
            let stretch = stretches.last_mut()?;
            // What is not writable ends nowhere, so that nothing goes on from it.
            stretch.end = if value == "rw-p" { end } else { 0 };
            stretch.size_kib += if value == "rw-p" {
                (end - start) >> 10
            } else {
                0
            };
        } else if name == "Pss:" {
            stretches.last_mut()?.pss_kib += number?;
        }
    }
    let guest = stretches.iter().position(|s| s.size_kib >= GUEST_KIB)?;
    stretches.remove(guest);
    Some(stretches.iter().map(|s| s.pss_kib).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
5555911ef000-555591211000 rw-p 00000000 00:00 0 [heap]
Size:                136 kB
Pss:                  16 kB
7fe3d7e00000-7fe3d8000000 rw-p 00000000 00:00 0
Size:               2048 kB
Pss:                  52 kB
7fe3d8000000-7fe3dbe00000 rw-p 00000000 00:00 0
Size:              63488 kB
Pss:                2048 kB
7fe3dc000000-7fe3dc021000 rw-p 00000000 00:00 0
Size:                132 kB
Pss:                   5 kB
7fe3dc021000-7fe3e0000000 ---p 00000000 00:00 0
Size:              65404 kB
Pss:                   0 kB
";

    #[test]
    fn the_guests_memory_is_left_out_however_many_mappings_it_is() {
        assert_eq!(own_pss_kib(SMAPS), Some(16 + 5));
    }

    #[test]
    fn a_process_without_guest_memory_is_no_monitor() {
        let without = SMAPS.replace(
            "7fe3d8000000-7fe3dbe00000 rw-p",
            "7fe3d8000000-7fe3dbe00000 r--p",
        );
        assert_eq!(own_pss_kib(&without), None);
    }
}
