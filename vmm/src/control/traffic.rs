//! Answers to questions about a sliver's traffic.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::time::{ClockId, clock_gettime};

use super::proto::{Answer, Op};
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
        Op::TakeEvents { after } => Answer::Events(lock(gate).events_after(after)),
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
pub(super) fn lock(gate: &Mutex<Gate>) -> MutexGuard<'_, Gate> {
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
