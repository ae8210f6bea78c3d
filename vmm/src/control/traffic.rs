//! Answers to questions about a sliver's traffic.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{ClockId, clock_gettime};

use super::endings::timespec;
use super::proto::{Answer, LastTraffic, Op, tell_traffic};
use crate::attend::now;
use crate::nanos::Nanos;
use crate::net::gate::Gate;
use crate::net::prefix::Prefix;

/// Prefixes that one sliver can be kept from at most.
const MOST_BLOCKS: usize = 10_000;

/// Does what `op` asks of a gate.
pub(super) fn answer(gate: Option<&Arc<Mutex<Gate>>>, op: Op) -> Result<Answer, String> {
    let gate = gate.ok_or("the sliver has no network card")?;
    Ok(match op {
        Op::TakeFlows { acknowledge, max } => {
            Answer::Flows(lock(gate).take_flows(acknowledge, max, now()))
        }
        Op::TakeEvents { after } => Answer::Events(lock(gate).events_after(after, now())),
        Op::SetBlocks { prefixes } => {
            lock(gate).set_blocks(&parse(&prefixes)?);
            Answer::Done
        }
        Op::Capture { snaplen } => {
            lock(gate).begin_capture(snaplen);
            Answer::Done
        }
        Op::TakeCapture => {
            let captured = lock(gate).take_captured();
            Answer::Captured(captured.ok_or("nobody has begun to capture")?)
        }
        _ => return Err("that is not about traffic".to_owned()),
    })
}

/// The gate, with the time of day as it is now.
pub(crate) fn lock(gate: &Mutex<Gate>) -> MutexGuard<'_, Gate> {
    // Each change leaves it sound: a panic elsewhere does not spoil it.
    let mut gate = gate.lock().unwrap_or_else(PoisonError::into_inner);
    gate.set_epoch(wall() - now());
    gate
}

/// Nanoseconds since 1970.
pub(crate) fn wall() -> Nanos {
    let time = clock_gettime(ClockId::Realtime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Nanos(seconds.saturating_mul(1_000_000_000) + time.tv_nsec as u64)
}

fn parse(prefixes: &[String]) -> Result<Vec<Prefix>, String> {
    if prefixes.len() > MOST_BLOCKS {
        return Err(format!(
            "{} prefixes are to be blocked, {MOST_BLOCKS} can be",
            prefixes.len()
        ));
    }
    let parse = |text: &String| text.parse().map_err(|why| format!("{text:?}: {why}"));
    prefixes.iter().map(parse).collect()
}

/// How long whoever runs the sliver may take to read what is told at its end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Records in a piece: it is written only when the socket has room for all of it, which is when it
/// says that it can be written to (unix(7): at most a quarter of its buffer is in use).
const PIECE: usize = 64;

/// Whether the tie takes a piece without waiting; waits for that. A reader that stands still does not
/// keep the monitor for ever, and no frame is cut off.
fn has_room(tie: &UnixStream, until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now());
    let mut fds = [PollFd::new(tie, PollFlags::OUT)];
    matches!(poll(&mut fds, Some(&timespec(left))), Ok(1..))
}

/// Tells what nobody has taken yet: the sliver has ended.
pub(crate) fn tell_last(gate: &Mutex<Gate>, tie: Option<&UnixStream>) {
    let Some(tie) = tie else { return };
    let until = Instant::now() + PATIENCE;
    let mut gate = lock(gate);
    gate.stop_flows();
    let mut piece = LastTraffic {
        flows: gate.take_flows(0, PIECE, now()),
        events: gate.events_after(0, Nanos::NEVER),
        net: Some(gate.status()),
    };
    loop {
        let next = piece.flows.first + piece.flows.records.len() as u64;
        let was_last = piece.flows.records.is_empty();
        if !has_room(tie, until) {
            return;
        }
        tell_traffic(Some(tie), piece);
        if was_last {
            return;
        }
        piece = LastTraffic {
            flows: gate.take_flows(next, PIECE, now()),
            ..LastTraffic::default()
        };
    }
}
