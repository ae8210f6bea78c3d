//! `slicectl capture`: a sliver's packets, in a file.
//!
//! The monitor keeps copies until they are asked for, ten times a second. Who does not ask in time
//! loses some, and is told how many.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm::control::proto::{Answer, Captured, Op};
use vmm::net::capture::file_header;

use crate::cli::CaptureArgs;
use crate::client::{Client, ClientError, nonsense};
use crate::problem::{FAILED, Failure, Problem, USAGE};
use crate::report::say;
use crate::signals::EndSignals;
use crate::steer::{ask, find};
use crate::units::parse_duration;

/// How often the monitor is asked.
const EVERY: Duration = Duration::from_millis(100);

/// Bytes of a record before its packet, and where its length is in them.
const RECORD_HEADER: usize = 16;
const LENGTH_AT: usize = 8;

/// Runs the command; the exit code.
pub fn run(args: &CaptureArgs) -> Result<u8, Failure> {
    let time = args.time.as_deref().map(parse_duration).transpose();
    let time = time.map_err(|why| Failure::new(USAGE, vec![Problem::new("--for", why)]))?;
    let signals =
        EndSignals::catch().map_err(|error| Problem::new("signals", error.to_string()))?;
    let mut client = find(&args.name)?;
    let snaplen = args.snaplen;
    ask(&args.name, &mut client, |client| {
        client.order(Op::Capture { snaplen })
    })?;
    let lost = |error: io::Error| {
        let what = format!("--write {}", args.write.display());
        Failure::from(Problem::new(what, format!("cannot be written: {error}")))
    };
    let mut file = open(&args.write).map_err(lost)?;
    file.write_all(&file_header(snaplen)).map_err(lost)?;
    let end = time.map(|time| Instant::now() + time);
    let (mut packets, mut dropped) = (0, 0);
    loop {
        let is_over = waits_in_vain(&signals) || end.is_some_and(|end| Instant::now() >= end);
        match take(&mut client) {
            Ok(captured) => {
                let records = bytes(&captured.hex).ok_or_else(|| unreadable(&args.name))?;
                packets += count(&records).ok_or_else(|| unreadable(&args.name))?;
                dropped = captured.dropped;
                match file.write_all(&records).and_then(|()| file.flush()) {
                    Ok(()) => {}
                    // A reader that has seen enough.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                    Err(error) => return Err(lost(error)),
                }
            }
            // The sliver has ended.
            Err(ClientError::Closed) => break,
            Err(error) => {
                let problem = Problem::new(&args.name, error.to_string());
                return Err(Failure::new(FAILED, vec![problem]));
            }
        }
        if is_over {
            break;
        }
    }
    let told = match dropped {
        0 => String::new(),
        dropped => format!(", {dropped} more found no room"),
    };
    say(format!("{packets} packets captured{told}"));
    Ok(0)
}

fn open(path: &Path) -> io::Result<Box<dyn Write>> {
    match path.to_str() {
        Some("-") => Ok(Box::new(io::stdout().lock())),
        _ => Ok(Box::new(File::create(path)?)),
    }
}

/// Waits until it is time to ask again; whether a signal to end came first.
fn waits_in_vain(signals: &EndSignals) -> bool {
    let time = Timespec {
        tv_sec: 0,
        tv_nsec: EVERY.subsec_nanos().into(),
    };
    let mut fds = [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
    matches!(poll(&mut fds, Some(&time)), Ok(1..))
}

fn take(client: &mut Client) -> Result<Captured, ClientError> {
    match client.call(Op::TakeCapture)? {
        Answer::Captured(captured) => Ok(captured),
        other => Err(nonsense(&other)),
    }
}

fn unreadable(name: &str) -> Failure {
    Failure::from(Problem::new(name, "the monitor's packets make no sense"))
}

/// Bytes as pairs of digits.
fn bytes(hex: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let pair = |[high, low]: &[u8; 2]| Some((digit(*high)? << 4 | digit(*low)?) as u8);
    rest.is_empty().then(|| pairs.iter().map(pair).collect())?
}

/// How many whole records these are.
fn count(mut records: &[u8]) -> Option<u64> {
    let mut count = 0;
    while !records.is_empty() {
        let length = records.get(LENGTH_AT..LENGTH_AT + 4)?;
        let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
        records = records.get(RECORD_HEADER.checked_add(length)?..)?;
        count += 1;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm::nanos::Nanos;
    use vmm::net::capture::Capture;

    #[test]
    fn what_a_monitor_gives_is_counted_and_checked() {
        let mut capture = Capture::new(8);
        capture.add(b"0123456789", 10, Nanos(1));
        capture.add(b"abc", 3, Nanos(2));
        let (records, _) = capture.take();
        let hex: String = records.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(bytes(&hex).as_ref(), Some(&records));
        assert_eq!(count(&records), Some(2));
        assert_eq!(count(&records[..records.len() - 1]), None);
        assert_eq!(count(&[0xff; 20]), None);
        for wrong in ["0", "0g", "é0"] {
            assert_eq!(bytes(wrong), None);
        }
        assert_eq!(count(&[]), Some(0));
    }
}
