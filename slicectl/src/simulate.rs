//! `slicectl simulate`: what the CPU scheduler makes of a workload, on a node that is only imagined.

use std::path::Path;

use serde::Serialize;
use vmm::nanos::Nanos;
use vmm::sched::sim::{GroupReport, MAX_SLIVERS, Report, Setup, Workload, simulate};

use crate::cli::SimulateArgs;
use crate::problem::{Failure, Problem, USAGE};
use crate::report::{print, print_json};
use crate::text::{columns, printable};

/// The largest file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// A built-in workload, as it is listed.
#[derive(Debug, Serialize)]
struct Listed {
    name: &'static str,
    about: String,
}

/// Runs the command; the exit code.
pub fn run(args: &SimulateArgs) -> Result<u8, Failure> {
    if args.list {
        list(args.json)?;
        return Ok(0);
    }
    let workload = workload(args)?;
    let setup = Setup {
        processors: args.cpus,
        seconds: args.seconds,
        seed: args.seed,
        kick: Nanos::from_micros(args.kick_us.into()),
    };
    let report = simulate(&workload, &setup);
    if args.json {
        print_json(&report)?;
    } else {
        print(table(&workload, &report))?;
    }
    Ok(0)
}

fn list(json: bool) -> Result<(), Problem> {
    let listed = Workload::list().map(|(name, about)| Listed { name, about });
    if json {
        return print_json(&listed.collect::<Vec<_>>());
    }
    let rows: Vec<_> = listed
        .map(|one| vec![one.name.to_owned(), one.about])
        .collect();
    print(columns(&rows))
}

fn workload(args: &SimulateArgs) -> Result<Workload, Failure> {
    let name = args.workload.as_deref().unwrap_or("steady");
    let mut workload = match Workload::built_in(name) {
        Some(built_in) => built_in,
        None => read(name)?,
    };
    if let Some(slivers) = args.slivers {
        workload = workload.with_slivers(slivers);
    }
    if let Some(period) = args.period {
        workload = workload.with_period(period).map_err(|error| {
            let problems = error.mistakes().iter();
            let problems = problems.map(|one| Problem::new("--period", &one.problem));
            Failure::new(USAGE, problems.collect())
        })?;
    }
    Ok(workload)
}

fn read(name: &str) -> Result<Workload, Failure> {
    let unusable = |why: String| {
        let problem = Problem::new(name, why)
            .mend("name a JSON file or one of those that slicectl simulate --list tells");
        Failure::new(USAGE, vec![problem])
    };
    let path = Path::new(name);
    let size = std::fs::metadata(path).map(|file| file.len());
    let size = size.map_err(|error| unusable(format!("is no workload, and no file: {error}")))?;
    if size > MAX_BYTES {
        return Err(unusable(format!("has more than {MAX_BYTES} bytes")));
    }
    let text = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    Workload::parse(&text).map_err(|error| {
        let problems = error.mistakes().iter();
        let problems =
            problems.map(|one| Problem::new(format!("{name}: {}", one.field), &one.problem));
        Failure::new(USAGE, problems.collect())
    })
}

fn table(workload: &Workload, report: &Report) -> String {
    let mut rows = vec![
        [
            "GROUP",
            "SLIVERS",
            "DUE %",
            "GOT %",
            "ERROR %",
            "WORST %",
            "THEFT %",
            "WAKE p50",
            "p99",
            "MAX us",
            "LONGEST WAIT ms",
            "THROTTLED %",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    rows.extend(report.groups.iter().map(row));
    let mut out = columns(&rows);
    if !workload.about.is_empty() {
        out.insert_str(0, &format!("{}\n\n", printable(&workload.about)));
    }
    out.push_str(&format!(
        "\n{} processors for {} s, seed {}: {} % used, {} % idle while somebody made room; each \
         second {} looks, {} times somebody made room.\n",
        report.processors,
        report.seconds,
        report.seed,
        report.used_pct,
        report.wasted_pct,
        report.looks_per_s,
        report.step_backs_per_s
    ));
    out
}

fn row(group: &GroupReport) -> Vec<String> {
    let told = |value: f64| format!("{value:.2}");
    let whole = |value: f64| format!("{value:.0}");
    let none = || "-".to_owned();
    let error = group.share_error_pct;
    let wake = group.latency_us;
    vec![
        printable(&group.name),
        group.slivers.to_string(),
        told(group.due_pct),
        told(group.service_pct),
        error.map_or_else(none, |error| told(error.mean)),
        error.map_or_else(none, |error| told(error.max)),
        told(group.theft_pct),
        wake.map_or_else(none, |wake| whole(wake.p50)),
        wake.map_or_else(none, |wake| whole(wake.p99)),
        wake.map_or_else(none, |wake| whole(wake.max)),
        told(group.longest_wait_ms),
        told(group.throttled_pct),
    ]
}

/// The most slivers that can be asked for.
pub const MOST_SLIVERS: i64 = MAX_SLIVERS as i64;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(line: &[&str]) -> SimulateArgs {
        let words = ["slicectl", "simulate"].iter().chain(line);
        match Cli::try_parse_from(words).map(|cli| cli.command) {
            Ok(Command::Simulate(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_same_seed_prints_the_same() {
        let printed = |seed: &str| {
            let args = args(&["theft-nap", "--seconds", "2", "--seed", seed]);
            let workload = workload(&args).unwrap_or_else(|failure| panic!("{failure:?}"));
            let setup = Setup {
                seconds: args.seconds,
                seed: args.seed,
                ..Setup::default()
            };
            table(&workload, &simulate(&workload, &setup))
        };
        assert_eq!(printed("4"), printed("4"));
        assert_ne!(printed("4"), printed("5"));
    }

    #[test]
    fn a_file_is_refused_with_all_that_is_wrong_with_it() {
        let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let path = dir.path().join("workload.json");
        let text = r#"{ "groups": [{ "name": "a", "count": 0, "behaviour": "idle" }] }"#;
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("{error}"));
        let path = path.to_string_lossy();
        let Err(failure) = workload(&args(&[&path])) else {
            panic!("it is wrong");
        };
        let told = failure.summary();
        assert_eq!(failure.status, USAGE);
        assert!(
            told.contains("groups[0].count") && told.contains("groups[0].behaviour"),
            "{told}"
        );
    }

    #[test]
    fn what_is_neither_a_workload_nor_a_file_is_told_what_there_is() {
        let Err(failure) = workload(&args(&["no-such-workload"])) else {
            panic!("there is none");
        };
        assert!(
            failure.summary().contains("--list"),
            "{}",
            failure.summary()
        );
    }
}
