//! The lab: a host with complete virtualisation, assembled from Debian packages, and cases that run
//! on it.
//!
//! Where this host has VMX or SVM, cases run on it directly. Everywhere else the host is emulated:
//! QEMU's TCG is a processor with SVM and nested paging, Debian's cloud kernel with `kvm-amd` runs
//! on it, and in that the monitor and its guests. Nothing of it needs root or this host's
//! `/dev/kvm`.
//!
//! Out here, [`assembly`] makes the files, [`machine`] runs a case in the emulated host, and
//! [`report`] tells how it went. In there, [`inside`] makes a host of a bare kernel and runs the
//! case, one of [`cases`], which boots [`guest`]s. They talk in [`message`]s.

pub mod assembly;
pub mod cases;
pub mod cpio;
pub mod guest;
pub mod inside;
pub mod machine;
pub mod message;
pub mod modules;
pub mod packages;
pub mod part;
pub mod report;
pub mod vmlinux;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use slicectl::doctor::facts::{self, Processor};
use tempfile::TempDir;

use assembly::Assembly;
use cases::Case;
use machine::Host;
use message::Figures;

/// The lab, assembled as far as all cases need it.
#[derive(Debug)]
pub struct Lab {
    assembly: Assembly,
    host: Host,
    keep: bool,
}

/// How a case went.
#[derive(Debug)]
pub struct Outcome {
    /// The case's name.
    pub case: &'static str,
    /// From the start of its host to the end of that.
    pub took: Duration,
    /// What it measured, or what went wrong.
    pub result: Result<Figures, Failure>,
    /// Where its files are, if they were to be kept, and the command that runs it again.
    pub kept: Option<(PathBuf, String)>,
}

/// What went wrong in a case.
#[derive(Debug)]
pub struct Failure {
    /// Why it failed.
    pub reason: String,
    /// What the guests and their monitors printed.
    pub guests: String,
    /// What the emulated host printed.
    pub host: String,
}

impl Lab {
    /// Assembles what these cases need. With `keep`, the files of each case stay.
    pub fn assemble(cases: &[&'static Case], keep: bool) -> Result<Self> {
        let facts = facts::gather();
        let host = match (facts.kvm, facts.processor) {
            (Ok(_), Processor::Vmx | Processor::Svm) => Host::This,
            _ => Host::Emulated {
                tsc_khz: machine::tsc_khz(),
            },
        };
        Ok(Self {
            assembly: Assembly::new(cases.iter().flat_map(|case| case.parts).copied())?,
            host,
            keep,
        })
    }

    /// Where cases run.
    pub fn host(&self) -> Host {
        self.host
    }

    /// Runs a case.
    pub fn run(&self, case: &'static Case) -> Result<Outcome> {
        let place = self.place(case)?;
        let began = Instant::now();
        let run = machine::run(self.host, &self.assembly, case, place.path())?;
        Ok(Outcome {
            case: case.name,
            took: began.elapsed(),
            result: run.result,
            kept: self.keep.then(|| (place.keep(), run.command)),
        })
    }

    fn place(&self, case: &Case) -> Result<TempDir> {
        let runs = self.assembly.directory().join("runs");
        fs::create_dir_all(&runs)?;
        let prefix = format!("{}-", case.name);
        let place = tempfile::Builder::new().prefix(&prefix).tempdir_in(&runs);
        place.with_context(|| format!("{}", runs.display()))
    }
}
