//! Computes, and tells how much it got done: integer, memory and floating-point work in rounds of
//! fixed size. Run natively and in a sliver, it shows what the monitor costs a computation. With
//! `--all`, every vCPU computes.
#![cfg_attr(not(feature = "desktop"), no_std, no_main)]

use core::hint::black_box;
use core::time::Duration;

use guest_shim::args;
use guest_shim::prelude::*;
use guest_shim::time::Instant;
use guest_shim::vcpu;

const USAGE: &str = "usage: spin [--ms N | --rounds N] [--all]";

/// Words that the memory part walks over: 256 KiB, more than the first-level cache.
const WORDS: usize = 32 << 10;

/// Steps of each part per round; a round takes some tens of microseconds.
const STEPS: usize = 4096;

#[derive(Clone, Copy)]
enum Until {
    Time(Duration),
    Rounds(u64),
}

/// What one vCPU got done.
struct Done {
    rounds: u64,
    nanos: u64,
    checksum: u64,
}

fn run() -> Result<u8, String> {
    let Some((until, all)) = parse() else {
        eprintln!("{USAGE}");
        return Ok(2);
    };
    let done = if all {
        vcpu::on_all(move |_| compute(until)).map_err(|busy| busy.to_string())?
    } else {
        vec![compute(until)]
    };
    let rounds: u64 = done.iter().map(|part| part.rounds).sum();
    let nanos: u64 = done.iter().map(|part| part.nanos).sum();
    let checksum = { done.iter() }.fold(0u64, |sum, part| sum.rotate_left(1) ^ part.checksum);
    println!("rounds {rounds}");
    println!("checksum {checksum:#018x}");
    println!("ns per round {}", nanos / rounds.max(1));
    Ok(0)
}

fn compute(until: Until) -> Done {
    let mut work = Work::new();
    let start = Instant::now();
    let rounds = match until {
        Until::Rounds(rounds) => {
            (0..rounds).for_each(|_| work.round());
            rounds
        }
        Until::Time(limit) => {
            let mut rounds = 0;
            while start.elapsed() < limit {
                work.round();
                rounds += 1;
            }
            rounds
        }
    };
    Done {
        rounds,
        nanos: start.elapsed().as_nanos() as u64,
        checksum: work.checksum(),
    }
}

fn parse() -> Option<(Until, bool)> {
    let mut words = args();
    let (mut until, mut all) = (Until::Time(Duration::from_secs(1)), false);
    while let Some(word) = words.next() {
        match word {
            "--all" => all = true,
            "--ms" => until = Until::Time(Duration::from_millis(words.next()?.parse().ok()?)),
            "--rounds" => until = Until::Rounds(words.next()?.parse().ok()?),
            _ => return None,
        }
    }
    Some((until, all))
}

struct Work {
    state: u64,
    number: f64,
    table: Vec<u64>,
}

impl Work {
    fn new() -> Self {
        Self {
            state: 0x9e37_79b9_7f4a_7c15,
            number: 0.5,
            table: (0..WORDS as u64).collect(),
        }
    }

    /// Every step depends on the one before and all results end in the checksum, so that nothing
    /// can be left out.
    fn round(&mut self) {
        let mut state = black_box(self.state);
        for _ in 0..STEPS {
            state = next(state);
        }
        for _ in 0..STEPS {
            state = next(state);
            let word = &mut self.table[state as usize % WORDS];
            *word = word.rotate_left(7) ^ state;
            state = state.wrapping_add(*word);
        }
        // The logistic map stays between 0 and 1 and never settles.
        let mut number = black_box(self.number);
        for _ in 0..STEPS {
            number = 3.99 * number * (1.0 - number);
        }
        self.state = black_box(state | 1);
        self.number = black_box(number);
    }

    fn checksum(&self) -> u64 {
        self.table
            .iter()
            .fold(self.state ^ self.number.to_bits(), |sum, word| {
                sum.rotate_left(1) ^ word
            })
    }
}

/// Marsaglia's xorshift, 64 bits.
fn next(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^ state << 17
}

guest_shim::entry!(run);
