//! Kernels that were not written for us, nor are Linux.

use serde_json::json;
use vmm::control::proto::{Answer, Op};
use vmm::exit::ExitKind;

use crate::lab::guest::{Guest, legacy};
use crate::lab::inside::Stage;
use crate::lab::part::Part;

pub(super) fn memtest(stage: &Stage) {
    let how = json!({ "append": "console=ttyS0,115200" });
    let mut guest = Guest::start(stage, legacy(stage, Part::Memtest, how));
    guest.expect("Memtest86");
    let stopped = guest.control().ask(Op::Stop {
        reason: "the case is over".to_owned(),
    });
    assert_eq!(stopped, Ok(Answer::Done));
    guest.wait().assert_end(ExitKind::Stopped, 143);
}
