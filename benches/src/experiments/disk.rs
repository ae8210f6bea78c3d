//! The disk: what a guest gets of a file next to what fio gets of it, with the same engine (io_uring)
//! and without the host's page cache on either side.
//!
//! One slice per sample: `blast --disk` does as fio does and prints what it measured. Everything is
//! told as time, so that less is better.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use integration::artifacts;
use serde_json::{Value, json};

use crate::lab::{Lab, QuadOf};
use crate::metrics::Samples;

/// Bytes of the file.
const FILE_BYTES: u64 = 256 << 20;
/// Seconds of one sample.
const SECONDS: u32 = 1;
/// Microseconds between two requests that each begin from sleep.
const THINK_US: u32 = 2000;

/// What is done to the file.
#[derive(Debug, Clone, Copy)]
struct Load {
    what: &'static str,
    write: bool,
    random: bool,
    block: u32,
    depth: u32,
    think_us: u32,
    /// A flush after so many writes; 0: never.
    flush_every: u32,
}

impl Load {
    const fn random(what: &'static str, write: bool, depth: u32) -> Self {
        Self {
            what,
            write,
            random: true,
            block: 4096,
            depth,
            think_us: 0,
            flush_every: 0,
        }
    }

    const fn sequential(what: &'static str, write: bool) -> Self {
        Self {
            what,
            write,
            random: false,
            block: 128 << 10,
            depth: 8,
            think_us: 0,
            flush_every: 0,
        }
    }
}

/// The loads whose time per operation is compared.
const LOADS: [Load; 6] = [
    Load::random("4 KiB random reads, one at a time", false, 1),
    Load::random("4 KiB random writes, one at a time", true, 1),
    Load::random("4 KiB random reads, 32 at a time", false, 32),
    Load::random("4 KiB random writes, 32 at a time", true, 32),
    Load::sequential("128 KiB sequential reads", false),
    Load::sequential("128 KiB sequential writes", true),
];

/// One read every now and then.
const FROM_SLEEP: Load = Load {
    think_us: THINK_US,
    ..Load::random("4 KiB random reads from sleep", false, 1)
};

/// Each write made durable.
const FLUSHED: Load = Load {
    flush_every: 1,
    ..Load::random("4 KiB random writes, each flushed", true, 1)
};

/// What a sample is: microseconds between two operations, and their median latency.
#[derive(Debug, Clone, Copy)]
struct Sample {
    per_operation_us: f64,
    median_us: f64,
}

/// Runs them all.
pub(crate) fn run(lab: &mut Lab) -> Result<Vec<Samples>> {
    let file = make_file(lab)?;
    let mut samples = Vec::new();
    for load in LOADS {
        let quads = compare(lab, &file, load)?;
        samples.push(paired(&quads));
    }
    let quads = compare(lab, &file, FROM_SLEEP)?;
    let added = quads.iter().flat_map(|quad| {
        let quad = quad.map(|sample| sample.median_us);
        let pairs = quad.ours.into_iter().zip(quad.peer);
        pairs.map(|(ours, peer)| ours - peer).collect::<Vec<_>>()
    });
    samples.push(Samples::Alone(added.collect()));
    let quads = compare(lab, &file, FLUSHED)?;
    samples.push(paired(&quads));
    Ok(samples)
}

fn compare(lab: &mut Lab, file: &Path, load: Load) -> Result<Vec<QuadOf<Sample>>> {
    let pairs = lab.pairs.min(if lab.quick { 4 } else { 10 });
    lab.interleave(
        load.what,
        pairs,
        |lab| in_guest(lab, file, load),
        |_| fio(file, load),
    )
}

/// A file with no holes, in a place with a disk under it.
fn make_file(lab: &Lab) -> Result<PathBuf> {
    let path = lab.path("disk.img");
    let mut file = File::create(&path)?;
    let piece: Vec<u8> = (0..1u32 << 20).map(|i| (i >> 3) as u8).collect();
    for _ in 0..FILE_BYTES / piece.len() as u64 {
        file.write_all(&piece)?;
    }
    file.sync_all()?;
    Ok(path)
}

fn in_guest(lab: &Lab, file: &Path, load: Load) -> Result<Sample> {
    let mut args = vec!["--disk".to_owned(), "disk0".to_owned()];
    let mut option = |name: &str, value: u32| args.extend([name.to_owned(), value.to_string()]);
    option("--block", load.block);
    option("--depth", load.depth);
    option("--seconds", SECONDS);
    option("--think-us", load.think_us);
    if load.flush_every > 0 {
        option("--flush-every", load.flush_every);
    }
    args.push(if load.write { "--write" } else { "--read" }.to_owned());
    let order = if load.random {
        "--random"
    } else {
        "--sequential"
    };
    args.push(order.to_owned());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let disk = json!({ "path": file, "direct": true });
    let image = artifacts::image("blast");
    let spec = lab.spec_with("disk", image, &args, json!({ "disks": [disk] }))?;
    let (run, _) = lab.run_sliver(&spec)?;
    let report: Value = serde_json::from_slice(&run.stdout).context("blast's report")?;
    let number = |key: &str| {
        let value = report[key].as_f64();
        value.with_context(|| format!("{key} in {report}"))
    };
    let operations = number("requests")?;
    ensure!(operations > 0.0, "the guest did nothing");
    Ok(Sample {
        per_operation_us: number("seconds")? * 1e6 / operations,
        median_us: number("p50_us")?,
    })
}

fn fio(file: &Path, load: Load) -> Result<Sample> {
    let kind = if load.write { "write" } else { "read" };
    let order = if load.random { "rand" } else { "" };
    let output = Command::new("fio")
        .args([
            "--name=peer",
            "--direct=1",
            "--ioengine=io_uring",
            "--output-format=json",
        ])
        .arg(format!("--filename={}", file.display()))
        .arg(format!("--size={FILE_BYTES}"))
        .arg(format!("--rw={order}{kind}"))
        .arg(format!("--bs={}", load.block))
        .arg(format!("--iodepth={}", load.depth))
        .arg(format!("--thinktime={}", load.think_us))
        // Or else the rest would count as part of the request before it.
        .arg("--thinktime_blocks_type=complete")
        .arg(format!("--fdatasync={}", load.flush_every))
        .arg(format!("--runtime={SECONDS}"))
        .arg("--time_based")
        .output()
        .context("fio (resources/setup.sh benches installs it)")?;
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("fio's report: {}", said.trim())
    })?;
    let part = &report["jobs"][0][kind];
    let number = |value: &Value| value.as_f64().with_context(|| format!("fio said: {part}"));
    let operations = number(&part["total_ios"])?;
    ensure!(operations > 0.0, "fio did nothing");
    Ok(Sample {
        per_operation_us: number(&part["runtime"])? * 1e3 / operations,
        median_us: number(&part["clat_ns"]["percentile"]["50.000000"])? / 1e3,
    })
}

fn paired(quads: &[QuadOf<Sample>]) -> Samples {
    let values = quads.iter();
    Samples::Paired {
        values: values
            .map(|quad| quad.map(|sample| sample.per_operation_us))
            .collect(),
        cpu_ms: Vec::new(),
    }
}
