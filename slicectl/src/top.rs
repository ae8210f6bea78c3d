//! `slicectl top`: what the slivers of this host use, as a table that follows them.
//!
//! Slivers are asked at the same time and with little patience: one that hangs is shown as silent
//! and holds nobody up. On a terminal the table stays in place and is sorted by keys; into a pipe it
//! is printed anew each time, without a character that a file should not hold.

mod row;
mod sample;
mod screen;
mod table;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;
use vmm::spec::SliverName;

use crate::cli::TopArgs;
use crate::host;
use crate::problem::{FAILED, Failure, Problem, USAGE};
use crate::report::{print_json, say};
use crate::rundir;
use crate::units::parse_duration;

use row::Row;
use sample::Sample;

/// Shorter intervals would show more of `top` than of the slivers.
const SHORTEST: Duration = Duration::from_millis(100);

/// Without a terminal that says, nothing is cut.
const NO_WIDTH: usize = usize::MAX;

/// Whose figures are wanted.
#[derive(Debug, Clone)]
struct Wanted {
    root: PathBuf,
    /// Empty for all.
    names: Vec<String>,
}

/// What is known after an interval.
#[derive(Debug, Serialize)]
struct View {
    interval_ms: u64,
    /// Of this host, for slivers.
    processors: u32,
    slivers: Vec<Row>,
}

/// Runs the command; the exit code.
pub fn run(args: &TopArgs) -> Result<u8, Failure> {
    let interval = check(args)?;
    let mut wanted = Wanted {
        root: rundir::root(),
        names: args.names.clone(),
    };
    wanted.names.dedup();
    let stdout = io::stdout();
    if stdout.is_terminal() && !args.once && !args.json {
        return screen::show(wanted, interval, args.sort);
    }
    let mut watched = Watched::new(wanted);
    watched.look()?;
    loop {
        std::thread::sleep(interval);
        let mut view = watched.look()?;
        row::sort(&mut view.slivers, args.sort, false);
        if args.once {
            return tell_once(args, &view);
        }
        let text = match args.json {
            true => {
                let json = serde_json::to_string(&view);
                json.map_err(|error| Problem::new("JSON", error.to_string()))? + "\n"
            }
            false => table::text(&view, args.sort, NO_WIDTH) + "\n",
        };
        let mut out = stdout.lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => {}
            // A reader that has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(0),
            Err(error) => {
                let why = format!("cannot be written: {error}");
                return Err(Problem::new("stdout", why).into());
            }
        }
    }
}

fn check(args: &TopArgs) -> Result<Duration, Failure> {
    let mut problems: Vec<Problem> = args
        .names
        .iter()
        .filter_map(|name| SliverName::parse(name).err())
        .map(|why| Problem::new("NAME", why))
        .collect();
    let interval = match parse_duration(&args.interval) {
        Ok(interval) if interval < SHORTEST => Err("is too short, 100ms is the least".to_owned()),
        other => other,
    };
    match interval {
        Ok(interval) if problems.is_empty() => return Ok(interval),
        Ok(_) => {}
        Err(why) => problems.push(Problem::new("--interval", why)),
    }
    Err(Failure::new(USAGE, problems))
}

fn tell_once(args: &TopArgs, view: &View) -> Result<u8, Failure> {
    match args.json {
        true => print_json(view)?,
        false => {
            let width = match io::stdout().is_terminal() {
                true => screen::size().0,
                false => NO_WIDTH,
            };
            crate::report::print(table::text(view, args.sort, width))?;
        }
    }
    let mut missing = args.names.clone();
    missing.retain(|name| view.slivers.iter().all(|row| row.name != *name));
    for name in &missing {
        say(Problem::new(name, "no such sliver runs"));
    }
    let silent = view.slivers.iter().any(Row::is_silent);
    Ok(if silent || !missing.is_empty() {
        FAILED
    } else {
        0
    })
}

/// The slivers, as they were last seen.
#[derive(Debug)]
struct Watched {
    wanted: Wanted,
    last: Vec<Sample>,
    at: Instant,
}

impl Watched {
    fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            last: Vec::new(),
            at: Instant::now(),
        }
    }

    /// Asks all of them; what has come of them since the last time.
    fn look(&mut self) -> Result<View, Problem> {
        let mut names = rundir::slivers(&self.wanted.root).map_err(|error| {
            let what = format!("run directory {}", self.wanted.root.display());
            Problem::new(what, error.to_string())
        })?;
        let only = &self.wanted.names;
        names.retain(|name| only.is_empty() || only.contains(name));
        let now = Instant::now();
        let samples = sample::ask_all(&self.wanted.root, &names);
        let before = |name: &str| self.last.iter().find(|sample| sample.name == name);
        let slivers = samples
            .iter()
            .map(|sample| Row::new(sample, before(&sample.name)))
            .collect();
        let view = View {
            interval_ms: (now - self.at).as_millis() as u64,
            processors: host::processors(),
            slivers,
        };
        self.last = samples;
        self.at = now;
        Ok(view)
    }
}
