//! A guest's clock is right after it has stood still.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vmm::control::proto::{Answer, Op};

use crate::lab::guest::{Guest, linux};
use crate::lab::inside::Stage;
use crate::lab::part::Part;

const PAUSE: Duration = Duration::from_secs(30);

/// How much the clock may be wrong.
const BOUND: Duration = Duration::from_millis(500);

pub(super) fn pause(stage: &Stage) {
    let mut guest = Guest::serve(stage, linux(stage, Part::BzImage, "serve"));
    let before = error(&mut guest);
    assert!(before < BOUND, "it was wrong by {before:?} before");
    let mut control = guest.control();
    assert_eq!(control.ask(Op::Pause), Ok(Answer::Done));
    thread::sleep(PAUSE);
    assert_eq!(control.ask(Op::Resume), Ok(Answer::Done));
    let after = error(&mut guest);
    assert!(after < BOUND, "it is wrong by {after:?}");
    stage.step(format!("wrong by {before:?} before and {after:?} after"));
    guest.run("sleep 1");
    guest.type_line("poweroff -f");
    guest.wait().assert_exited(0);
}

/// How far the guest's time of day is from when it was asked for.
fn error(guest: &mut Guest) -> Duration {
    let asked = now();
    let told: u64 = guest.run("lab-guest now").trim().parse().expect("a number");
    let answered = now();
    let told = Duration::from_nanos(told);
    asked.saturating_sub(told) + told.saturating_sub(answered)
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is after 1970")
}
