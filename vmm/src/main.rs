//! `slicevmm`: the monitor of one sliver. People run `slicectl`, which runs this.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use lexopt::prelude::*;
use vmm::control::proto::tell_ended;
use vmm::exit::{ExitKind, ExitRecord};
use vmm::given::{Given, Hello};
use vmm::launch::TIE;
use vmm::say::say;
use vmm::sliver::Sliver;
use vmm::stopwatch::Stopwatch;
use vmm::{inherited, resident};

const HELP: &str = "\
Runs one sliver, until it ends. slicectl starts this, in a jail, and hands in all that it uses.

Usage: slicevmm [--directory DIR]

  --directory DIR    the sliver's directory, for those who look at processes; nothing is opened by it
  --help, --version

Descriptor 3 is a socket over which open descriptors come, and what they are for. Messages go to
standard error. The exit code is the guest's status, 139 after a fault, 143 if stopped, 124 if its time
was up, 125 for errors of the monitor and 2 for a wrong command line.
";

/// Exit code for a wrong command line.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    match parse(std::env::args_os().skip(1)) {
        Ok(None) => {}
        Ok(Some(text)) => {
            // A reader that has enough, such as `head`, is no mistake.
            let _ = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            say(&format!("{error}; see slicevmm --help"));
            return ExitCode::from(USAGE);
        }
    }
    let tie = match inherited::take(TIE) {
        Ok(tie) => UnixStream::from(tie),
        Err(error) => {
            say(&format!(
                "{error}: slicectl starts this, not people; see slicectl run --help"
            ));
            return ExitCode::from(USAGE);
        }
    };
    resident::use_one_arena();
    // A program that was started by its descriptor is not always called after it.
    let _ = rustix::thread::set_name(c"slicevmm");
    let record = match Given::receive(&tie) {
        Ok((given, hello)) => run(given, &hello, tie),
        Err(error) => ExitRecord::of_error("", "", error.to_string()),
    };
    if record.exit.kind == ExitKind::Error {
        say(&record.exit.detail.message);
    }
    ExitCode::from(record.exit.status)
}

fn run(given: Given, hello: &Hello, tie: UnixStream) -> ExitRecord {
    let watch = Stopwatch::start(hello.began);
    let refusals = tie.try_clone();
    match Sliver::take_over(given, hello, tie) {
        Ok(sliver) => sliver.run(watch),
        Err(error) => {
            let record = ExitRecord::of_error("", "", error.to_string());
            tell_ended(refusals.ok().as_ref(), &record);
            record
        }
    }
}

/// What to print, if that is all that is asked for.
fn parse(args: impl Iterator<Item = OsString>) -> Result<Option<String>, lexopt::Error> {
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("directory") => drop(parser.value()?),
            Long("help") | Short('h') => return Ok(Some(HELP.to_owned())),
            Long("version") => {
                return Ok(Some(format!("slicevmm {}\n", env!("CARGO_PKG_VERSION"))));
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(None)
}
