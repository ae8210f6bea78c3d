//! Shows both clocks and sleeps a few times; fails if a sleep is short or a clock steps back.
#![cfg_attr(not(feature = "desktop"), no_std, no_main)]

use core::time::Duration;

use guest_shim::args;
use guest_shim::prelude::*;
use guest_shim::time::{Instant, now_unix, sleep};

const SLEEPS: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_micros(50),
    Duration::from_millis(1),
    Duration::from_millis(10),
    Duration::from_millis(50),
];

/// How often the monotonic clock is read in a row to see that it never steps back.
const READINGS: u32 = 100_000;

fn run() -> Result<u8, String> {
    if args().next().is_some() {
        eprintln!("usage: clock");
        return Ok(2);
    }
    let start = Instant::now();
    let wall_start = now_unix();
    println!("monotonic {:?}", start.since_start());
    println!("wall {}", utc(wall_start.as_secs()));
    for asked in SLEEPS {
        let before = Instant::now();
        sleep(asked);
        let slept = before.elapsed();
        if slept < asked {
            return Err(format!("a sleep of {asked:?} took only {slept:?}"));
        }
        println!("slept {asked:?}, {:?} over", slept - asked);
    }
    let mut last = Instant::now();
    for _ in 0..READINGS {
        let now = Instant::now();
        if now < last {
            return Err(format!("the clock stepped back by {:?}", last - now));
        }
        last = now;
    }
    let elapsed = start.elapsed();
    let wall_elapsed = now_unix().saturating_sub(wall_start);
    let apart = elapsed.abs_diff(wall_elapsed);
    if apart > Duration::from_millis(100) {
        return Err(format!(
            "the clocks went apart: monotonic {elapsed:?}, wall {wall_elapsed:?}"
        ));
    }
    println!("clocks agree");
    Ok(0)
}

/// A Unix time as people write it, after Hinnant's civil-from-days.
fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let day_of_eras = days + 719_468;
    let era = day_of_eras / 146_097;
    let day_of_era = day_of_eras % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!(
        "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02} UTC",
        second % 60
    )
}

guest_shim::entry!(run);
