//! `slicectl block`: prefixes that nobody may send to, on all running slivers at once.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use vmm::control::proto::Op;
use vmm::net::prefix::Prefix;

use crate::audit;
use crate::audit::time::{format_moment, parse_future};
use crate::cli::{AuditArgs, BlockAddArgs, BlockCommand, BlockRmArgs};
use crate::client::{Client, ClientError};
use crate::person;
use crate::problem::{FAILED, Failure, Problem, USAGE};
use crate::report::{print, print_json, say};
use crate::rundir;
use crate::steer::gone;
use crate::store::{Block, Store, now_ms};
use crate::text::{columns, printable};

/// How long a monitor may take: a block is to hold within a second.
const PATIENCE: Duration = Duration::from_millis(500);

/// Slivers that are told at the same time.
const AT_ONCE: usize = 32;

/// Runs the command; the exit code.
pub fn run(command: &BlockCommand) -> Result<u8, Failure> {
    match command {
        BlockCommand::Add(args) => add(args),
        BlockCommand::Rm(args) => remove(args),
        BlockCommand::Ls(args) => list(args),
    }
}

/// What became of telling the slivers.
#[derive(Debug, Default, Serialize)]
struct Told {
    /// Those that have taken it.
    slivers: Vec<String>,
    /// Those that have not, and why.
    failed: Vec<(String, String)>,
}

fn add(args: &BlockAddArgs) -> Result<u8, Failure> {
    let now = now_ms();
    let (prefix, mut problems) = prefix(&args.prefix);
    let until = args.until.as_deref().map(|text| parse_future(text, now));
    let until_ms = until.transpose().unwrap_or_else(|why| {
        problems.push(Problem::new("--until", why));
        None
    });
    let Some(prefix) = prefix.filter(|_| problems.is_empty()) else {
        return Err(Failure::new(USAGE, problems));
    };
    let mut store = audit::create(args.audit.audit.as_deref()).map_err(Problem::from)?;
    let block = Block {
        prefix,
        slice: args.slice.clone(),
        reason: args.reason.clone(),
        by: person::user_name(),
        since_ms: now,
        until_ms,
    };
    store.add_block(&block).map_err(Problem::from)?;
    let whose = whose(&block.slice);
    store
        .note(
            "block",
            &format!("{prefix}{whose} by {}: {}", block.by, block.reason),
        )
        .map_err(Problem::from)?;
    let told = tell(&store, &rundir::root(), args.slice.as_deref())?;
    report(
        &told,
        &format!("{prefix} is blocked{whose}"),
        args.audit.json,
    )
}

fn remove(args: &BlockRmArgs) -> Result<u8, Failure> {
    let (prefix, problems) = prefix(&args.prefix);
    let Some(prefix) = prefix else {
        return Err(Failure::new(USAGE, problems));
    };
    let mut store = audit::open(args.audit.audit.as_deref()).map_err(Problem::from)?;
    let removed = store.remove_block(prefix, args.slice.as_deref());
    let whose = whose(&args.slice);
    if !removed.map_err(Problem::from)? {
        let problem = Problem::new(prefix.to_string(), format!("is not blocked{whose}"));
        return Err(problem.mend("slicectl block ls tells what is").into());
    }
    let by = person::user_name();
    store
        .note("unblock", &format!("{prefix}{whose} by {by}"))
        .map_err(Problem::from)?;
    let told = tell(&store, &rundir::root(), args.slice.as_deref())?;
    report(
        &told,
        &format!("{prefix} is no longer blocked{whose}"),
        args.audit.json,
    )
}

fn list(args: &AuditArgs) -> Result<u8, Failure> {
    let store = audit::create(args.audit.as_deref()).map_err(Problem::from)?;
    let blocks = store.blocks(now_ms()).map_err(Problem::from)?;
    if args.json {
        print_json(&blocks)?;
    } else {
        print(table(&blocks))?;
    }
    Ok(0)
}

fn prefix(text: &str) -> (Option<Prefix>, Vec<Problem>) {
    match text.parse() {
        Ok(prefix) => (Some(prefix), Vec::new()),
        Err(error) => (
            None,
            vec![Problem::new("PREFIX", format!("{text:?} {error}"))],
        ),
    }
}

fn whose(slice: &Option<String>) -> String {
    match slice {
        Some(slice) => format!(" for {slice}"),
        None => String::new(),
    }
}

/// Tells all running slivers, or those of a slice, what is blocked for them now.
fn tell(store: &Store, root: &Path, slice: Option<&str>) -> Result<Told, Failure> {
    let names = rundir::slivers(root).map_err(|error| {
        let what = format!("run directory {}", root.display());
        Problem::new(what, error.to_string())
    })?;
    let blocks = store.blocks(now_ms()).map_err(Problem::from)?;
    let mut told = Told::default();
    for some in names.chunks(AT_ONCE) {
        let answers: Vec<_> = std::thread::scope(|scope| {
            let asked: Vec<_> = some
                .iter()
                .map(|name| {
                    scope.spawn(|| tell_one(&rundir::socket_path(root, name), &blocks, slice))
                })
                .collect();
            asked.into_iter().map(|thread| thread.join()).collect()
        });
        for (name, answer) in some.iter().zip(answers) {
            match answer {
                Ok(Ok(true)) => told.slivers.push(name.clone()),
                Ok(Ok(false)) => {}
                Ok(Err(error)) => told.failed.push((name.clone(), error.to_string())),
                Err(_) => told
                    .failed
                    .push((name.clone(), "cannot be asked".to_owned())),
            }
        }
    }
    Ok(told)
}

/// Tells one; whether it is one of those that are meant, and has a network card.
fn tell_one(socket: &Path, blocks: &[Block], slice: Option<&str>) -> Result<bool, ClientError> {
    let mut client = match Client::connect_with_patience(socket, PATIENCE) {
        Err(ClientError::Io(error)) if gone(&error) => return Ok(false),
        other => other?,
    };
    let status = client.status()?;
    if status.net.is_none() || slice.is_some_and(|slice| slice != status.slice) {
        return Ok(false);
    }
    let of_it = |block: &&Block| block.slice.as_ref().is_none_or(|one| *one == status.slice);
    let prefixes = blocks.iter().filter(of_it);
    let prefixes = prefixes.map(|block| block.prefix.to_string()).collect();
    match client.order(Op::SetBlocks { prefixes }) {
        // It has just ended: it sends nothing any more.
        Err(ClientError::Closed) => Ok(false),
        other => other.map(|()| true),
    }
}

fn report(told: &Told, what: &str, json: bool) -> Result<u8, Failure> {
    if json {
        print_json(told)?;
    } else {
        let count = told.slivers.len();
        let have = match count {
            1 => "sliver has",
            _ => "slivers have",
        };
        print(format_args!("{what}; {count} running {have} taken it\n"))?;
    }
    for (name, why) in &told.failed {
        say(Problem::new(name, why).mend("its slicectl run tries again each second"));
    }
    Ok(if told.failed.is_empty() { 0 } else { FAILED })
}

fn table(blocks: &[Block]) -> String {
    let head = ["PREFIX", "SLICE", "SINCE (UTC)", "UNTIL", "BY", "REASON"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(blocks.iter().map(|block| {
        vec![
            block.prefix.to_string(),
            printable(block.slice.as_deref().unwrap_or("all")),
            format_moment(block.since_ms),
            block.until_ms.map_or("for ever".to_owned(), format_moment),
            printable(&block.by),
            printable(&block.reason),
        ]
    }));
    columns(&rows)
}
