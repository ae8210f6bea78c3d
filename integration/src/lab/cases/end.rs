//! Every end of a guest is told apart.

use vmm::control::proto::{Answer, Op};
use vmm::exit::ExitKind;

use crate::lab::guest::{Guest, linux};
use crate::lab::inside::Stage;
use crate::lab::part::Part;

pub(super) fn poweroff(stage: &Stage) {
    let mut guest = serving(stage, "serve");
    guest.type_line("poweroff -f");
    let ended = guest.wait();
    ended.assert_exited(0);
    assert_eq!(ended.record().exit.detail.message, "powered off");
}

pub(super) fn reboot(stage: &Stage) {
    let mut guest = serving(stage, "serve");
    guest.type_line("reboot -f");
    guest.wait().assert_end(ExitKind::Rebooted, 85);
}

pub(super) fn panic(stage: &Stage) {
    let mut guest = serving(stage, "serve");
    guest.type_line("echo c >/proc/sysrq-trigger");
    let ended = guest.wait();
    ended.assert_end(ExitKind::Panicked, 134);
    let message = &ended.record().exit.detail.message;
    assert!(message.contains("sysrq triggered crash"), "{message:?}");
}

pub(super) fn triple_fault(stage: &Stage) {
    let mut guest = serving(stage, "serve reboot=triple");
    guest.type_line("reboot -f");
    guest.wait().assert_end(ExitKind::Fault, 139);
}

pub(super) fn power_button(stage: &Stage) {
    let mut guest = serving(stage, "serve");
    guest.run("(head -c 24 /dev/input/event0 >/dev/null; poweroff -f) &");
    let pressed = guest.control().ask(Op::PowerButton);
    assert_eq!(pressed, Ok(Answer::Done));
    guest.wait().assert_exited(0);
}

fn serving(stage: &Stage, role: &str) -> Guest {
    Guest::serve(stage, linux(stage, Part::BzImage, role))
}
