//! A service that keeps a promise about latency by turning work away when it cannot be kept.
//!
//!     adaptive [--rate N] [--work US] [--goal MS] [--seconds S] [--stubborn]
//!
//! So many requests a second each cost so much processor time and shall be answered within the
//! goal. Before it begins with one, it reads from the quota page how much of the present budget is
//! left and when the next one begins; if the answer would come too late, it refuses at once, which
//! costs nothing and tells the client to go elsewhere. With `--stubborn` it refuses nothing, and
//! under a cap that is too small every answer is late. Where nothing is limited, nothing is refused.
//!
//! Requests come by the clock instead of from a network: a latency counts from the moment when its
//! request was due, also while the sliver was held back. At the end it tells what became of
//! them as JSON on one line: how many were `due`, `done`, `refused` and `late` (done, but after the
//! goal), for how long the cap held it back, and percentiles of the latency of those that were done.
#![cfg_attr(not(feature = "desktop"), no_std, no_main)]

#[path = "../common/flags.rs"]
mod flags;
mod meter;
#[path = "../common/or_null.rs"]
mod or_null;

use core::hint::black_box;
use core::time::Duration;

use guest_shim::prelude::*;
use guest_shim::quota;
use guest_shim::time::{Instant, sleep};

use flags::{Flags, Wrong};
use meter::Meter;
use or_null::OrNull;

const USAGE: &str = "usage: adaptive [--rate N] [--work US] [--goal MS] [--seconds S] [--stubborn]

A service that keeps its latency within a goal by refusing what would come too late.

  --rate N       requests a second (100)
  --work US      processor time of a request, in microseconds (2000)
  --goal MS      the latest answer, counted from when the request was due (50)
  --seconds S    for how long (5)
  --stubborn     refuse nothing";

#[derive(Debug, Clone, Copy)]
struct Options {
    rate: u32,
    work: Duration,
    goal: Duration,
    seconds: u32,
    stubborn: bool,
}

impl Options {
    fn parse() -> Result<Self, Wrong> {
        let mut options = Self {
            rate: 100,
            work: Duration::from_millis(2),
            goal: Duration::from_millis(50),
            seconds: 5,
            stubborn: false,
        };
        let mut flags = Flags::of_this_program();
        while let Some(flag) = flags.next() {
            match flag {
                "--rate" => options.rate = flags.value(flag)?,
                "--work" => options.work = Duration::from_micros(flags.value(flag)?),
                "--goal" => options.goal = Duration::from_millis(flags.value(flag)?),
                "--seconds" => options.seconds = flags.value(flag)?,
                "--stubborn" => options.stubborn = true,
                _ => return Err(Wrong::unknown(flag)),
            }
        }
        if options.rate == 0 {
            return Err(Wrong::Told("--rate is at least 1".to_owned()));
        }
        Ok(options)
    }
}

/// What became of the requests.
#[derive(Debug, Default)]
struct Outcome {
    refused: u32,
    late: u32,
    latencies: Vec<Duration>,
}

fn run() -> u8 {
    let options = match Options::parse() {
        Ok(options) => options,
        Err(wrong) => return wrong.tell(USAGE),
    };
    let outcome = serve(&options);
    tell(&options, outcome);
    0
}

fn serve(options: &Options) -> Outcome {
    let rounds = rounds_within(options.work);
    let mut meter = Meter::new(quota::read());
    let mut outcome = Outcome::default();
    let between = Duration::from_secs(1) / options.rate;
    let start = Instant::now();
    for index in 0..options.rate * options.seconds {
        let due = start + between * index;
        sleep(due - Instant::now());
        let begun = Instant::now();
        meter.read(quota::read());
        let expected = meter.finish(begun, options.work);
        if !options.stubborn && expected - due > options.goal {
            outcome.refused += 1;
            continue;
        }
        compute(rounds);
        meter.worked(begun.elapsed());
        let latency = due.elapsed();
        outcome.late += u32::from(latency > options.goal);
        outcome.latencies.push(latency);
    }
    outcome
}

fn tell(options: &Options, mut outcome: Outcome) {
    outcome.latencies.sort_unstable();
    let latencies = &outcome.latencies;
    let at = |permille: usize| {
        let last = latencies.len().checked_sub(1)?;
        let latency = latencies[(latencies.len() * permille / 1000).min(last)];
        Some(latency.as_nanos() as f64 / 1e6)
    };
    let throttled = quota::read().cpu_throttled;
    println!(
        "{{\"due\":{},\"done\":{},\"refused\":{},\"late\":{},\"throttled_ms\":{},\
         \"p50_ms\":{},\"p99_ms\":{},\"max_ms\":{}}}",
        options.rate * options.seconds,
        latencies.len(),
        outcome.refused,
        outcome.late,
        OrNull(throttled.map(|time| time.as_millis())),
        OrNull(at(500)),
        OrNull(at(990)),
        OrNull(at(1000)),
    );
}

/// Rounds of the computation that take about so long, by the quickest of a few tries: in the others
/// the processor was somebody else's for a while.
fn rounds_within(time: Duration) -> u64 {
    const TRIED: u64 = 100_000;
    let quickest = (0..20).map(|_| {
        let start = Instant::now();
        compute(TRIED);
        start.elapsed().as_nanos().max(1) as u64
    });
    let quickest = quickest.min().unwrap_or(1);
    time.as_nanos() as u64 * TRIED / quickest
}

fn compute(rounds: u64) {
    let mut state = black_box(1u64);
    for _ in 0..rounds {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
    }
    black_box(state);
}

guest_shim::entry!(run);
