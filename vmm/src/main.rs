//! `slicevmm`: the monitor of one sliver. People run `slicectl`, which runs this.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::prelude::*;
use vmm::control::proto::tell_ended;
use vmm::devices::assemble::Outside;
use vmm::exit::{ExitKind, ExitRecord};
use vmm::inherited;
use vmm::resident;
use vmm::say::{say, shown_path};
use vmm::sliver::{self, Resources};
use vmm::spec::{MAX_SPEC_BYTES, SliverSpec};
use vmm::stopwatch::Stopwatch;

const HELP: &str = "\
Runs one sliver, until it ends.

Usage: slicevmm --spec FILE --run-dir DIR [OPTIONS]

  --spec FILE        what the sliver is made of (JSON; /dev/fd/N for a descriptor)
  --run-dir DIR      directory of all slivers; this one gets DIR/NAME with its control socket
  --tie FD           inherited socket of who runs it in the foreground: its end ends the sliver
  --core-fd FD       inherited file for a core, should the sliver fault
  --ledger FILE      shares the processors with the slivers of this ledger, by their quotas
  --net-fd N=FD      inherited tap of network card N of the spec, if the spec does not name one
  --spawned-at NS    CLOCK_MONOTONIC when the parent began, for the timing in the exit record
  --help, --version

The guest's console is this process's standard output, and its standard input if the spec says
so. The exit code is the guest's status,
139 after a fault, 143 if stopped, 124 if its time was up, 125 for errors of the monitor and
2 for a wrong command line.
";

/// Exit code for a wrong command line.
const USAGE: u8 = 2;

struct Options {
    spec: PathBuf,
    run_dir: PathBuf,
    tie: Option<OwnedFd>,
    core: Option<OwnedFd>,
    taps: BTreeMap<usize, OwnedFd>,
    spawned_at: Option<u64>,
    ledger: Option<PathBuf>,
}

enum Command {
    Run(Options),
    Print(String),
}

fn main() -> ExitCode {
    let options = match parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(options)) => options,
        Ok(Command::Print(text)) => {
            // A reader that has enough, such as `head`, is no mistake.
            let _ = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            say(&format!("{error}; see slicevmm --help"));
            return ExitCode::from(USAGE);
        }
    };
    let watch = Stopwatch::start(options.spawned_at);
    resident::use_one_arena();
    let tie = options.tie.map(UnixStream::from);
    let spec = read_spec(&options.spec);
    inherited::close_others();
    let record = match spec {
        Ok(spec) => match io::stdout().as_fd().try_clone_to_owned() {
            Ok(console) => {
                let resources = Resources {
                    run_dir: options.run_dir,
                    tie,
                    core: options.core.map(File::from),
                    outside: Outside {
                        console: console.into(),
                        input: io::stdin()
                            .as_fd()
                            .try_clone_to_owned()
                            .ok()
                            .map(File::from),
                        taps: options.taps,
                    },
                    ledger: options.ledger,
                };
                sliver::run(&spec, resources, watch)
            }
            Err(error) => refuse(tie, format!("cannot use standard output: {error}")),
        },
        Err(problem) => refuse(tie, problem),
    };
    if record.exit.kind == ExitKind::Error {
        say(&record.exit.detail.message);
    }
    ExitCode::from(record.exit.status)
}

/// The record of a sliver whose spec could not even be read, told to whoever waits for it.
fn refuse(tie: Option<UnixStream>, problem: String) -> ExitRecord {
    let record = ExitRecord::of_error("", "", problem);
    tell_ended(tie.as_ref(), &record);
    record
}

fn read_spec(path: &Path) -> Result<SliverSpec, String> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_SPEC_BYTES as u64 + 1).read_to_end(&mut text))
        .map_err(|error| format!("cannot read spec {}: {error}", shown_path(path)))?;
    SliverSpec::parse(&text).map_err(|error| format!("{}: {error}", shown_path(path)))
}

fn parse(args: impl Iterator<Item = OsString>) -> Result<Command, lexopt::Error> {
    let mut parser = lexopt::Parser::from_args(args);
    let (mut spec, mut run_dir, mut tie, mut core, mut spawned_at) = (None, None, None, None, None);
    let mut taps = BTreeMap::new();
    let mut ledger = None;
    while let Some(arg) = parser.next()? {
        match arg {
            Long("spec") => spec = Some(PathBuf::from(parser.value()?)),
            Long("run-dir") => run_dir = Some(PathBuf::from(parser.value()?)),
            Long("tie") => tie = Some(take_descriptor("--tie", &parser.value()?)?),
            Long("core-fd") => core = Some(take_descriptor("--core-fd", &parser.value()?)?),
            Long("net-fd") => {
                let (card, tap) = take_tap(&parser.value()?)?;
                if taps.insert(card, tap).is_some() {
                    return Err(format!("--net-fd: card {card} is given twice").into());
                }
            }
            Long("ledger") => ledger = Some(PathBuf::from(parser.value()?)),
            Long("spawned-at") => spawned_at = Some(parser.value()?.parse()?),
            Long("help") | Short('h') => return Ok(Command::Print(HELP.to_owned())),
            Long("version") => {
                return Ok(Command::Print(format!(
                    "slicevmm {}\n",
                    env!("CARGO_PKG_VERSION")
                )));
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(Command::Run(Options {
        spec: spec.ok_or("--spec is missing")?,
        run_dir: run_dir.ok_or("--run-dir is missing")?,
        tie,
        core,
        taps,
        spawned_at,
        ledger,
    }))
}

fn take_tap(value: &OsString) -> Result<(usize, OwnedFd), lexopt::Error> {
    let parts = value.to_str().and_then(|text| text.split_once('='));
    let parts = parts.and_then(|(card, fd)| Some((card.parse().ok()?, OsString::from(fd))));
    let Some((card, fd)) = parts else {
        return Err(format!("--net-fd: {value:?} is not CARD=DESCRIPTOR").into());
    };
    Ok((card, take_descriptor("--net-fd", &fd)?))
}

fn take_descriptor(option: &str, value: &OsString) -> Result<OwnedFd, lexopt::Error> {
    let number = value.to_str().and_then(|text| text.parse().ok());
    let number = number.ok_or_else(|| format!("{option}: {value:?} is not a descriptor"))?;
    inherited::take(number).map_err(|problem| format!("{option}: {problem}").into())
}
