//! What the jail adds to a start, against what the same namespaces and an empty root add to a program
//! that does nothing, and what each layer costs by itself.
//!
//! A layer costs what a start takes with it and without it, one right after the other.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Result, ensure};
use integration::sliver::monotonic_ns;
use vmm::jail::{Launch, Layer, Layers, spawn};

use crate::lab::{Lab, Surroundings, cc, exit_image, ms};
use crate::metrics::{Bar, Experiment, Metric, Samples};

/// What is measured here.
pub(crate) const EXPERIMENTS: &[Experiment] = &[
    Experiment {
        metrics: &[Metric {
            name: "jail-start",
            unit: "ms",
            peer: "the same namespaces and root around a program that does nothing",
            bar: Bar::Ratio(2.0),
        }],
        run: start,
    },
    Experiment {
        metrics: &[
            told("jail-user"),
            told("jail-mount"),
            told("jail-pid"),
            told("jail-network"),
            told("jail-ipc"),
            told("jail-uts"),
            told("jail-cgroup"),
            told("jail-landlock"),
        ],
        run: layers,
    },
];

const fn told(name: &'static str) -> Metric {
    Metric {
        name,
        unit: "ms",
        peer: "",
        bar: Bar::None,
    }
}

fn start(lab: &mut Lab) -> Result<Vec<Samples>> {
    let nothing = cc(lab, "floor/true.c", "true", &["-O2", "-static"])?;
    let spec = lab.spec("jail", &exit_image(lab)?, &[])?;
    let ours =
        |lab: &Lab| Ok(sliver(lab, &spec, Layers::all())? - sliver(lab, &spec, Layers::NONE)?);
    let peer = |_: &Lab| Ok(program(&nothing, Layers::all())? - program(&nothing, Layers::NONE)?);
    let quads = lab.interleave("jail", 2 * lab.pairs, ours, peer)?;
    Ok(vec![Samples::Paired {
        values: quads.iter().map(|quad| quad.map(|added| *added)).collect(),
        cpu_ms: Vec::new(),
    }])
}

fn layers(lab: &mut Lab) -> Result<Vec<Samples>> {
    let nothing = cc(lab, "floor/true.c", "true", &["-O2", "-static"])?;
    let spec = lab.spec("layers", &exit_image(lab)?, &[])?;
    let mut all = Vec::new();
    for layer in Layer::ALL {
        let alone: Layers = [layer].into_iter().collect();
        let added = lab.repeat(layer.name(), 2 * lab.pairs, |lab| match layer {
            // The program puts it on itself.
            Layer::Landlock => Ok(sliver(lab, &spec, alone)? - sliver(lab, &spec, Layers::NONE)?),
            _ => Ok(program(&nothing, alone)? - program(&nothing, Layers::NONE)?),
        })?;
        all.push(Samples::Alone(added));
    }
    Ok(all)
}

/// Milliseconds of a sliver whose guest ends at once.
fn sliver(lab: &Lab, spec: &Path, layers: Layers) -> Result<f64> {
    let surroundings = Surroundings {
        without: Layers::all().without(layers),
        ..Surroundings::USUAL
    };
    let (run, _) = lab.start(spec, surroundings)?.finish(0)?;
    Ok(ms(run.wall_ns))
}

/// Milliseconds of a program that ends at once.
fn program(path: &Path, layers: Layers) -> Result<f64> {
    let program = File::open(path)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let since = monotonic_ns();
    let jailed = spawn(&Launch {
        program: program.as_fd(),
        arguments: &[CString::from(c"true")],
        descriptors: &[null.as_fd(), null.as_fd(), null.as_fd()],
        layers,
        limits: &[],
        shown: None,
    })?;
    let ended = jailed.wait();
    let took = monotonic_ns() - since;
    ensure!(
        ended.is_some_and(|ended| ended.status.success()),
        "a program that does nothing failed in the jail"
    );
    Ok(ms(took))
}
