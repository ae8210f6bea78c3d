//! How steadily its processors run: how late they wake, or how long they are taken away.
//!
//!     jitter sleep [--every US] [--count N]
//!     jitter stops [--ms N] [--longer-than US]
//!
//! `sleep` sleeps to N moments and tells how late it woke. `stops` computes on all vCPUs and tells
//! for how long they stood still: together, or one alone while another ran, as a holder of a lock
//! should not be. Both tell it as JSON on one line. Run as a process, it shows the host's part.
#![cfg_attr(not(feature = "desktop"), no_std, no_main)]

#[path = "../common/flags.rs"]
mod flags;
mod stops;

use core::time::Duration;

use guest_shim::prelude::*;
use guest_shim::time::{Instant, sleep};
use guest_shim::vcpu;

use flags::{Flags, Wrong};
use stops::{Stop, alone, together};

const USAGE: &str = "usage: jitter sleep [--every US] [--count N]
       jitter stops [--ms N] [--longer-than US]

How late a sliver wakes from sleep, or for how long its vCPUs stop while they compute.

  --every US         microseconds from one moment to the next (5000)
  --count N          moments (1000)
  --ms N             for how long it computes (5000)
  --longer-than US   the shortest stop that counts (100)";

/// Stops of one vCPU that are kept. Later ones are not: memory is taken before it begins.
const MOST_STOPS: usize = 1 << 16;

enum Task {
    Sleep { every: Duration, count: usize },
    Stops { time: Duration, least: Duration },
}

fn parse() -> Result<Task, Wrong> {
    let mut flags = Flags::of_this_program();
    let Some(what) = flags.next() else {
        return Err(Wrong::Told("it needs to know what to measure".to_owned()));
    };
    let mut task = match what {
        "sleep" => Task::Sleep {
            every: Duration::from_millis(5),
            count: 1000,
        },
        "stops" => Task::Stops {
            time: Duration::from_secs(5),
            least: Duration::from_micros(100),
        },
        _ => return Err(Wrong::unknown(what)),
    };
    while let Some(flag) = flags.next() {
        match (&mut task, flag) {
            (Task::Sleep { every, .. }, "--every") => {
                *every = Duration::from_micros(flags.value(flag)?);
            }
            (Task::Sleep { count, .. }, "--count") => *count = flags.value(flag)?,
            (Task::Stops { time, .. }, "--ms") => {
                *time = Duration::from_millis(flags.value(flag)?);
            }
            (Task::Stops { least, .. }, "--longer-than") => {
                *least = Duration::from_micros(flags.value(flag)?);
            }
            _ => return Err(Wrong::unknown(flag)),
        }
    }
    Ok(task)
}

fn run() -> Result<u8, String> {
    match parse() {
        Ok(Task::Sleep { every, count }) => tell_lateness(every, count),
        Ok(Task::Stops { time, least }) => tell_stops(time, least)?,
        Err(wrong) => return Ok(wrong.tell(USAGE)),
    }
    Ok(0)
}

fn tell_lateness(every: Duration, count: usize) {
    let mut late: Vec<Duration> = Vec::with_capacity(count);
    for _ in 0..count {
        let before = Instant::now();
        sleep(every);
        late.push(before.elapsed().saturating_sub(every));
    }
    late.sort_unstable();
    let at = |permille: usize| {
        let rank = (late.len() * permille / 1000).min(late.len().saturating_sub(1));
        micros(late.get(rank).copied().unwrap_or_default())
    };
    let (p50, p99, max) = (at(500), at(990), at(1000));
    println!("{{\"count\":{count},\"p50_us\":{p50},\"p99_us\":{p99},\"max_us\":{max}}}");
}

fn tell_stops(time: Duration, least: Duration) -> Result<(), String> {
    let stops = vcpu::on_all(move |_| watch(time, least)).map_err(|busy| busy.to_string())?;
    let all = together(&stops);
    let told: Vec<String> = { stops.iter() }
        .map(|own| {
            let alone = alone(own, &all);
            format!(
                "{{\"stops\":{},\"stopped_us\":{},\"longest_us\":{},\
                 \"alone_us\":{},\"longest_alone_us\":{}}}",
                own.len(),
                micros(own.iter().map(Stop::length).sum()),
                micros(own.iter().map(Stop::length).max().unwrap_or_default()),
                micros(alone.iter().map(Stop::length).sum()),
                micros(alone.iter().map(Stop::length).max().unwrap_or_default()),
            )
        })
        .collect();
    println!("{{\"vcpus\":[{}]}}", told.join(","));
    Ok(())
}

/// Looks at the clock all the time. What is longer than `least` between two looks was a stop.
fn watch(time: Duration, least: Duration) -> Vec<Stop> {
    let mut stops = Vec::with_capacity(MOST_STOPS);
    let start = Instant::now();
    let mut last = start;
    while last.duration_since(start) < time {
        let now = Instant::now();
        if now.duration_since(last) > least && stops.len() < MOST_STOPS {
            stops.push(Stop {
                start: last.since_start(),
                end: now.since_start(),
            });
        }
        last = now;
    }
    stops
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}

guest_shim::entry!(run);
