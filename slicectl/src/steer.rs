//! `ps`, `status`, `pause`, `resume`, `stop`, `balloon`: running slivers, through their control
//! sockets.

mod devices;
mod processors;

use std::time::Duration;

use vmm::control::proto::{Op, State, Status};
use vmm::exit::CpuTime;
use vmm::spec::SliverName;

use crate::backstop;
use crate::cli::{BalloonArgs, JsonArgs, NameArgs, StatusArgs, StopArgs};
use crate::client::{Client, ClientError};
use crate::problem::{FAILED, Failure, Problem, USAGE};
use crate::report::{print, print_json, say};
use crate::rundir;
use crate::text::{columns, printable};
use crate::units::{format_age, format_kib, format_micros, parse_duration, whole_mib};

/// How long `stop` waits for the end.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Lists all slivers. One that does not answer is told on stderr, and by the exit code.
pub fn ps(args: &JsonArgs) -> Result<u8, Failure> {
    let root = rundir::root();
    let names = rundir::slivers(&root).map_err(|error| {
        let what = format!("run directory {}", root.display());
        mended(Problem::new(what, error.to_string()), &error)
    })?;
    let mut found = Vec::new();
    let mut untold = false;
    for name in names {
        let mut client = match Client::connect(&rundir::socket_path(&root, &name)) {
            Ok(client) => client,
            // Nobody listens there any more.
            Err(ClientError::Io(error)) if gone(&error) => continue,
            Err(error) => {
                say(failed(&name, &error, None));
                untold = true;
                continue;
            }
        };
        match client.status() {
            Ok(status) => found.push(status),
            // It went away just now.
            Err(ClientError::Closed) => {}
            Err(error) => {
                say(failed(&name, &error, client.process()));
                untold = true;
            }
        }
    }
    if args.json {
        print_json(&found)?;
    } else {
        print(table(&found))?;
        if found.is_empty() && !untold {
            say(format!("none runs in {}", root.display()));
        }
    }
    Ok(if untold { FAILED } else { 0 })
}

/// Tells how one sliver does.
pub fn status(args: &StatusArgs) -> Result<u8, Failure> {
    let status = ask(&args.name, &mut find(&args.name)?, Client::status)?;
    if args.json {
        print_json(&status)?;
    } else {
        print(describe(&status))?;
    }
    Ok(0)
}

/// Stops its vCPUs.
pub fn pause(args: &NameArgs) -> Result<u8, Failure> {
    order(&args.name, Op::Pause)
}

/// Lets them go on.
pub fn resume(args: &NameArgs) -> Result<u8, Failure> {
    order(&args.name, Op::Resume)
}

/// Has its guest give memory back, or take it again.
pub fn balloon(args: &BalloonArgs) -> Result<u8, Failure> {
    let wrong = |why| Failure::new(USAGE, vec![Problem::new("SIZE", why)]);
    let mib = whole_mib(&args.size).map_err(wrong)?;
    order(&args.name, Op::SetBalloon { mib })
}

/// Ends a sliver and waits for it. What has a power button may use the time that it is given.
pub fn stop(args: &StopArgs) -> Result<u8, Failure> {
    let grace = grace(&args.grace)
        .map_err(|why| Failure::new(USAGE, vec![Problem::new("--grace", why)]))?;
    let mut client = find(&args.name)?;
    if let Some(grace) = grace
        && ask(&args.name, &mut client, press_button)?
    {
        if client.closes_within(grace) {
            return Ok(0);
        }
        // It may have taken exactly the time that it was given.
        let Ok(again) = find(&args.name) else {
            return Ok(0);
        };
        client = again;
    }
    let reason = format!("slicectl stop, by {}", crate::person::user_name());
    ask(&args.name, &mut client, |client| {
        match client.order(Op::Stop { reason }) {
            // It may be gone before it has answered.
            Err(ClientError::Closed) => Ok(()),
            other => other,
        }
    })?;
    if client.closes_within(STOP_PATIENCE) {
        // Its own slicectl may have been killed.
        backstop::sweep();
        return Ok(0);
    }
    let seconds = STOP_PATIENCE.as_secs();
    let why = format!("is told to stop, but still there after {seconds} s");
    Err(killable(Problem::new(&args.name, why), client.process()).into())
}

/// How long a guest may take; `None` for no time at all.
fn grace(text: &str) -> Result<Option<Duration>, String> {
    match text {
        "0" | "0s" => Ok(None),
        text => parse_duration(text).map(Some),
    }
}

/// Presses the power button; whether there is one, and a guest that can feel it.
fn press_button(client: &mut Client) -> Result<bool, ClientError> {
    if client.status()?.state == State::Paused {
        return Ok(false);
    }
    match client.order(Op::PowerButton) {
        Ok(()) | Err(ClientError::Closed) => Ok(true),
        Err(ClientError::Refused(_)) => Ok(false),
        Err(other) => Err(other),
    }
}

fn order(name: &str, op: Op) -> Result<u8, Failure> {
    ask(name, &mut find(name)?, |client| client.order(op))?;
    Ok(0)
}

/// Puts a question to the sliver called `name`.
pub(crate) fn ask<T>(
    name: &str,
    client: &mut Client,
    question: impl FnOnce(&mut Client) -> Result<T, ClientError>,
) -> Result<T, Problem> {
    question(client).map_err(|error| failed(name, &error, client.process()))
}

/// The sliver called `name`.
pub(crate) fn find(name: &str) -> Result<Client, Problem> {
    SliverName::parse(name).map_err(|why| Problem::new("NAME", why))?;
    let root = rundir::root();
    match Client::connect(&rundir::socket_path(&root, name)) {
        Ok(client) => Ok(client),
        Err(ClientError::Io(error)) if gone(&error) => {
            let mut names = rundir::slivers(&root).unwrap_or_default();
            // Not those that a killed monitor has left.
            names.retain(|name| Client::connect(&rundir::socket_path(&root, name)).is_ok());
            let problem = Problem::new(name, format!("no such sliver runs in {}", root.display()));
            Err(match names.is_empty() {
                true => problem.mend("none runs there"),
                false => problem.mend(format!("there are: {}", names.join(", "))),
            })
        }
        Err(error) => Err(failed(name, &error, None)),
    }
}

/// Whether a connection failed because nobody is at the other end.
pub(crate) fn gone(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    matches!(error.kind(), NotFound | ConnectionRefused)
}

/// What went wrong between us and a sliver's monitor, which is `process` if that is known.
fn failed(name: &str, error: &ClientError, process: Option<i32>) -> Problem {
    let problem = Problem::new(name, error.to_string());
    match error {
        ClientError::Silent => killable(problem, process),
        ClientError::Io(error) => mended(problem, error),
        _ => problem,
    }
}

/// Adds how to end a monitor that does not do so when asked.
fn killable(problem: Problem, process: Option<i32>) -> Problem {
    match process {
        Some(pid) => problem.mend(format!("to end it nevertheless: kill -KILL {pid}")),
        None => problem,
    }
}

/// Adds what helps those who may not look.
fn mended(problem: Problem, error: &std::io::Error) -> Problem {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => problem.mend("ask as its owner, or with sudo"),
        _ => problem,
    }
}

/// The state in a word.
pub(crate) fn state(status: &Status) -> &'static str {
    match status.state {
        State::Running => "running",
        State::Paused => "paused",
        State::Ended => "ended",
    }
}

fn kind(status: &Status) -> &'static str {
    match status.legacy {
        true => "legacy",
        false => "native",
    }
}

/// How well its monitor is jailed.
fn jail(status: &Status) -> String {
    match status.weak_jail.is_empty() {
        true => "full".to_owned(),
        false => format!("without {}", status.weak_jail),
    }
}

/// All that its process has used.
fn processor_time(cpu: &CpuTime) -> u64 {
    let parts = [cpu.guest, cpu.device, cpu.monitor, cpu.provisioning];
    parts.into_iter().fold(0, u64::saturating_add)
}

fn table(found: &[Status]) -> String {
    let head = [
        "NAME", "STATE", "PID", "UPTIME", "CPU", "MEMORY", "VCPUS", "KIND", "JAIL", "SLICE",
        "OWNER",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(found.iter().map(|status| {
        vec![
            printable(&status.name),
            state(status).to_owned(),
            status.pid.to_string(),
            format_age(Duration::from_millis(status.uptime_ms)),
            format_micros(processor_time(&status.cpu_us)),
            format_kib(status.memory_kib),
            status.vcpus.to_string(),
            kind(status).to_owned(),
            jail(status),
            printable(&status.slice),
            printable(&status.owner),
        ]
    }));
    columns(&rows)
}

fn describe(status: &Status) -> String {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("name", printable(&status.name)),
        row("slice", printable(&status.slice)),
        row("owner", printable(&status.owner)),
        row("contact", printable(&status.contact)),
        row("image", printable(&status.image)),
        row("kind", kind(status).to_owned()),
        row("state", state(status).to_owned()),
        row("pid", status.pid.to_string()),
        row("jail", jail(status)),
        row(
            "uptime",
            format_age(Duration::from_millis(status.uptime_ms)),
        ),
        row("memory", format_kib(status.memory_kib)),
        row("vcpus", status.vcpus.to_string()),
        row("cpu guest", format_micros(status.cpu_us.guest)),
        row("cpu device", format_micros(status.cpu_us.device)),
        row("cpu monitor", format_micros(status.cpu_us.monitor)),
        row(
            "cpu provisioning",
            format_micros(status.cpu_us.provisioning),
        ),
    ];
    rows.extend(processors::rows(&status.cpu));
    rows.push(row("exits", devices::exits(&status.exits)));
    rows.extend(devices::rows(&status.devices));
    columns(&rows)
}

#[cfg(test)]
mod tests {
    use vmm::jail::Layers;

    use super::*;

    #[test]
    fn the_table_has_a_line_per_sliver_and_escapes_what_they_say_of_themselves() {
        let status = Status {
            name: "hello-1".to_owned(),
            slice: "local_hello".to_owned(),
            owner: "Ada\x1b[2J".to_owned(),
            contact: "ada@host".to_owned(),
            image: "/i".to_owned(),
            legacy: true,
            pid: 7,
            weak_jail: Layers::NONE,
            state: State::Paused,
            uptime_ms: 61_000,
            memory_kib: 65_536,
            vcpus: 2,
            cpu_us: Default::default(),
            cpu: Default::default(),
            net: None,
            disk: None,
            devices: vec![vmm::control::proto::DeviceStatus {
                tag: "console".to_owned(),
                ..Default::default()
            }],
            exits: Default::default(),
        };
        let table = table(std::slice::from_ref(&status));
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("NAME     STATE"), "{table}");
        assert!(
            ["paused", "1m 1s", "legacy"]
                .iter()
                .all(|word| lines[1].contains(word)),
            "{table}"
        );
        let told = describe(&status);
        assert!(!told.contains('\x1b'));
        assert!(told.ends_with("console           down\n"), "{told}");
    }

    #[test]
    fn a_balloon_of_no_whole_mebibytes_is_a_usage_error() {
        for size in ["1", "1K", "x", ""] {
            let args = BalloonArgs {
                name: "nobody".to_owned(),
                size: size.to_owned(),
            };
            assert_eq!(balloon(&args).unwrap_err().status, USAGE, "{size:?}");
        }
    }

    #[test]
    fn a_name_that_could_be_a_path_is_refused() {
        assert!(find("../../etc").is_err());
    }
}
