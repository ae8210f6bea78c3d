//! Puts all vCPUs to work and checks what comes back: sums in parts, contended counters, spawning
//! and joining in every order, again and again on the same vCPUs.
#![cfg_attr(not(feature = "desktop"), no_std, no_main)]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

use guest_shim::prelude::*;
use guest_shim::sync::Mutex;
use guest_shim::time::sleep;
use guest_shim::vcpu::{self, JoinHandle};
use guest_shim::{alloc, args};

use alloc::sync::Arc;

const USAGE: &str = "usage: smp [--rounds N]";

/// Rounds unless told otherwise.
const ROUNDS: u64 = 10;

/// Numbers that are summed in each round.
const NUMBERS: u64 = 1_000_000;

/// How often each vCPU adds to each counter in each round.
const ADDITIONS: u64 = 20_000;

fn run() -> Result<u8, String> {
    let Some(rounds) = parse() else {
        eprintln!("{USAGE}");
        return Ok(2);
    };
    let vcpus = vcpu::count();
    println!("vcpus {vcpus}");
    for _ in 0..rounds {
        sum_in_parts()?;
        count_together()?;
        join_in_any_order()?;
        all_busy()?;
    }
    println!("rounds {rounds}");
    println!("all results right");
    Ok(0)
}

fn parse() -> Option<u64> {
    let mut words = args();
    match (words.next(), words.next(), words.next()) {
        (None, ..) => Some(ROUNDS),
        (Some("--rounds"), Some(number), None) => number.parse().ok(),
        _ => None,
    }
}

fn sum_in_parts() -> Result<(), String> {
    let parts = vcpu::count();
    let sums = vcpu::on_all(move |part| (part as u64..NUMBERS).step_by(parts).sum::<u64>());
    let sums = sums.map_err(|busy| busy.to_string())?;
    expect("sum", sums.iter().sum(), NUMBERS * (NUMBERS - 1) / 2)
}

fn count_together() -> Result<(), String> {
    let atomic = Arc::new(AtomicU64::new(0));
    let locked = Arc::new(Mutex::new(0));
    let (theirs, theirs_locked) = (Arc::clone(&atomic), Arc::clone(&locked));
    let counted = vcpu::on_all(move |_| {
        for _ in 0..ADDITIONS {
            theirs.fetch_add(1, Ordering::Relaxed);
            *theirs_locked.lock() += 1;
        }
    });
    counted.map_err(|busy| busy.to_string())?;
    let expected = ADDITIONS * vcpu::count() as u64;
    expect("atomic count", atomic.load(Ordering::Relaxed), expected)?;
    expect("locked count", *locked.lock(), expected)
}

/// Work of different length, joined last to first: some is done long before its join, some is
/// waited for.
fn join_in_any_order() -> Result<(), String> {
    let mut handles = Vec::new();
    for part in 1..vcpu::count() as u64 {
        let work = move || {
            sleep(Duration::from_micros(part % 3 * 300));
            (vcpu::current() as u64, part)
        };
        handles.push(vcpu::spawn(work).map_err(|busy| busy.to_string())?);
    }
    let mut seen = 1u64;
    for (i, handle) in handles.into_iter().enumerate().rev() {
        let (ran_on, part) = handle.join();
        expect("part", part, i as u64 + 1)?;
        seen |= 1 << ran_on;
    }
    if vcpu::current() != 0 || seen.trailing_ones() < seen.count_ones() {
        return Err(format!("work ran on a strange set of vcpus: {seen:#b}"));
    }
    Ok(())
}

/// When every vCPU has work, there is no room for more; afterwards there is.
fn all_busy() -> Result<(), String> {
    let go = Arc::new(AtomicBool::new(false));
    let mut handles = Vec::new();
    for _ in 1..vcpu::count() {
        let go = Arc::clone(&go);
        let work = move || {
            while !go.load(Ordering::Acquire) {
                sleep(Duration::from_micros(100));
            }
        };
        handles.push(vcpu::spawn(work).map_err(|busy| busy.to_string())?);
    }
    let one_more = vcpu::spawn(|| ());
    go.store(true, Ordering::Release);
    handles.into_iter().for_each(JoinHandle::join);
    match one_more {
        Ok(_) => Err("work was taken though every vcpu had some".to_owned()),
        Err(_) => Ok(()),
    }
}

fn expect(what: &str, is: u64, should: u64) -> Result<(), String> {
    if is == should {
        Ok(())
    } else {
        Err(format!("{what} is {is}, should be {should}"))
    }
}

// There may be many vCPUs, and none of them goes deep.
guest_shim::entry!(run, stack = 64 << 10);
