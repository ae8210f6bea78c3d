//! `slicectl limits`: the quotas of a running sliver, told and changed.

use vmm::spec::CpuLimits;

use crate::backstop;
use crate::cli::{LimitsCommand, LimitsSetArgs, StatusArgs};
use crate::client::Client;
use crate::problem::{Failure, Problem, USAGE};
use crate::quotas;
use crate::report::{print, print_json, say};
use crate::steer::{ask, find};
use crate::text::columns;

/// Runs the command; the exit code.
pub fn run(command: &LimitsCommand) -> Result<u8, Failure> {
    match command {
        LimitsCommand::Get(args) => get(args),
        LimitsCommand::Set(args) => set(args),
    }
}

fn get(args: &StatusArgs) -> Result<u8, Failure> {
    let status = ask(&args.name, &mut find(&args.name)?, Client::status)?;
    tell(&status.cpu.limits, args.json)
}

fn set(args: &LimitsSetArgs) -> Result<u8, Failure> {
    let mut problems = Vec::new();
    let change = quotas::read(&args.cpu, &mut problems);
    if problems.is_empty() && change.is_empty() {
        let why = "nothing is to be changed";
        problems.push(Problem::new(&args.name, why).mend("add --cpu-cap 50 or another of --cpu-*"));
    }
    if !problems.is_empty() {
        return Err(Failure::new(USAGE, problems));
    }
    let mut client = find(&args.name)?;
    let status = ask(&args.name, &mut client, Client::status)?;
    // The monitor checks it, too; here the flags can be named.
    if let Err(mistakes) = change.apply(&status.cpu.limits, status.vcpus) {
        let problems = mistakes.iter().map(quotas::problem).collect();
        return Err(Failure::new(USAGE, problems));
    }
    let limits = ask(&args.name, &mut client, |client| client.set_limits(change))?;
    let monitor = client.process().and_then(|pid| u32::try_from(pid).ok());
    if let Some(pid) = monitor
        && let Err(problem) = backstop::adjust(pid, &limits, status.vcpus)
    {
        say(problem);
    }
    tell(&limits, args.json)
}

fn tell(limits: &CpuLimits, json: bool) -> Result<u8, Failure> {
    if json {
        print_json(limits)?;
    } else {
        let rows = quotas::rows(limits).map(|(name, value)| vec![name.to_owned(), value]);
        print(columns(&rows))?;
    }
    Ok(0)
}
