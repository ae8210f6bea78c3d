//! What people run: boots, steers and inspects slivers, builds images, checks the host.
//!
//! `slicectl` knows nothing of how a sliver works: it starts the monitor, one process for each
//! sliver, speaks with it over sockets, and tells people what became of it.

pub mod audit;
pub mod backstop;
pub mod backtrace;
pub mod block;
pub mod build;
pub mod capture;
pub mod cargo;
pub mod cli;
pub mod client;
pub mod doctor;
pub mod events;
pub mod flows;
pub mod freshness;
pub mod gdb;
pub mod host;
pub mod images;
pub mod inspect;
pub mod kvm;
pub mod ledger;
pub mod limits;
pub mod manual;
pub mod network;
pub mod person;
pub mod problem;
pub mod quotas;
pub mod report;
pub mod run;
pub mod rundir;
pub mod signals;
pub mod simulate;
pub mod source_tree;
pub mod steer;
pub mod store;
pub mod text;
pub mod top;
pub mod traffic;
pub mod units;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use problem::{FAILED, Failure, Problem, USAGE};

/// The whole program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return wrong_usage(&error),
    };
    let done = match &cli.command {
        Command::Run(args) => Ok(run::run(args)),
        Command::Build(args) => build::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Ps(args) => steer::ps(args),
        Command::Status(args) => steer::status(args),
        Command::Pause(args) => steer::pause(args),
        Command::Resume(args) => steer::resume(args),
        Command::Stop(args) => steer::stop(args),
        Command::Balloon(args) => steer::balloon(args),
        Command::Limits(args) => limits::run(&args.command),
        Command::Traffic(args) => match traffic::run(args) {
            Ok(status) => Ok(status),
            Err(error) => return wrong_usage(&error),
        },
        Command::Top(args) => top::run(args),
        Command::Flows(args) => flows::run(args),
        Command::Block(args) => block::run(&args.command),
        Command::Events(args) => events::run(args),
        Command::Capture(args) => capture::run(args),
        Command::Ledger(args) => ledger::run(args),
        Command::Simulate(args) => simulate::run(args),
        Command::Completions(args) => manual::completions(args),
        Command::Man(args) => manual::man(args),
        Command::Symbolise(args) => Ok(if backtrace::look_up(args) { 0 } else { FAILED }),
    };
    ExitCode::from(done.unwrap_or_else(|failure| {
        let failure = failure.or_stopped();
        failure.report();
        failure.status
    }))
}

/// Help and version go to stdout; a wrong command line is told as clap tells it, and as a record
/// to those who asked `run` for one.
fn wrong_usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    let words: Vec<_> = std::env::args_os()
        .skip(1)
        .take_while(|word| word != "--")
        .collect();
    if words.first().is_some_and(|word| word == "run") && words.iter().any(|word| word == "--json")
    {
        // What is wrong comes first; then, after an empty line, how it is done.
        let text = error.to_string();
        let lines: Vec<_> = text.lines().take_while(|line| !line.is_empty()).collect();
        let why = lines.join(" ").replace("  ", "");
        let why = why.strip_prefix("error: ").unwrap_or(&why);
        run::print_failure(&Failure::new(USAGE, vec![Problem::new("usage", why)]));
    }
    ExitCode::from(USAGE)
}
