//! What is said on stderr: one line per message, and the story of a sliver's end.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::time::Duration;

use serde::Serialize;
use vmm::exit::{ExitKind, ExitRecord};

use crate::backtrace::Frame;
use crate::problem::Problem;
use crate::text::{columns, printable};
use crate::units::{format_kib, format_micros};

/// Prints a line to stderr, marked as ours, whatever is in the message.
pub fn say(message: impl Display) {
    note(format_args!(
        "slicectl: {}\n",
        printable(&message.to_string())
    ));
}

/// Prints text to stderr as it is. A closed stderr is nothing to die of.
pub fn note(text: impl Display) {
    let _ = write!(std::io::stderr(), "{text}");
}

/// Prints text to stdout. A reader that went away has seen enough; anything else that keeps the
/// text from getting there, such as a full disk, is a problem.
pub fn print(text: impl Display) -> Result<(), Problem> {
    let mut stdout = std::io::stdout().lock();
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Problem::new(
            "stdout",
            format!("cannot be written: {error}"),
        )),
        _ => Ok(()),
    }
}

/// Prints a value to stdout as JSON, on lines for people.
pub fn print_json(value: &impl Serialize) -> Result<(), Problem> {
    let json = serde_json::to_string_pretty(value)
        .map_err(|error| Problem::new("JSON", error.to_string()))?;
    print(format_args!("{json}\n"))
}

/// The line about an end, if there is something to say: a guest that exits needs no comment but what
/// the monitor has to say of it, such as that a kernel has powered its machine off.
pub fn ending(record: &ExitRecord) -> Option<String> {
    let message = printable(&record.exit.detail.message);
    let told = match record.exit.kind {
        ExitKind::Exited if message.is_empty() => return None,
        ExitKind::Exited => message,
        ExitKind::Fault | ExitKind::Panicked | ExitKind::Timeout if !message.is_empty() => message,
        ExitKind::Panicked => "kernel panic".to_owned(),
        ExitKind::Rebooted => "rebooted: to begin anew, run it again".to_owned(),
        ExitKind::Fault => "fault".to_owned(),
        ExitKind::Timeout => "its time limit was reached".to_owned(),
        ExitKind::Stopped => prefixed("stopped", &message),
        ExitKind::Error => prefixed("failed", &message),
    };
    Some(format!("{}: {told}", printable(&record.name)))
}

fn prefixed(what: &str, message: &str) -> String {
    match message.is_empty() {
        true => what.to_owned(),
        false => format!("{what}: {message}"),
    }
}

/// A backtrace, numbered as debuggers do, inlined functions on lines of their own. A frame that
/// comes again and again, as in endless recursion, is told once.
pub fn backtrace(frames: &[Frame]) -> String {
    let mut out = String::new();
    let mut rest = frames.iter().enumerate().peekable();
    while let Some((i, frame)) = rest.next() {
        tell_frame(&mut out, i, frame);
        let mut again = 0;
        while rest.next_if(|(_, next)| *next == frame).is_some() {
            again += 1;
        }
        if again > 0 {
            out.push_str(&format!("       ... and {again} more of the same\n"));
        }
    }
    out
}

fn tell_frame(out: &mut String, number: usize, frame: &Frame) {
    let address = format!("{:#x}", frame.address);
    if frame.calls.is_empty() {
        out.push_str(&format!("  {number:>3}: {address}\n"));
    }
    for (depth, call) in frame.calls.iter().enumerate() {
        let number = match depth {
            0 => format!("{number:>3}:"),
            _ => "    ".to_owned(),
        };
        let function = printable(call.function.as_deref().unwrap_or("?"));
        let inlined = if depth + 1 < frame.calls.len() {
            " (inlined)"
        } else {
            ""
        };
        out.push_str(&format!("  {number} {address} {function}{inlined}\n"));
        if let Some(location) = &call.location {
            out.push_str(&format!("             at {}\n", printable(location)));
        }
    }
}

/// The table that `--timing` prints; `overhead` is this process's own time in the sliver's service.
pub fn timing(record: &ExitRecord, overhead: Duration) -> String {
    let time = &record.timing_us;
    let row = |name: &str, value: String| vec![format!("  {name}"), value];
    columns(&[
        vec!["time since the start".to_owned()],
        row("monitor began", format_micros(time.spawn)),
        row("vm created", format_micros(time.vm)),
        row("image loaded", format_micros(time.load)),
        row(
            "first guest instruction",
            format_micros(time.first_instruction),
        ),
        row("sliver ended", format_micros(time.total)),
        vec!["processor time".to_owned()],
        row("guest", format_micros(record.cpu_us.guest)),
        row("monitor", format_micros(record.cpu_us.monitor)),
        row(
            "node (ports, console file)",
            format_micros(overhead.as_micros() as u64),
        ),
        vec!["memory".to_owned()],
        row("guest touched", format_kib(record.memory_kib.guest_touched)),
        row("monitor (PSS)", format_kib(record.memory_kib.monitor_pss)),
    ])
}

#[cfg(test)]
mod tests {
    use vmm::exit::{Exit, ExitRecord};

    use super::*;
    use crate::backtrace::Call;

    fn record(exit: Exit) -> ExitRecord {
        ExitRecord {
            version: 1,
            name: "hello-1".to_owned(),
            slice: "local_hello".to_owned(),
            exit,
            timing_us: Default::default(),
            cpu_us: Default::default(),
            memory_kib: Default::default(),
            ignored_accesses: 0,
            devices: Vec::new(),
            exits: Default::default(),
            cpu: Default::default(),
        }
    }

    #[test]
    fn an_exit_needs_no_words_and_every_other_end_has_some() {
        assert_eq!(ending(&record(Exit::exited(3))), None);
        let told = |exit| ending(&record(exit)).expect("told");
        assert_eq!(told(Exit::stopped("")), "hello-1: stopped");
        assert_eq!(told(Exit::powered_off()), "hello-1: powered off");
        assert!(told(Exit::rebooted()).starts_with("hello-1: rebooted"));
        let panic = Exit::panicked(Some("VFS: no root\u{1b}[m"));
        assert_eq!(told(panic), r"hello-1: kernel panic: VFS: no root\u{1b}[m");
        assert_eq!(told(Exit::timeout("after 1 s")), "hello-1: after 1 s");
        assert_eq!(told(Exit::error("no\nway")), r"hello-1: failed: no\nway");
    }

    #[test]
    fn endless_recursion_is_told_once() {
        let same = Frame {
            address: 0x20_1000,
            calls: Vec::new(),
        };
        let frames = [same.clone(), same.clone(), same, Frame::default()];
        assert_eq!(
            backtrace(&frames),
            "    0: 0x201000\n       ... and 2 more of the same\n    3: 0x0\n"
        );
    }

    #[test]
    fn a_backtrace_shows_inlined_functions_and_bare_addresses() {
        let call = |function: &str, location: &str| Call {
            function: Some(function.to_owned()),
            location: Some(location.to_owned()),
        };
        let frames = [
            Frame {
                address: 0x20_1000,
                calls: vec![call("inner", "a.rs:1:2"), call("outer", "a.rs:9:1")],
            },
            Frame {
                address: 0x20_2000,
                calls: Vec::new(),
            },
        ];
        assert_eq!(
            backtrace(&frames),
            "    0: 0x201000 inner (inlined)\n             at a.rs:1:2\n       \
             0x201000 outer\n             at a.rs:9:1\n    1: 0x202000\n"
        );
    }
}
