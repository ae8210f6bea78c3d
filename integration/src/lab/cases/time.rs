//! A guest's clock is right after it has stood still.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vmm::control::proto::{Answer, Op};

use crate::lab::guest::{Guest, linux};
use crate::lab::inside::Stage;
use crate::lab::part::Part;

const PAUSE: Duration = Duration::from_secs(30);

/// By how many seconds the clock may be wrong afterwards.
const BOUND: f64 = 0.5;

pub(super) fn pause(stage: &Stage) {
    let mut guest = Guest::serve(stage, linux(stage, Part::BzImage, "serve"));
    let before = offset(&mut guest);
    let mut control = guest.control();
    assert_eq!(control.ask(Op::Pause), Ok(Answer::Done));
    thread::sleep(PAUSE);
    assert_eq!(control.ask(Op::Resume), Ok(Answer::Done));
    let after = offset(&mut guest);
    stage.step(format!("{before:.3} s ahead before, {after:.3} s after"));
    assert!(
        (after - before).abs() < BOUND,
        "{before} s became {after} s"
    );
    guest.run("sleep 1");
    guest.type_line("poweroff -f");
    guest.wait().assert_exited(0);
}

/// By how many seconds the guest's time of day is ahead of the host's. It is behind from the start
/// where boots are slow: before Linux has found the KVM clock it counts ticks, and misses most.
fn offset(guest: &mut Guest) -> f64 {
    let asked = now();
    let told: f64 = guest.run("lab-guest now").trim().parse().expect("a number");
    let answered = now();
    told / 1e9 - (asked + answered) / 2.0
}

/// Seconds since 1970.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("it is after 1970").as_secs_f64()
}
