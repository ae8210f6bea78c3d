//! `slicectl events`: what happened to slivers, and to the audit.

use std::time::Duration;

use crate::audit;
use crate::audit::time::{format_moment, parse_past};
use crate::cli::EventsArgs;
use crate::problem::{Failure, Problem, USAGE};
use crate::report::{print, print_json};
use crate::store::{StoredEvent, WantedEvents, now_ms};
use crate::text::{columns, printable};

/// How often the audit is looked at for more.
const INTERVAL: Duration = Duration::from_millis(250);

/// Runs the command; the exit code.
pub fn run(args: &EventsArgs) -> Result<u8, Failure> {
    let since = args.since.as_deref().map(|text| parse_past(text, now_ms()));
    let from_ms = since
        .transpose()
        .map_err(|why| Failure::new(USAGE, vec![Problem::new("--since", why)]))?;
    let mut wanted = WantedEvents {
        after: 0,
        from_ms,
        slice: args.slice.clone(),
        sliver: args.name.clone(),
        kind: args.kind.clone(),
        most: args.limit,
    };
    let file = args.audit.audit.as_deref();
    let store = match args.follow {
        // It may be that nothing has happened yet.
        true => audit::create(file),
        false => audit::open(file),
    };
    let store = store.map_err(Problem::from)?;
    let events = store.events(&wanted).map_err(Problem::from)?;
    match (args.audit.json, args.follow) {
        (true, false) => print_json(&events)?,
        (true, true) => print_lines(&events)?,
        (false, _) => print(table(&events, true))?,
    }
    if !args.follow {
        return Ok(0);
    }
    let last = |events: &[StoredEvent]| events.last().map(|event| event.id);
    // Without one that fits, all that is there now is old.
    wanted.after = last(&events).unwrap_or(0);
    wanted.most = usize::MAX;
    loop {
        std::thread::sleep(INTERVAL);
        let events = store.events(&wanted).map_err(Problem::from)?;
        wanted.after = last(&events).unwrap_or(wanted.after);
        match args.audit.json {
            true => print_lines(&events)?,
            false => print(table(&events, false))?,
        }
    }
}

fn print_lines(events: &[StoredEvent]) -> Result<(), Problem> {
    for event in events {
        let json = serde_json::to_string(event)
            .map_err(|error| Problem::new("JSON", error.to_string()))?;
        print(format_args!("{json}\n"))?;
    }
    Ok(())
}

fn table(events: &[StoredEvent], with_head: bool) -> String {
    let head = ["TIME (UTC)", "KIND", "COUNT", "SLIVER", "SLICE", "WHAT"];
    let mut rows = Vec::new();
    if with_head {
        rows.push(head.map(str::to_owned).to_vec());
    }
    let name = |name: &Option<String>| printable(name.as_deref().unwrap_or("-"));
    rows.extend(events.iter().map(|event| {
        vec![
            format_moment(event.at_ms),
            printable(&event.kind),
            event.count.to_string(),
            name(&event.sliver),
            name(&event.slice),
            printable(&event.detail),
        ]
    }));
    columns(&rows)
}
