//! The table of all metrics: what is measured, in what unit, against what, and what it must reach.
//!
//! Metrics that come out of the same runs share an experiment, which is run once for all of them.

use anyhow::Result;
use serde::Serialize;

use crate::experiments::{compute, first_byte, idle, qemu, rate, start};
use crate::lab::Lab;
use crate::stats::Quad;

/// One figure.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Metric {
    /// What `--filter` matches and `--list` shows.
    pub(crate) name: &'static str,
    /// What it counts.
    pub(crate) unit: &'static str,
    /// What it is compared with in the same run.
    pub(crate) peer: &'static str,
    /// What it must reach.
    pub(crate) bar: Bar,
}

/// What a metric must reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bar {
    /// Ours divided by the peer is at most this.
    Ratio(f64),
    /// Ours is at most this, in the metric's unit.
    Value(f64),
    /// It is told, not judged.
    None,
}

/// Raw samples of one metric, in its unit.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Samples {
    /// Ours next to the peer.
    Paired {
        /// The metric.
        values: Vec<Quad>,
        /// Processor milliseconds of the same runs, where they are of processes.
        cpu_ms: Vec<Quad>,
    },
    /// Ours alone.
    Alone(Vec<f64>),
    /// Not measured: why, and what would help.
    LeftOut(String),
}

/// Runs that give several metrics.
pub(crate) struct Experiment {
    /// What it measures, in the order in which `run` returns the samples.
    pub(crate) metrics: &'static [Metric],
    /// Makes the runs.
    pub(crate) run: fn(&mut Lab) -> Result<Vec<Samples>>,
}

/// Everything there is.
pub(crate) const EXPERIMENTS: &[Experiment] = &[
    Experiment {
        metrics: &[
            Metric {
                name: "start-first-instruction",
                unit: "ms",
                peer: "2 x floor + /bin/true",
                bar: Bar::Ratio(1.0),
            },
            Metric {
                name: "start-first-instruction-floor",
                unit: "ms",
                peer: "floor",
                bar: Bar::None,
            },
            Metric {
                name: "start-to-end-of-process",
                unit: "ms",
                peer: "floor",
                bar: Bar::None,
            },
        ],
        run: start::run,
    },
    Experiment {
        metrics: &[Metric {
            name: "start-first-byte",
            unit: "ms",
            peer: "floor",
            bar: Bar::None,
        }],
        run: first_byte::run,
    },
    Experiment {
        metrics: &[Metric {
            name: "start-first-instruction-qemu",
            unit: "ms",
            peer: "QEMU microvm",
            bar: Bar::Ratio(0.1),
        }],
        run: qemu::run,
    },
    Experiment {
        metrics: &[
            Metric {
                name: "idle-monitor-pss",
                unit: "MiB",
                peer: "-",
                bar: Bar::Value(1.5),
            },
            Metric {
                name: "idle-monitor-pss-alone",
                unit: "MiB",
                peer: "-",
                bar: Bar::Value(1.5),
            },
            Metric {
                name: "idle-host-memory",
                unit: "MiB/sliver",
                peer: "-",
                bar: Bar::None,
            },
            Metric {
                name: "monitor-file-size",
                unit: "MiB",
                peer: "-",
                bar: Bar::Value(3.0),
            },
        ],
        run: idle::run,
    },
    Experiment {
        metrics: &[Metric {
            name: "compute",
            unit: "ns/round",
            peer: "native process",
            bar: Bar::Ratio(1.03),
        }],
        run: compute::run,
    },
    Experiment {
        metrics: &[Metric {
            name: "starts-in-a-row",
            unit: "ms/start",
            peer: "floor",
            bar: Bar::None,
        }],
        run: rate::in_a_row,
    },
    Experiment {
        metrics: &[Metric {
            name: "starts-at-once",
            unit: "ms/100",
            peer: "floor",
            bar: Bar::None,
        }],
        run: rate::at_once,
    },
];

impl Metric {
    /// Whether `--filter` wants it.
    pub(crate) fn matches(&self, filter: Option<&str>) -> bool {
        filter.is_none_or(|text| self.name.contains(text))
    }
}
