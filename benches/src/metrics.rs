//! The table of all metrics: what is measured, in what unit, against what, and what it must reach.
//!
//! Metrics that come out of the same runs share an experiment, which is run once for all of them.

use anyhow::Result;
use serde::Serialize;

use crate::experiments::{
    compute, cpu, disk, first_byte, flood, flows, gated, idle, jail, legacy, net, per_packet, qemu,
    rate, shape, start, uplink,
};
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
pub(crate) fn experiments() -> impl Iterator<Item = &'static Experiment> {
    let limits = [
        jail::EXPERIMENTS,
        shape::EXPERIMENTS,
        flood::EXPERIMENTS,
        per_packet::EXPERIMENTS,
        gated::EXPERIMENTS,
        uplink::EXPERIMENTS,
        flows::EXPERIMENTS,
    ]
    .into_iter()
    .flatten();
    EXPERIMENTS.iter().chain(cpu::experiments()).chain(limits)
}

const EXPERIMENTS: &[Experiment] = &[
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
    Experiment {
        metrics: &[
            Metric {
                name: "legacy-start-init",
                unit: "ms",
                peer: "QEMU microvm",
                bar: Bar::Ratio(1.0),
            },
            Metric {
                name: "legacy-monitor-pss",
                unit: "MiB",
                peer: "-",
                bar: Bar::Value(4.0),
            },
            Metric {
                name: "legacy-monitor-pss-qemu",
                unit: "MiB",
                peer: "QEMU microvm",
                bar: Bar::None,
            },
        ],
        run: legacy::run,
    },
    Experiment {
        metrics: &[
            Metric {
                name: "net-tcp-send",
                unit: "s/GiB",
                peer: "iperf3, veth, no offloads",
                bar: Bar::Ratio(2.0),
            },
            Metric {
                name: "net-tcp-receive",
                unit: "s/GiB",
                peer: "iperf3, veth, no offloads",
                bar: Bar::Ratio(2.0),
            },
            Metric {
                name: "net-round-trip",
                unit: "us",
                peer: "veth",
                bar: Bar::Ratio(5.0),
            },
            Metric {
                name: "net-round-trip-slept",
                unit: "us",
                peer: "veth",
                bar: Bar::Ratio(10.0),
            },
            Metric {
                name: "net-exits-per-packet",
                unit: "exits",
                peer: "-",
                bar: Bar::Value(0.2),
            },
        ],
        run: net::plain,
    },
    Experiment {
        metrics: &[
            Metric {
                name: "net-tcp-send-offloads",
                unit: "s/GiB",
                peer: "iperf3, veth, offloads",
                bar: Bar::None,
            },
            Metric {
                name: "net-tcp-receive-offloads",
                unit: "s/GiB",
                peer: "iperf3, veth, offloads",
                bar: Bar::None,
            },
        ],
        run: net::offloaded,
    },
    Experiment {
        metrics: &[
            Metric {
                name: "guard-tcp-send",
                unit: "s/GiB",
                peer: "no guard",
                bar: Bar::Ratio(1.111),
            },
            Metric {
                name: "guard-tcp-receive",
                unit: "s/GiB",
                peer: "no guard",
                bar: Bar::Ratio(1.111),
            },
            Metric {
                name: "guard-tcp-send-offloads",
                unit: "s/GiB",
                peer: "no guard",
                bar: Bar::Ratio(1.111),
            },
            Metric {
                name: "guard-tcp-receive-offloads",
                unit: "s/GiB",
                peer: "no guard",
                bar: Bar::Ratio(1.111),
            },
        ],
        run: net::guarded,
    },
    Experiment {
        metrics: &[
            Metric {
                name: "disk-random-read-1",
                unit: "us/op",
                peer: "fio",
                bar: Bar::Ratio(1.667),
            },
            Metric {
                name: "disk-random-write-1",
                unit: "us/op",
                peer: "fio",
                bar: Bar::Ratio(1.667),
            },
            Metric {
                name: "disk-random-read-32",
                unit: "us/op",
                peer: "fio",
                bar: Bar::Ratio(1.333),
            },
            Metric {
                name: "disk-random-write-32",
                unit: "us/op",
                peer: "fio",
                bar: Bar::Ratio(1.333),
            },
            Metric {
                name: "disk-sequential-read",
                unit: "us/op",
                peer: "fio",
                bar: Bar::Ratio(1.176),
            },
            Metric {
                name: "disk-sequential-write",
                unit: "us/op",
                peer: "fio",
                bar: Bar::Ratio(1.176),
            },
            Metric {
                name: "disk-added-from-sleep",
                unit: "us",
                peer: "fio (difference)",
                bar: Bar::Value(150.0),
            },
            Metric {
                name: "disk-flushed-write",
                unit: "us/op",
                peer: "fio",
                bar: Bar::None,
            },
        ],
        run: disk::run,
    },
];

impl Metric {
    /// Whether `--filter` wants it.
    pub(crate) fn matches(&self, filter: Option<&str>) -> bool {
        filter.is_none_or(|text| self.name.contains(text))
    }
}
