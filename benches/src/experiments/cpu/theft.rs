//! What guests gain that know when nobody looks: more than their cap, or more than their share.

use std::thread::available_parallelism;

use std::time::Duration;

use anyhow::Result;
use integration::{artifacts, guests};
use serde_json::{Value, json};

use crate::experiments::cpu::runs;
use crate::lab::{Lab, Surroundings};
use crate::metrics::{Bar, Experiment, Metric, Samples};
use crate::subject::{Crowd, FOREVER, Subject, whole};

/// The cap of those who steal from it, in percent.
const CAP: f64 = 20.0;

macro_rules! theft {
    ($name:literal, $run:expr) => {
        Experiment {
            metrics: &[Metric {
                name: concat!("cpu-theft-", $name),
                unit: "% gained",
                peer: "-",
                bar: Bar::Value(2.0),
            }],
            run: $run,
        }
    };
}

/// The metrics and how they are measured.
pub(super) const EXPERIMENTS: &[Experiment] = &[
    theft!("asleep-at-the-end", |lab| from_cap(
        lab,
        "sleep-through-ends"
    )),
    theft!("dodged-kicks", |lab| from_cap(lab, "dodge")),
    theft!("late-joiner", from_others),
];

/// What a guest gets beyond its cap.
fn from_cap(lab: &mut Lab, case: &str) -> Result<Vec<Samples>> {
    let spec = lab.spec_with(case, guests::bare(), &[case], json!({ "cpu_cap": CAP }))?;
    let gains = lab.repeat(&format!("theft by {case}"), runs(lab), |lab| {
        let subject = Subject::sliver(lab, &spec, Surroundings::USUAL);
        let crowd = Crowd::start([subject].into_iter())?;
        let readings = crowd.watch(time(lab), 1)?;
        crowd.end()?;
        let (time, used) = whole(&readings[0]);
        Ok(gain(used, CAP / 100.0 * time))
    })?;
    Ok(vec![Samples::Alone(gains)])
}

/// What a guest gets beyond its share that is there half of the time, among twice as many as there
/// are processors that are there always.
fn from_others(lab: &mut Lab) -> Result<Vec<Samples>> {
    let processors = available_parallelism().map_or(1, usize::from);
    let (image, nothing) = (guests::bare(), Value::Null);
    let mut specs = vec![lab.spec_with("comes-and-goes", image, &["come-and-go"], nothing)?];
    for index in 0..2 * processors {
        let name = format!("stays-{index}");
        specs.push(lab.spec(&name, artifacts::image("spin"), &FOREVER)?);
    }
    let rivals = Surroundings {
        rivals: true,
        ..Surroundings::USUAL
    };
    let gains = lab.repeat("theft by a late joiner", runs(lab), |lab| {
        let subjects = specs.iter().map(|spec| Subject::sliver(lab, spec, rivals));
        let crowd = Crowd::start(subjects)?;
        let readings = crowd.watch(time(lab), 1)?;
        crowd.end()?;
        let (time, used) = whole(&readings[0]);
        let while_there = processors as f64 / (2 * processors + 1) as f64;
        Ok(gain(used, while_there * time / 2.0))
    })?;
    Ok(vec![Samples::Alone(gains)])
}

fn time(lab: &Lab) -> Duration {
    Duration::from_secs(if lab.quick { 3 } else { 10 })
}

/// Percent of what it is entitled to that it got beyond that.
fn gain(used: f64, entitled: f64) -> f64 {
    (100.0 * (used - entitled) / entitled).max(0.0)
}
