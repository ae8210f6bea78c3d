//! Benchmarks of Slicevisor, one door: every metric with its unit, its peer and its bar.
//!
//! Results go to standard output, progress to standard error. It builds what it measures. It ends
//! with status 1 if a bar was missed.

mod cgroup;
mod experiments;
mod host;
mod lab;
mod metrics;
mod policy;
mod process;
mod report;
mod sampler;
mod stats;
mod subject;
mod usage;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use host::{CpuTicks, Host};
use integration::artifacts;
use integration::sliver::monotonic_ns;
use lab::Lab;
use metrics::{Bar, experiments};
use report::{Report, Row, table};
use stats::{Rng, Verdict};

/// Measures Slicevisor against its peers, on this machine, in one run.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  cargo run --release -p benches -- --list
  cargo run --release -p benches -- --quick --filter start
  cargo run --release -p benches -- --pairs 100 --json result.json")]
struct Options {
    /// List the metrics and measure nothing.
    #[arg(long)]
    list: bool,
    /// Measure only metrics whose name contains NAME.
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Make N pairs per comparison of latencies [default: 30, or 10 with --quick].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=100_000))]
    pairs: Option<u32>,
    /// Take fewer samples: rough figures, soon.
    #[arg(long)]
    quick: bool,
    /// Write host facts, results and all raw samples to FILE.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Seed of the order of runs and of the bootstrap [default: the clock].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    if options.list {
        print!("{}", list());
        return Ok(ExitCode::SUCCESS);
    }
    let report = measure(&options)?;
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report)?;
        fs::write(path, text).with_context(|| format!("{}", path.display()))?;
    }
    print!("{}", report.table());
    let missed = report
        .rows
        .iter()
        .any(|row| row.verdict == Some(Verdict::Missed));
    Ok(if missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn measure(options: &Options) -> Result<Report> {
    let filter = options.filter.as_deref();
    let wanted: Vec<_> = experiments()
        .filter(|e| e.metrics.iter().any(|metric| metric.matches(filter)))
        .collect();
    ensure!(
        !wanted.is_empty(),
        "no metric matches; --list shows them all"
    );
    eprintln!("building what is measured");
    artifacts::slicevmm();
    let seed = options.seed.unwrap_or_else(monotonic_ns);
    let pairs = options.pairs.unwrap_or(if options.quick { 10 } else { 30 });
    let mut lab = Lab::new(pairs as usize, options.quick, seed)?;
    let mut rng = Rng::new(seed);
    let host = Host::look()?;
    let before = CpuTicks::now()?;
    let mut rows = Vec::new();
    for experiment in wanted {
        let samples = (experiment.run)(&mut lab)?;
        let measured = experiment.metrics.iter().zip(samples);
        rows.extend(
            measured
                .filter(|(metric, _)| metric.matches(filter))
                .map(|(metric, samples)| Row::new(*metric, samples, &mut rng)),
        );
    }
    Ok(Report {
        host,
        seed,
        steal_percent: CpuTicks::now()?.steal_percent_since(before),
        rows,
    })
}

fn list() -> String {
    let metrics = experiments().flat_map(|e| e.metrics);
    let rows = metrics.map(|metric| {
        let bar = match metric.bar {
            Bar::Ratio(bar) => format!("ratio <= {bar}"),
            Bar::Value(bar) => format!("<= {bar} {}", metric.unit),
            Bar::None => "-".to_owned(),
        };
        [metric.name, metric.unit, metric.peer, &bar].map(str::to_owned)
    });
    table(&["metric", "unit", "against", "bar"], rows.collect())
}
