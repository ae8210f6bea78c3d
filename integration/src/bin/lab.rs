//! Runs cases with Linux guests on a host with complete virtualisation, which is emulated where
//! this one is none: see [`integration::lab`].
//!
//! A line per case goes to standard output, progress to standard error. It ends with status 1 if
//! a case failed.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result};
use clap::Parser;
use integration::lab::Lab;
use integration::lab::cases::{self, CASES, Case};
use integration::lab::machine::Host;
use slicectl::signals::{self, EndSignals};

/// Runs cases with Linux guests on a host with complete virtualisation.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  cargo run -p integration --bin lab -- --list
  cargo run -p integration --bin lab -- bzimage poweroff
  cargo run -p integration --bin lab -- --keep network")]
struct Options {
    /// List the cases and run none.
    #[arg(long)]
    list: bool,
    /// Keep the files of each case, and tell how to run it by hand.
    #[arg(long)]
    keep: bool,
    /// Print a line of JSON per case.
    #[arg(long)]
    json: bool,
    /// Run N cases at once [default: one per two processors].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: Option<u8>,
    /// What to run: all that are usual, if none is named.
    #[arg(value_name = "CASE")]
    cases: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    if options.list {
        for case in CASES {
            println!("{:<14} {}", case.name, case.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = wanted(&options.cases)?;
    let _signals = EndSignals::catch()?;
    let lab = Lab::assemble(&wanted, options.keep)?;
    if let Host::Emulated { .. } = lab.host() {
        eprintln!("this host has neither VMX nor SVM: its cases run in an emulated one");
    }
    let jobs = options.jobs.map_or_else(
        || thread::available_parallelism().map_or(1, |n| n.get().div_ceil(2)),
        usize::from,
    );
    let failed = run(&lab, &wanted, jobs, options.json)?;
    Ok(if failed > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn wanted(names: &[String]) -> Result<Vec<&'static Case>> {
    if names.is_empty() {
        let usual = CASES.iter().filter(|case| case.usual);
        return Ok(usual.collect());
    }
    let find = |name: &String| {
        let case = cases::find(name);
        case.with_context(|| format!("no case is called {name:?}; see --list"))
    };
    names.iter().map(find).collect()
}

/// Runs all, `jobs` at a time; how many failed.
fn run(lab: &Lab, wanted: &[&'static Case], jobs: usize, json: bool) -> Result<usize> {
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let broken = Mutex::new(None);
    let work = || {
        while signals::arrived().is_none() {
            let Some(case) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) else {
                return;
            };
            eprintln!("{}: {}", case.name, case.about);
            match lab.run(case) {
                Ok(outcome) => {
                    failed.fetch_add(usize::from(outcome.result.is_err()), Ordering::Relaxed);
                    match json {
                        true => println!("{}", outcome.json()),
                        false => print!("{}", outcome.text()),
                    }
                }
                Err(error) => {
                    let mut broken = broken.lock().expect("no worker panics");
                    broken.get_or_insert(error.context(case.name));
                    return;
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs.min(wanted.len()) {
            scope.spawn(work);
        }
    });
    if let Some(error) = broken.into_inner().expect("no worker panics") {
        return Err(error);
    }
    if let Some(signal) = signals::arrived() {
        anyhow::bail!("ended by {}", signals::signal_name(signal));
    }
    Ok(failed.into_inner())
}
