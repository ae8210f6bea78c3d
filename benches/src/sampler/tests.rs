//! The sampler on a process that never stops computing.

use std::process::{Child, Command, Stdio};

use super::*;

struct Busy(Child);

impl Busy {
    fn new() -> Self {
        let child = Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .stdin(Stdio::null())
            .spawn();
        Self(child.expect("sh starts"))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What other processes take of it is no error: only impossible readings are.
#[test]
fn no_reading_shows_more_than_one_processor_of_a_process_with_one_thread() {
    let busy = Busy::new();
    let [readings] = &sample(&[busy.0.id()], 1_000_000, 200).expect("it samples")[..] else {
        panic!("one process has one row");
    };
    assert_eq!(readings.len(), 200);
    for pair in readings.windows(2) {
        let (time, used) = (pair[1].at - pair[0].at, pair[1].used - pair[0].used);
        // What passes between the two clocks' readings.
        assert!(used <= time + 100_000, "{used} of {time}");
    }
    let used = readings[199].used - readings[0].used;
    assert!(used > 0);
}

#[test]
fn a_process_that_is_gone_is_named() {
    let mut busy = Busy::new();
    busy.0.kill().expect("it is there");
    busy.0.wait().expect("it ends");
    let error = sample(&[busy.0.id()], 1_000_000, 3).expect_err("it has no clock");
    assert!(format!("{error:#}").contains(&busy.0.id().to_string()));
}
