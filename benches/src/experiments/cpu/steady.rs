//! How steadily slivers run: how late one wakes among those that never sleep, for how long one vCPU
//! stands still while the other runs, and what it costs a computation to be looked after.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::available_parallelism;

use anyhow::{Context, Result};
use integration::artifacts;
use integration::sliver::monotonic_ns;
use serde_json::{Value, json};

use crate::cgroup::Cgroup;
use crate::experiments::compute;
use crate::experiments::cpu::runs;
use crate::lab::{Lab, QuadOf, Surroundings};
use crate::metrics::{Bar, Experiment, Metric, Samples};
use crate::process::{self, Run, Started};
use crate::subject::{Crowd, FOREVER, Subject};

/// Milliseconds of a period where none is named.
const PERIOD_MS: u64 = vmm::spec::DEFAULT_PERIOD_MS as u64;

/// The metrics and how they are measured.
pub(super) const EXPERIMENTS: &[Experiment] = &[
    Experiment {
        metrics: &[
            woken("cpu-wake-p50"),
            woken("cpu-wake-p99"),
            woken("cpu-wake-max"),
        ],
        run: wake,
    },
    Experiment {
        metrics: &[
            Metric {
                name: "cpu-vcpu-stopped-alone",
                unit: "ms",
                peer: "threads, CFS quota",
                // One period.
                bar: Bar::Value(PERIOD_MS as f64),
            },
            Metric {
                name: "cpu-vcpu-stopped",
                unit: "ms",
                peer: "threads, CFS quota",
                bar: Bar::None,
            },
        ],
        run: stops,
    },
    Experiment {
        metrics: &[Metric {
            name: "cpu-kicks",
            unit: "ns/round",
            peer: "without a cap",
            bar: Bar::None,
        }],
        run: kicks,
    },
];

const fn woken(name: &'static str) -> Metric {
    Metric {
        name,
        unit: "us late",
        peer: "plain processes",
        bar: Bar::None,
    }
}

/// A sleeper among two hogs for each processor, all alike.
fn wake(lab: &mut Lab) -> Result<Vec<Samples>> {
    let hogs = 2 * available_parallelism().map_or(1, usize::from);
    let count = if lab.quick { "200" } else { "1000" };
    let args = ["sleep", "--every", "5000", "--count", count];
    let sleeper = lab.spec("sleeper", artifacts::image("jitter"), &args)?;
    let specs = (0..hogs)
        .map(|index| {
            let name = format!("hog-{index}");
            lab.spec(&name, artifacts::image("spin"), &FOREVER)
        })
        .collect::<Result<Vec<_>>>()?;
    let rivals = Surroundings {
        rivals: true,
        ..Surroundings::USUAL
    };
    let ours = |lab: &Lab| {
        let crowd = Crowd::start(specs.iter().map(|spec| Subject::sliver(lab, spec, rivals)))?;
        let sleeper = lab.start(&sleeper, rivals)?;
        crowd.join(sleeper.pid())?;
        let told = told(&sleeper.finish(0)?.0);
        crowd.end()?;
        told
    };
    let peer = |_: &Lab| {
        let crowd = Crowd::start(specs.iter().map(|_| Subject::process(1)))?;
        let sleeper = jitter(&args)?;
        crowd.join(sleeper.pid())?;
        let told = told(&sleeper.finish()?.expect("jitter", 0)?);
        crowd.end()?;
        told
    };
    let quads = lab.interleave("waking among hogs", runs(lab), ours, peer)?;
    let keys = ["p50_us", "p99_us", "max_us"];
    Ok(keys
        .map(|key| paired(&quads, |told| number(&told[key])))
        .into())
}

/// Two vCPUs that may use one processor: when one stands still, so should the other.
fn stops(lab: &mut Lab) -> Result<Vec<Samples>> {
    let time = if lab.quick { "2000" } else { "5000" };
    let args = ["stops", "--ms", time];
    let fields = json!({ "vcpus": 2, "cpu_cap": 100 });
    let spec = lab.spec_with("stops", artifacts::image("jitter"), &args, fields)?;
    let ours = |lab: &Lab| {
        let group = Cgroup::first()?;
        let sliver = lab.start_sliver(&spec)?;
        group.add(sliver.pid())?;
        told(&sliver.finish(0)?.0)
    };
    let peer = |_: &Lab| {
        let group = Cgroup::with_quota(PERIOD_MS * 1000, PERIOD_MS * 1000)?;
        let process = jitter(&args)?;
        group.add(process.pid())?;
        told(&process.finish()?.expect("jitter", 0)?)
    };
    let quads = lab.interleave("stops of two vCPUs", runs(lab), ours, peer)?;
    let longest = |key: &'static str| {
        move |told: &Value| {
            let vcpus = told["vcpus"].as_array().into_iter().flatten();
            let longest = vcpus.map(|vcpu| number(&vcpu[key])).fold(0.0, f64::max);
            // A ratio needs a number.
            (longest / 1000.0).max(0.001)
        }
    };
    Ok(vec![
        paired(&quads, longest("longest_alone_us")),
        paired(&quads, longest("longest_us")),
    ])
}

/// The same computation under a cap that it cannot reach, and without one.
fn kicks(lab: &mut Lab) -> Result<Vec<Samples>> {
    let args = ["--rounds", if lab.quick { "10000" } else { "25000" }];
    let spec = |name: &str, fields| lab.spec_with(name, artifacts::image("spin"), &args, fields);
    // The second vCPU does nothing: the cap is out of reach.
    let kicked = spec("kicked", json!({ "vcpus": 2, "cpu_cap": 110 }))?;
    let left_alone = spec("left-alone", json!({ "vcpus": 2 }))?;
    let run = |lab: &Lab, spec: &Path| compute::ns_per_round(&lab.run_sliver(spec)?.0);
    let quads = lab.interleave(
        "kicks",
        lab.pairs,
        |lab| run(lab, &kicked),
        |lab| run(lab, &left_alone),
    )?;
    Ok(vec![Samples::Paired {
        values: quads.iter().map(|quad| quad.map(|run| run.0)).collect(),
        cpu_ms: quads.iter().map(|quad| quad.map(|run| run.1)).collect(),
    }])
}

/// `jitter` as a process with two threads.
fn jitter(args: &[&str]) -> Result<Started> {
    let mut command = Command::new(artifacts::desktop("jitter"));
    command
        .args(args)
        .env("SLICE_VCPUS", "2")
        .stdin(Stdio::null());
    process::start(command, monotonic_ns())
}

/// What `jitter` says.
fn told(run: &Run) -> Result<Value> {
    serde_json::from_slice(&run.stdout).with_context(|| {
        let text = String::from_utf8_lossy(&run.stdout);
        format!("jitter printed {text:?}")
    })
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

fn paired(quads: &[QuadOf<Value>], of: impl Fn(&Value) -> f64) -> Samples {
    Samples::Paired {
        values: quads.iter().map(|quad| quad.map(&of)).collect(),
        cpu_ms: Vec::new(),
    }
}
