//! Samples become rows, rows a table for people and a document for machines.

use std::fmt::Write as _;

use serde::Serialize;

use crate::host::Host;
use crate::metrics::{Bar, Metric, Samples};
use crate::stats::{
    Comparison, Interval, Quad, Rng, Verdict, bootstrap_median, compare, judge, median,
};

/// Everything of one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// What it was measured on.
    pub(crate) host: Host,
    /// Seed of the order of runs and of the bootstrap.
    pub(crate) seed: u64,
    /// Percent of the host's processor time that was taken from it during the run.
    pub(crate) steal_percent: f64,
    /// One per metric.
    pub(crate) rows: Vec<Row>,
}

/// One metric, measured.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) metric: Metric,
    /// Median of ours, in the metric's unit.
    pub(crate) ours: Option<f64>,
    /// Median of the peer.
    pub(crate) peer: Option<f64>,
    /// Medians of the processor milliseconds, ours and the peer's.
    pub(crate) cpu_ms: Option<[f64; 2]>,
    /// The comparison, if there is a peer.
    pub(crate) comparison: Option<Comparison>,
    /// Where the median of ours lies, if there is no peer.
    pub(crate) interval: Option<Interval>,
    /// Whether the bar was met, if there is one.
    pub(crate) verdict: Option<Verdict>,
    /// All samples.
    pub(crate) samples: Samples,
}

impl Row {
    /// Evaluates `samples` of `metric`.
    pub(crate) fn new(metric: Metric, samples: Samples, rng: &mut Rng) -> Self {
        let mut row = Self {
            metric,
            ours: None,
            peer: None,
            cpu_ms: None,
            comparison: None,
            interval: None,
            verdict: None,
            samples,
        };
        match &row.samples {
            Samples::Paired { values, cpu_ms } => {
                let comparison = compare(values, rng);
                let [ours, peer] = medians(values);
                (row.ours, row.peer) = (Some(ours), Some(peer));
                row.cpu_ms = (!cpu_ms.is_empty()).then(|| medians(cpu_ms));
                row.verdict = match metric.bar {
                    Bar::Ratio(bar) => Some(judge(
                        comparison.ratio,
                        comparison.interval,
                        comparison.band,
                        bar,
                    )),
                    Bar::Value(bar) => {
                        let all: Vec<f64> = values.iter().flat_map(|quad| quad.ours).collect();
                        Some(judge(ours, bootstrap_median(&all, rng), 1.0, bar))
                    }
                    Bar::None => None,
                };
                row.comparison = Some(comparison);
            }
            Samples::Alone(values) => {
                let interval = bootstrap_median(values, rng);
                let ours = median(values);
                row.ours = Some(ours);
                row.verdict = match metric.bar {
                    Bar::Value(bar) => Some(judge(ours, interval, 1.0, bar)),
                    Bar::Ratio(_) | Bar::None => None,
                };
                row.interval = Some(interval);
            }
            Samples::LeftOut(_) => {}
        }
        row
    }

    fn cells(&self) -> [String; 10] {
        let number = |value: Option<f64>| value.map_or("-".to_owned(), short);
        let interval = self.comparison.map(|c| c.interval).or(self.interval);
        [
            self.metric.name.to_owned(),
            self.metric.unit.to_owned(),
            number(self.ours),
            number(self.peer),
            number(self.comparison.map(|c| c.ratio)),
            interval.map_or("-".to_owned(), |i| {
                format!("{}..{}", short(i.low), short(i.high))
            }),
            number(self.comparison.map(|c| c.band)),
            self.cpu_ms.map_or("-".to_owned(), |[ours, peer]| {
                format!("{}/{}", short(ours), short(peer))
            }),
            match self.metric.bar {
                Bar::Ratio(bar) => format!("ratio <= {bar}"),
                Bar::Value(bar) => format!("<= {bar} {}", self.metric.unit),
                Bar::None => "-".to_owned(),
            },
            match (&self.samples, self.verdict) {
                (Samples::LeftOut(_), _) => "LEFT OUT",
                (_, Some(Verdict::Met)) => "met",
                (_, Some(Verdict::Missed)) => "MISSED",
                (_, Some(Verdict::NotDecided)) => "not decided",
                (_, None) => "told",
            }
            .to_owned(),
        ]
    }
}

const HEADINGS: [&str; 10] = [
    "metric", "unit", "ours", "peer", "ratio", "95 %", "A/A", "CPU ms", "bar", "verdict",
];

impl Report {
    /// The table, what is behind it, and the verdicts in words.
    pub(crate) fn table(&self) -> String {
        let mut text = table(&HEADINGS, self.rows.iter().map(Row::cells).collect());
        for row in &self.rows {
            match &row.samples {
                Samples::LeftOut(why) => {
                    let _ = writeln!(text, "left out: {}: {why}", row.metric.name);
                }
                Samples::Paired { values, .. } => {
                    let (name, peer, runs) = (row.metric.name, row.metric.peer, 2 * values.len());
                    let _ = writeln!(text, "{name}: ours against {peer}, {runs} pairs");
                }
                Samples::Alone(values) => {
                    let _ = writeln!(text, "{}: {} samples", row.metric.name, values.len());
                }
            }
        }
        let host = &self.host;
        let _ = writeln!(
            text,
            "host: {}, {} x {}, {} MiB, KVM on {}, steal {:.2} %",
            host.kernel, host.cpus, host.cpu, host.memory_mib, host.kvm, self.steal_percent
        );
        let qemu = host.qemu.as_deref().unwrap_or("no QEMU");
        let _ = writeln!(
            text,
            "with: slicevisor {}; {}; {}; {qemu}; seed {}",
            host.slicevisor, host.rustc, host.cc, self.seed
        );
        text
    }
}

/// Lines up the cells: text to the left, numbers to the right.
pub(crate) fn table<const N: usize>(headings: &[&str; N], rows: Vec<[String; N]>) -> String {
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells
            .max()
            .unwrap_or(0)
            .max(headings[column].chars().count())
    });
    let mut text = String::new();
    let mut line = |cells: [&str; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| {
            if cell.starts_with(|c: char| c.is_ascii_digit()) {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            }
        });
        let padded: Vec<String> = padded.collect();
        let _ = writeln!(text, "{}", padded.join("  ").trim_end());
    };
    line(*headings);
    for row in &rows {
        line(std::array::from_fn(|column| row[column].as_str()));
    }
    text
}

fn medians(quads: &[Quad]) -> [f64; 2] {
    let all =
        |side: fn(&Quad) -> [f64; 2]| median(&quads.iter().flat_map(side).collect::<Vec<_>>());
    [all(|quad| quad.ours), all(|quad| quad.peer)]
}

/// Three or four significant digits.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(bar: Bar) -> Metric {
        Metric {
            name: "a-metric",
            unit: "ms",
            peer: "its peer",
            bar,
        }
    }

    fn paired(ours: f64, peer: f64) -> Samples {
        Samples::Paired {
            values: vec![
                Quad {
                    ours: [ours; 2],
                    peer: [peer; 2],
                };
                15
            ],
            cpu_ms: Vec::new(),
        }
    }

    fn verdict(bar: Bar, samples: Samples) -> Option<Verdict> {
        Row::new(metric(bar), samples, &mut Rng::new(1)).verdict
    }

    #[test]
    fn a_ratio_is_held_against_its_bar() {
        let bar = Bar::Ratio(2.0);
        assert_eq!(verdict(bar, paired(3.0, 2.0)), Some(Verdict::Met));
        assert_eq!(verdict(bar, paired(5.0, 2.0)), Some(Verdict::Missed));
        assert_eq!(verdict(Bar::None, paired(5.0, 2.0)), None);
    }

    #[test]
    fn a_value_is_held_against_its_bar() {
        let bar = Bar::Value(1.5);
        assert_eq!(
            verdict(bar, Samples::Alone(vec![1.0; 5])),
            Some(Verdict::Met)
        );
        assert_eq!(
            verdict(bar, Samples::Alone(vec![2.0; 5])),
            Some(Verdict::Missed)
        );
    }

    #[test]
    fn a_value_with_a_peer_is_held_against_its_bar_whatever_the_peer_does() {
        let bar = Bar::Value(1.5);
        assert_eq!(verdict(bar, paired(1.0, 0.1)), Some(Verdict::Met));
        assert_eq!(verdict(bar, paired(2.0, 9.0)), Some(Verdict::Missed));
    }

    #[test]
    fn what_was_left_out_is_seen_in_the_table() {
        let samples = Samples::LeftOut("no peer: install it".to_owned());
        let row = Row::new(metric(Bar::Ratio(1.0)), samples, &mut Rng::new(1));
        assert_eq!(row.verdict, None);
        assert_eq!(row.cells()[9], "LEFT OUT");
    }

    #[test]
    fn columns_line_up() {
        let rows = vec![
            ["long name".to_owned(), "1".to_owned()],
            ["x".to_owned(), "100".to_owned()],
        ];
        assert_eq!(
            table(&["metric", "n"], rows),
            "metric     n\nlong name    1\nx          100\n"
        );
    }
}
