//! `slicectl limits`: what a running sliver is granted, told and changed.

use vmm::control::proto::Status;
use vmm::spec::{Bounds, Limits};

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
    tell(&in_force(status), args.json)
}

fn set(args: &LimitsSetArgs) -> Result<u8, Failure> {
    let mut problems = Vec::new();
    let change = quotas::read(&args.limits, &mut problems);
    if problems.is_empty() && change.is_empty() {
        let why = "nothing is to be changed";
        let mend =
            "add --cpu-cap 50, --net-max-rate 10mbit or another of --cpu-*, --net-*, --disk-*";
        problems.push(Problem::new(&args.name, why).mend(mend));
    }
    if !problems.is_empty() {
        return Err(Failure::new(USAGE, problems));
    }
    let mut client = find(&args.name)?;
    let status = ask(&args.name, &mut client, Client::status)?;
    let vcpus = status.vcpus;
    let before = in_force(status);
    // The monitor checks it, too, against its node; here the flags can be named.
    let bounds = Bounds {
        vcpus,
        processors: None,
        uplink: None,
    };
    if let Err(mistakes) = change.apply(&before, &bounds) {
        let problems = mistakes.iter().map(quotas::problem).collect();
        return Err(Failure::new(USAGE, problems));
    }
    let limits = ask(&args.name, &mut client, |client| client.set_limits(change))?;
    let monitor = client.process().and_then(|pid| u32::try_from(pid).ok());
    if let Some(pid) = monitor
        && let Err(problem) = backstop::adjust(pid, &limits.cpu, vcpus)
    {
        say(problem);
    }
    tell(&limits, args.json)
}

/// The limits that a status tells of.
fn in_force(status: Status) -> Limits {
    Limits {
        cpu: status.cpu.limits,
        net: status.net.map(|net| net.limits),
        disk: status.disk,
    }
}

fn tell(limits: &Limits, json: bool) -> Result<u8, Failure> {
    if json {
        print_json(limits)?;
    } else {
        let rows: Vec<_> = quotas::rows(limits)
            .into_iter()
            .map(|(name, value)| vec![name, value])
            .collect();
        print(columns(&rows))?;
    }
    Ok(0)
}
