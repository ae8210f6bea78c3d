//! Who pays for what a sliver has done by others: guests with a cap that do nothing but flood a
//! device, or leave the guest as often as they can.
//!
//! How far the monitor's process is from its cap is one figure; of a disk, which may be slower than
//! that, only what is used beyond the cap. The other is what the host spends outside of any process meanwhile,
//! in kernel threads and interrupts, more than while the same sliver is idle. Where that is, is told
//! as the runs go on.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use integration::{artifacts, guests};
use serde_json::{Value, json};

use crate::experiments::cpu::runs;
use crate::lab::{Lab, Surroundings, progress_done};
use crate::metrics::{Bar, Experiment, Metric, Samples};
use crate::stats::median;
use crate::subject::{Crowd, Subject, whole};
use crate::usage::Usage;
use integration::netns::{Namespace, without_offloads};

/// In percent of one processor.
const CAP: f64 = 20.0;

/// Bytes of the disk that is flooded.
const DISK_BYTES: usize = 64 << 20;

/// Name of the sliver.
const FLOOD: &str = "flood";

/// Kernel threads that are named.
const NAMED: usize = 3;

macro_rules! flood {
    ($name:literal, $flood:expr) => {
        Experiment {
            metrics: &[
                Metric {
                    name: concat!("cpu-charge-", $name),
                    unit: "% of cap",
                    peer: "-",
                    bar: Bar::Value(1.0),
                },
                Metric {
                    name: concat!("cpu-charge-", $name, "-outside"),
                    unit: "% of a CPU",
                    peer: "-",
                    bar: Bar::Value(2.0),
                },
            ],
            run: |lab| run(lab, $name, $flood),
        }
    };
}

/// The metrics and how they are measured.
pub(super) const EXPERIMENTS: &[Experiment] = &[
    flood!("mmio", Flood::Bare("flood")),
    flood!("registers", Flood::Bare("flood-registers")),
    flood!("timers", Flood::Bare("flood-rests")),
    flood!("console", Flood::Bare("print-flood")),
    flood!("net", Flood::Frames),
    flood!(
        "disk-read",
        Flood::Disk {
            how: &["--random", "--read"],
            direct: true
        }
    ),
    flood!(
        "disk-write",
        Flood::Disk {
            how: &["--random", "--write"],
            direct: true
        }
    ),
    flood!(
        "disk-write-cached",
        Flood::Disk {
            how: &["--random", "--write"],
            direct: false
        }
    ),
];

/// What the guest does all the time.
#[derive(Debug, Clone, Copy)]
enum Flood {
    /// A case of the bare guest.
    Bare(&'static str),
    /// It sends frames.
    Frames,
    /// It reads or writes a disk.
    Disk {
        how: &'static [&'static str],
        direct: bool,
    },
}

/// What one run gave, in percent.
#[derive(Debug, Clone, Copy)]
struct Charged {
    /// Of the cap; negative if less was used.
    beyond: f64,
    outside: f64,
}

fn run(lab: &mut Lab, name: &str, flood: Flood) -> Result<Vec<Samples>> {
    let spec = flood.spec(lab)?;
    let idle = lab.spec("idle", guests::bare(), &["idle"])?;
    let place = Namespace::new()?;
    if matches!(flood, Flood::Frames) {
        place.ip("tuntap add tap0 mode tap vnet_hdr")?;
        without_offloads(&place, "tap0")?;
        place.ip("link set tap0 up")?;
    }
    let mut places = String::new();
    let ours = |lab: &Lab| {
        let sliver = place.inside(|| Subject::sliver(lab, &spec, UNHEARD))?;
        let (charged, of_this) = measure(lab, sliver)?;
        places = of_this;
        Ok(charged)
    };
    let peer = |lab: &Lab| Ok(measure(lab, Subject::sliver(lab, &idle, UNHEARD)?)?.0);
    let quads = lab.interleave(&format!("charging {name}"), runs(lab), ours, peer)?;
    progress_done(&format!("in the last run: {places}"));
    let errors = quads.iter().flat_map(|quad| {
        let beyond = |run: &Charged| match flood {
            Flood::Disk { .. } => run.beyond.max(0.0),
            Flood::Bare(_) | Flood::Frames => run.beyond.abs(),
        };
        quad.map(beyond).ours
    });
    let outside = quads.iter().flat_map(|quad| {
        let quad = quad.map(|run| run.outside);
        let idle = median(&quad.peer);
        quad.ours.map(|ours| ours - idle)
    });
    Ok(vec![
        Samples::Alone(errors.collect()),
        Samples::Alone(outside.collect()),
    ])
}

const UNHEARD: Surroundings = Surroundings {
    unheard: true,
    ..Surroundings::USUAL
};

fn measure(lab: &Lab, sliver: Subject) -> Result<(Charged, String)> {
    let crowd = Crowd::start([Ok(sliver)].into_iter())?;
    let before = Usage::now()?;
    let readings = crowd.watch(Duration::from_secs(if lab.quick { 2 } else { 5 }), 1)?;
    let between = Usage::now()?.since(&before);
    crowd.end()?;
    let (time, used) = whole(&readings[0]);
    let granted = CAP / 100.0 * time;
    let busiest = between.kernel_threads.iter().take(NAMED);
    let mut places = format!(
        "used {:.2} %, outside of it interrupts {:.2} %",
        100.0 * used / time,
        between.interrupts / 10.0
    );
    for (name, permille) in busiest {
        places += &format!(", {name} {:.2} %", permille / 10.0);
    }
    let charged = Charged {
        beyond: 100.0 * (used - granted) / granted,
        outside: between.outside / 10.0,
    };
    Ok((charged, places))
}

impl Flood {
    fn spec(self, lab: &Lab) -> Result<PathBuf> {
        let capped = |mut fields: Value| {
            fields["cpu_cap"] = CAP.into();
            fields
        };
        match self {
            Self::Bare(case) => lab.spec_with(FLOOD, guests::bare(), &[case], capped(json!({}))),
            Self::Frames => {
                let card = json!({ "tap": "tap0" });
                let fields = capped(json!({ "nets": [card], "guard": { "mode": "off" } }));
                lab.spec_with(FLOOD, guests::bare(), &["flood-frames"], fields)
            }
            Self::Disk { how, direct } => {
                let file = lab.path("flooded.img");
                // On the disk, or else the first writes would be about where to put it.
                let mut made = File::create(&file)?;
                made.write_all(&vec![1; DISK_BYTES])?;
                made.sync_all()?;
                let disk = json!({ "path": file, "direct": direct });
                let image = artifacts::image("blast");
                let depth = ["--disk", "disk0", "--depth", "32", "--seconds", "3600"];
                let args = [&depth, how].concat();
                lab.spec_with(FLOOD, image, &args, capped(json!({ "disks": [disk] })))
            }
        }
    }
}
