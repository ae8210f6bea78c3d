//! Questions to an audit with a million flows: how long the answer takes, in this process and as the
//! command that an operator types, and what it costs to store a flow.
//!
//! The flows are drawn from a seed: half of them go to a thousand addresses, the others anywhere.

use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use integration::artifacts;
use slicectl::rundir::RUN_DIR_VARIABLE;
use slicectl::store::{Identity, Source, Store, WantedFlows, now_ms};
use tempfile::TempDir;
use vmm::control::proto::{FlowEnd, FlowRecord, Opened};

use crate::lab::Lab;
use crate::metrics::{Bar, Experiment, Metric, Samples};
use crate::stats::Rng;

/// Flows that are stored.
const FLOWS: u64 = 1_000_000;

/// As many as a collector stores at once.
const BATCH: u64 = 1000;

/// Slivers, two to each slice.
const SLIVERS: u64 = 40;

/// Milliseconds between two flows: a million in six weeks.
const EVERY_MS: u64 = 3600;

const fn question(name: &'static str) -> Metric {
    metric(name, "ms", Bar::Value(50.0))
}

const fn metric(name: &'static str, unit: &'static str, bar: Bar) -> Metric {
    Metric {
        name,
        unit,
        peer: "-",
        bar,
    }
}

pub(crate) const EXPERIMENTS: &[Experiment] = &[Experiment {
    metrics: &[
        metric("flows-insert", "us", Bar::None),
        metric("flows-size", "bytes", Bar::None),
        question("flows-by-destination"),
        question("flows-by-destination-and-time"),
        question("flows-by-narrow-prefix"),
        question("flows-by-wide-prefix"),
        question("flows-by-slice"),
        question("flows-by-slice-since"),
        question("flows-by-port"),
        question("flows-by-source-and-port"),
        question("flows-by-source"),
        question("flows-of-nobody"),
        metric("flows-command", "ms", Bar::Value(1000.0)),
        metric("flows-block-command", "ms", Bar::Value(1000.0)),
    ],
    run: questions,
}];

fn questions(lab: &mut Lab) -> Result<Vec<Samples>> {
    let times = if lab.quick { 11 } else { 101 };
    let dir = TempDir::new()?;
    let audit = dir.path().join("audit.sqlite");
    let now = now_ms();
    eprintln!("storing {FLOWS} flows");
    let costs = fill(&audit, now)?;
    let size = audit.metadata()?.len() as f64 / FLOWS as f64;
    let store = Store::open(&audit)?;
    let mut samples = vec![Samples::Alone(costs), Samples::Alone(vec![size])];
    for wanted in wanted(now)? {
        let measured = (0..times).map(|_| {
            let start = Instant::now();
            black_box(store.flows(&wanted)?);
            Ok(start.elapsed().as_secs_f64() * 1e3)
        });
        samples.push(Samples::Alone(measured.collect::<Result<_>>()?));
    }
    let program = artifacts::slicectl();
    let command = |args: &[&str]| command(program, dir.path(), &audit, args);
    let asked = (0..times).map(|_| command(&["flows", "--dst", "198.51.100.7", "--json"]));
    samples.push(Samples::Alone(asked.collect::<Result<_>>()?));
    let blocked = (0..times).map(|_| command(&["block", "add", "198.51.100.7", "--json"]));
    samples.push(Samples::Alone(blocked.collect::<Result<_>>()?));
    Ok(samples)
}

/// What is asked, in the order of the metrics.
fn wanted(now: u64) -> Result<[WantedFlows; 10]> {
    let usual = || WantedFlows {
        most: 1000,
        ..WantedFlows::default()
    };
    let to = |prefix: &str| -> Result<WantedFlows> {
        Ok(WantedFlows {
            remote: Some(prefix.parse()?),
            ..usual()
        })
    };
    let of = |slice: &str| WantedFlows {
        slice: Some(slice.to_owned()),
        ..usual()
    };
    let public = Some(Source::Address([203, 0, 113, 1].into()));
    let week_ago = now - 7 * 86_400_000;
    Ok([
        to("198.51.100.7")?,
        WantedFlows {
            from_ms: Some(week_ago - 300_000),
            until_ms: Some(week_ago + 300_000),
            ..to("198.51.100.7")?
        },
        to("198.51.100.0/24")?,
        to("0.0.0.0/0")?,
        of("site_3"),
        WantedFlows {
            from_ms: Some(now - 3_600_000),
            ..of("site_3")
        },
        WantedFlows {
            remote_port: Some(22),
            ..usual()
        },
        WantedFlows {
            source: public.clone(),
            source_port: Some(20_017),
            ..usual()
        },
        WantedFlows {
            source: public,
            ..usual()
        },
        of("site_unknown"),
    ])
}

/// Stores the flows; microseconds for each, in the mean of every batch.
fn fill(audit: &Path, now: u64) -> Result<Vec<f64>> {
    let mut store = Store::create(audit)?;
    let mut draw = Rng::new(7);
    (0..FLOWS / BATCH)
        .map(|batch| {
            let sliver = draw.below(SLIVERS as usize) as u64;
            let first = batch * BATCH;
            let last_ms = |n: u64| now - (FLOWS - n) * EVERY_MS;
            let flows = (first..first + BATCH).map(|n| flow(sliver, last_ms(n), &mut draw));
            let flows: Vec<_> = flows.collect();
            let who = who(sliver);
            let start = Instant::now();
            store.add_flows(&who, &flows)?;
            Ok(start.elapsed().as_secs_f64() * 1e6 / BATCH as f64)
        })
        .collect()
}

fn who(sliver: u64) -> Identity {
    Identity {
        node: "node-1".to_owned(),
        name: format!("sliver-{sliver}"),
        slice: format!("site_{}", sliver / 2),
        owner: "Ada Lovelace".to_owned(),
        contact: "ada@example.org".to_owned(),
        public: "203.0.113.1".to_owned(),
    }
}

fn flow(sliver: u64, last_ms: u64, rng: &mut Rng) -> FlowRecord {
    let mut draw = |end: u64| rng.below(end as usize) as u64;
    let remote = match draw(2) {
        0 => [198, 51, 100 + draw(4) as u8, draw(250) as u8],
        _ => (draw(1 << 32) as u32).to_be_bytes(),
    };
    let ports = [22, 53, 80, 443, 1024 + draw(60_000) as u16];
    FlowRecord {
        first_ms: last_ms - draw(60_000),
        last_ms,
        protocol: 6,
        inside: [10, 0, 0, 2 + sliver as u8].into(),
        inside_port: 1024 + draw(60_000) as u16,
        outside_port: Some(20_000 + (500 * sliver + draw(500)) as u16),
        remote: remote.into(),
        remote_port: ports[draw(5) as usize],
        opened: Opened::Out,
        tx_packets: draw(1000),
        tx_bytes: draw(1_000_000),
        rx_packets: draw(1000),
        rx_bytes: draw(1_000_000),
        end: FlowEnd::Cut,
    }
}

/// Milliseconds that a command takes, from its start to its end.
fn command(program: &Path, dir: &Path, audit: &Path, args: &[&str]) -> Result<f64> {
    let start = Instant::now();
    let ended = Command::new(program)
        .args(args)
        .arg("--audit")
        .arg(audit)
        .env(RUN_DIR_VARIABLE, dir.join("run"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .with_context(|| program.display().to_string())?;
    let taken = start.elapsed().as_secs_f64() * 1e3;
    ensure!(ended.success(), "slicectl {args:?} ended with {ended}");
    Ok(taken)
}
