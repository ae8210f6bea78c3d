//! How exactly busy slivers share the processors, and what a reserve is worth among many of them.
//!
//! What a sliver is entitled to is computed here once more, on its own: what the slivers use in all is
//! poured out by weight, nobody gets more than its vCPUs can hold, and what is left over goes to the
//! others. Whether they use all there is, is a metric of its own, next to as many plain processes.

use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::Result;
use integration::artifacts;
use serde_json::json;

use crate::experiments::cpu::runs;
use crate::lab::{Lab, Surroundings};
use crate::metrics::{Bar, Experiment, Metric, Samples};
use crate::stats::median;
use crate::subject::{Crowd, FOREVER, Subject, whole};

/// Slivers on the processors at once.
#[derive(Debug, Clone, Copy)]
struct Party {
    name: &'static str,
    shares: &'static [u32],
    /// Of each.
    vcpus: usize,
}

/// What one run gave.
#[derive(Debug, Clone, Copy)]
struct Shared {
    /// Of the sliver that was treated worst or best, in percent of what it is entitled to.
    worst: f64,
    /// The median of the same over windows of a second.
    worst_in_a_second: f64,
    /// Seconds that passed for each second of processor time that was used.
    per_cpu_second: f64,
}

const SECOND: Duration = Duration::from_secs(1);

/// Slivers without any reserve beside one that has one.
const COMPETITORS: usize = 50;
/// What that has, in percent of the node.
const RESERVE: f64 = 25.0;

macro_rules! party {
    ($name:literal, $vcpus:literal, $shares:expr) => {
        Experiment {
            metrics: &[
                Metric {
                    name: concat!("cpu-share-", $name),
                    unit: "% off",
                    peer: "-",
                    bar: Bar::Value(2.0),
                },
                Metric {
                    name: concat!("cpu-share-", $name, "-1-s"),
                    unit: "% off",
                    peer: "-",
                    bar: Bar::None,
                },
                Metric {
                    name: concat!("cpu-share-", $name, "-use"),
                    unit: "s/CPU-s",
                    peer: "plain processes",
                    // 98 % of what they get.
                    bar: Bar::Ratio(1.0204),
                },
            ],
            run: |lab| {
                run(
                    lab,
                    Party {
                        name: $name,
                        shares: $shares,
                        vcpus: $vcpus,
                    },
                )
            },
        }
    };
}

/// The metrics and how they are measured.
pub(super) const EXPERIMENTS: &[Experiment] = &[
    party!("1-1", 2, &[1, 1]),
    party!("1-2-4", 2, &[1, 2, 4]),
    party!("1-1-1-5", 2, &[1, 1, 1, 5]),
    // Nobody with one vCPU can use more than one processor.
    party!("1-2-4-unmet", 1, &[1, 2, 4]),
    party!("1-1-1-5-unmet", 1, &[1, 1, 1, 5]),
    party!("10-1-1-unmet", 1, &[10, 1, 1]),
    party!("five-alike", 1, &[1; 5]),
    party!("eight", 1, &[1, 1, 2, 2, 3, 3, 4, 4]),
    Experiment {
        metrics: &[Metric {
            name: "cpu-reserve-missing",
            unit: "% of node",
            peer: "-",
            bar: Bar::Value(0.5),
        }],
        run: reserve,
    },
];

fn run(lab: &mut Lab, party: Party) -> Result<Vec<Samples>> {
    let specs: Vec<PathBuf> = { party.shares.iter().enumerate() }
        .map(|(index, share)| {
            let fields = json!({ "vcpus": party.vcpus, "cpu_share": share });
            let name = format!("share-{index}");
            lab.spec_with(&name, artifacts::image("spin"), &FOREVER, fields)
        })
        .collect::<Result<_>>()?;
    let ours = |lab: &Lab| {
        let crowd = Crowd::start(specs.iter().map(|spec| Subject::sliver(lab, spec, RIVALS)))?;
        measure(lab, party, crowd)
    };
    let peer = |lab: &Lab| {
        let crowd = Crowd::start(specs.iter().map(|_| Subject::process(party.vcpus)))?;
        measure(lab, party, crowd)
    };
    let what = format!("shares {}", party.name);
    let quads = lab.interleave(&what, runs(lab), ours, peer)?;
    let alone = |of: fn(&Shared) -> f64| {
        Samples::Alone(quads.iter().flat_map(|quad| quad.map(of).ours).collect())
    };
    Ok(vec![
        alone(|shared| shared.worst),
        alone(|shared| shared.worst_in_a_second),
        Samples::Paired {
            values: { quads.iter() }
                .map(|quad| quad.map(|shared| shared.per_cpu_second))
                .collect(),
            cpu_ms: Vec::new(),
        },
    ])
}

const RIVALS: Surroundings = Surroundings {
    rivals: true,
    ..Surroundings::USUAL
};

fn measure(lab: &Lab, party: Party, crowd: Crowd) -> Result<Shared> {
    let readings = crowd.watch(SECOND, if lab.quick { 5 } else { 20 })?;
    crowd.end()?;
    let worst = |from: usize, to: usize| {
        let used: Vec<f64> = { readings.iter() }
            .map(|of_one| whole(&of_one[from..=to]).1)
            .collect();
        let (time, _) = whole(&readings[0][from..=to]);
        worst_error(&used, time, party)
    };
    let last = readings[0].len() - 1;
    let in_seconds: Vec<f64> = (0..last).map(|start| worst(start, start + 1)).collect();
    let total: f64 = readings.iter().map(|of_one| whole(of_one).1).sum();
    Ok(Shared {
        worst: worst(0, last),
        worst_in_a_second: median(&in_seconds),
        per_cpu_second: whole(&readings[0]).0 / total,
    })
}

/// The largest difference between what somebody `used` and what it is entitled to, in percent.
fn worst_error(used: &[f64], time: f64, party: Party) -> f64 {
    let total: f64 = used.iter().sum();
    // Where the host takes a part of each processor for itself, a vCPU can hold less, too.
    let processors = processors() as f64;
    let room = (total / processors).min(time) * party.vcpus as f64;
    let entitled = entitlements(party.shares, room, total);
    let errors = used.iter().zip(&entitled);
    errors
        .map(|(used, entitled)| 100.0 * (used - entitled).abs() / entitled)
        .fold(0.0, f64::max)
}

/// `total` by weight, nobody more than `room`.
fn entitlements(shares: &[u32], room: f64, total: f64) -> Vec<f64> {
    let mut entitled = vec![None; shares.len()];
    loop {
        let held = entitled.iter().flatten().count() as f64 * room;
        let weights: u32 = { shares.iter().zip(&entitled) }
            .filter(|(_, entitled)| entitled.is_none())
            .map(|(share, _)| share)
            .sum();
        let by_weight = |share: u32| (total - held) * f64::from(share) / f64::from(weights.max(1));
        let full = { shares.iter().zip(&mut entitled) }
            .find(|(share, entitled)| entitled.is_none() && by_weight(**share) > room);
        match full {
            Some((_, entitled)) => *entitled = Some(room),
            None => {
                let each = shares.iter().zip(&entitled);
                return each
                    .map(|(&share, full)| full.unwrap_or_else(|| by_weight(share)))
                    .collect();
            }
        }
    }
}

fn processors() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// What a sliver with a reserve misses of it among many that want all they can get.
fn reserve(lab: &mut Lab) -> Result<Vec<Samples>> {
    let specs: Vec<PathBuf> = (0..=COMPETITORS)
        .map(|index| {
            let fields = match index {
                // With as many vCPUs as it takes, on any node, to use the reserve.
                0 => json!({ "cpu_pct": RESERVE, "vcpus": processors().div_ceil(4) }),
                _ => json!({}),
            };
            let name = format!("reserve-{index}");
            lab.spec_with(&name, artifacts::image("spin"), &FOREVER, fields)
        })
        .collect::<Result<_>>()?;
    let missing = lab.repeat("reserve", runs(lab), |lab| {
        let crowd = Crowd::start(specs.iter().map(|spec| Subject::sliver(lab, spec, RIVALS)))?;
        let readings = crowd.watch(if lab.quick { 5 } else { 20 } * SECOND, 1)?;
        crowd.end()?;
        let (time, used) = whole(&readings[0]);
        Ok((RESERVE - 100.0 * used / (time * processors() as f64)).max(0.0))
    })?;
    Ok(vec![Samples::Alone(missing)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_close(is: &[f64], should: &[f64]) {
        assert_eq!(is.len(), should.len());
        for (is, should) in is.iter().zip(should) {
            assert!((is - should).abs() < 1e-9, "{is} instead of {should}");
        }
    }

    #[test]
    fn weights_that_can_be_met_are() {
        assert_close(&entitlements(&[1, 3], 2.0, 2.0), &[0.5, 1.5]);
    }

    #[test]
    fn what_nobody_can_use_goes_to_the_others() {
        assert_close(&entitlements(&[10, 1, 1], 1.0, 2.0), &[1.0, 0.5, 0.5]);
        assert_close(
            &entitlements(&[1, 2, 4], 1.0, 2.0),
            &[1.0 / 3.0, 2.0 / 3.0, 1.0],
        );
        assert_close(&entitlements(&[9, 9, 1], 1.0, 2.5), &[1.0, 1.0, 0.5]);
    }

    #[test]
    fn nobody_is_entitled_to_more_than_it_can_hold() {
        assert_close(&entitlements(&[5, 1], 1.0, 2.0), &[1.0, 1.0]);
    }
}
