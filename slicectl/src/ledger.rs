//! `ledger`: the entries of the ledger through which slivers share the processors and their uplink,
//! and whether they tell the truth.
//!
//! A monitor writes its own entry, and could write what it likes. What it has used, the kernel
//! counts too: the audit compares both over an interval.

mod audit;
mod clock;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use serde::Serialize;
use vmm::nanos::Nanos;
use vmm::sched::ledger::{LedgerView, NetStatement, State, ViewError, ViewedEntry};
use vmm::spec::SliverName;

use crate::cli::LedgerArgs;
use crate::client::Client;
use crate::host;
use crate::problem::{FAILED, Failure, Problem, USAGE};
use crate::report::{print, print_json, say};
use crate::rundir;
use crate::text::{columns, printable};
use crate::units::{format_kbit, format_micros, parse_duration};

use self::audit::Sample;

pub use self::audit::Verdict;

/// For how long a good moment is waited for at both ends of the interval. Who runs is looked at by
/// its monitor every 50 ms.
const WINDOW: Duration = Duration::from_millis(120);

/// An entry and what is to be thought of it.
#[derive(Debug, Clone, Serialize)]
pub struct AuditedEntry {
    /// Its slot.
    pub slot: usize,
    /// The sliver, as it says.
    pub name: String,
    /// `live`, `stale`, `dead` or `nonsense`.
    pub state: &'static str,
    /// What else it says.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub said: Option<Told>,
    /// What it says of its traffic, if it shares an uplink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net: Option<NetTold>,
    /// Processor time that it says it used in the interval, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed_us: Option<u64>,
    /// Processor time that its process used in the interval, as the kernel counts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_us: Option<u64>,
    /// What the audit found.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What an entry says, for people and for JSON.
#[derive(Debug, Clone, Serialize)]
pub struct Told {
    /// Process id of the monitor.
    pub pid: u32,
    /// Weight.
    pub share: u32,
    /// Percent of the node that is reserved.
    pub reserve_pct: f64,
    /// Percent of one processor that it can use at most.
    pub ceiling_pct: f64,
    /// vCPUs that want to run.
    pub demand: u32,
    /// Whether it has stepped back for others.
    pub waiting: bool,
    /// Processor time used so far, in microseconds.
    pub service_us: u64,
    /// How far its virtual time is ahead of the least of those that want to run, in microseconds.
    pub ahead_us: i64,
    /// How long ago it was written, in microseconds.
    pub age_us: u64,
}

/// What an entry says of the uplink, for people and for JSON. Rates are in kbit/s.
#[derive(Debug, Clone, Serialize)]
pub struct NetTold {
    /// Stands for the interface: the same for all that share it.
    pub uplink: String,
    /// Weight.
    pub share: u32,
    /// What is reserved.
    pub min_rate: u32,
    /// The most that it can use.
    pub max_rate: u32,
    /// What it wanted when it last sent.
    pub demand: u32,
    /// Bytes that it has sent.
    pub tx_bytes: u64,
    /// How long ago it said so, in microseconds.
    pub age_us: u64,
}

impl NetTold {
    fn of(said: &NetStatement, now: Nanos) -> Self {
        Self {
            uplink: format!("{:016x}", said.uplink.number()),
            share: said.claim.share,
            min_rate: said.claim.min.0,
            max_rate: said.claim.max.0,
            demand: said.demand.0,
            tx_bytes: said.tx_bytes,
            age_us: (now - said.updated).micros(),
        }
    }
}

/// Lists and audits the entries.
pub fn run(args: &LedgerArgs) -> Result<u8, Failure> {
    let interval = parse_duration(&args.interval)
        .map_err(|why| Failure::new(USAGE, vec![Problem::new("--interval", why)]))?;
    let root = rundir::root();
    let Some(path) = args.ledger.clone().or_else(|| rundir::ledger_path(&root)) else {
        let what = format!("run directory {}", root.display());
        let why = "is on a disk, so its slivers share no ledger unless one is named";
        let mend = "name theirs with --ledger FILE";
        return Err(Problem::new(what, why).mend(mend).into());
    };
    let found = match LedgerView::open(&path) {
        Ok(view) => audit(&view, &root, interval),
        Err(error) if args.ledger.is_none() && is_missing(&error) => Vec::new(),
        Err(error) => return Err(failed(&path, &error).into()),
    };
    if args.json {
        print_json(&found)?;
    } else if found.is_empty() {
        say(format_args!("nobody is in the ledger {}", path.display()));
    } else {
        print(table(&found))?;
    }
    let mut lies = false;
    for entry in &found {
        if let Verdict::Lies { why } = &entry.verdict {
            let what = format!("slot {}, sliver {}", entry.slot, entry.name);
            say(Problem::new(what, why));
            lies = true;
        }
    }
    Ok(if lies { FAILED } else { 0 })
}

/// Looks at all entries of a ledger at both ends of an interval. The slivers' control sockets are
/// looked for in `root`.
pub fn audit(view: &LedgerView, root: &Path, interval: Duration) -> Vec<AuditedEntry> {
    let begin = samples(view);
    sleep(interval);
    let end = samples(view);
    let now = clock::now();
    let entries = view.entries(now);
    let mut holders: BTreeMap<u32, usize> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.state != State::Dead) {
        let said = entry.said.iter();
        said.for_each(|said| *holders.entry(said.pid).or_default() += 1);
    }
    let behind = audit::least_vtime(&entries);
    let audited = |entry: &ViewedEntry| {
        let samples = (begin.get(&entry.slot), end.get(&entry.slot));
        let spent = match samples {
            (Some(begin), Some(end)) if begin.said.pid == end.said.pid => {
                Some(audit::spent(begin, end))
            }
            _ => None,
        };
        let verdict = match (entry.state, entry.said) {
            (State::Dead, _) => Verdict::Dead,
            (_, None) => Verdict::lies("its entry makes no sense"),
            (_, Some(said)) if holders[&said.pid] > 1 => {
                Verdict::lies(format!("process {} is in another slot, too", said.pid))
            }
            (_, Some(said)) => match control_process(root, &entry.name) {
                Some(pid) if pid != said.pid => Verdict::lies(format!(
                    "it says it is process {}, but the sliver's control socket is of process {pid}",
                    said.pid
                )),
                _ => audit::judge(samples.0, samples.1, host::processors()),
            },
        };
        AuditedEntry {
            slot: entry.slot,
            name: entry.name.clone(),
            state: match entry.state {
                State::Live => "live",
                State::Stale => "stale",
                State::Dead => "dead",
                State::Nonsense => "nonsense",
            },
            said: entry
                .said
                .map(|said| audit::told(&said, now, behind, host::processors())),
            net: entry.net.map(|said| NetTold::of(&said, now)),
            claimed_us: spent.map(|spent| spent.claimed.micros()),
            used_us: spent.map(|spent| spent.used.micros()),
            verdict,
        }
    };
    entries.iter().map(audited).collect()
}

/// For each slot the sample that was taken soonest after its owner wrote it.
fn samples(view: &LedgerView) -> BTreeMap<usize, Sample> {
    let mut best: BTreeMap<usize, Sample> = BTreeMap::new();
    let begin = clock::now();
    let slots: Vec<usize> = view.entries(begin).iter().map(|entry| entry.slot).collect();
    let window = Nanos(WINDOW.as_nanos() as u64);
    loop {
        for &slot in &slots {
            let Some(said) = view.said(slot) else {
                continue;
            };
            let sample = Sample {
                at: clock::now(),
                used: clock::process_time(said.pid),
                said,
            };
            best.entry(slot)
                .and_modify(|best| {
                    if sample.lag() < best.lag() {
                        *best = sample;
                    }
                })
                .or_insert(sample);
        }
        if clock::now() >= begin + window {
            return best;
        }
        sleep(Duration::from_millis(1));
    }
}

/// The process that has the control socket of the sliver called `name`.
fn control_process(root: &Path, name: &str) -> Option<u32> {
    SliverName::parse(name).ok()?;
    let client = Client::connect(&rundir::socket_path(root, name)).ok()?;
    client.process()?.try_into().ok()
}

fn table(entries: &[AuditedEntry]) -> String {
    let titles = [
        "SLOT",
        "NAME",
        "PID",
        "STATE",
        "SHARE",
        "RESERVE",
        "CEILING",
        "WANTS",
        "SERVICE",
        "AHEAD",
        "CLAIMED",
        "USED",
        "NET",
        "NET-MIN",
        "NET-MAX",
        "NET-WANTS",
        "AUDIT",
    ];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    let micros = |micros: Option<u64>| micros.map_or("-".to_owned(), format_micros);
    for entry in entries {
        let said = |show: fn(&Told) -> String| entry.said.as_ref().map_or("-".to_owned(), show);
        let net = |show: fn(&NetTold) -> String| entry.net.as_ref().map_or("-".to_owned(), show);
        rows.push(vec![
            entry.slot.to_string(),
            printable(&entry.name),
            said(|told| told.pid.to_string()),
            entry.state.to_owned(),
            said(|told| told.share.to_string()),
            said(|told| format!("{:.1}%", told.reserve_pct)),
            said(|told| format!("{:.1}%", told.ceiling_pct)),
            said(|told| match told.waiting {
                true => format!("{}, waits", told.demand),
                false => told.demand.to_string(),
            }),
            said(|told| format_micros(told.service_us)),
            said(|told| match told.ahead_us {
                behind @ ..0 => format!("-{}", format_micros(behind.unsigned_abs())),
                ahead => format_micros(ahead as u64),
            }),
            micros(entry.claimed_us),
            micros(entry.used_us),
            net(|told| told.share.to_string()),
            net(|told| format_kbit(told.min_rate.into())),
            net(|told| format_kbit(told.max_rate.into())),
            net(|told| format_kbit(told.demand.into())),
            entry.verdict.word().to_owned(),
        ]);
    }
    columns(&rows)
}

fn is_missing(error: &ViewError) -> bool {
    matches!(error, ViewError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

fn failed(path: &Path, error: &ViewError) -> Problem {
    let what = format!("ledger {}", path.display());
    match error {
        ViewError::Read { source, .. } => Problem::new(what, format!("cannot be read: {source}")),
        ViewError::Corrupt { flaw, .. } => Problem::new(what, format!("is none: {flaw}"))
            .mend("the next sliver that starts replaces it"),
    }
}
