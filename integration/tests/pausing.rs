//! Pauses, resumes and single steps at awkward moments: each request is answered, soon, and the
//! guest's clock neither steps back nor runs on while the guest stands still.

use std::fs::OpenOptions;
use std::time::Duration;

use integration::needs_kvm;
use integration::outlet::Outlet;
use integration::sliver::{SOON, Sliver, until};
use vmm::control::proto::{Answer, Op, Outcome, State};

/// A pause that the guest's clock must not show; the guest bears half of it.
const LONG_PAUSE: Duration = Duration::from_secs(2);

fn moment(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

// Requests that overtake each other.

#[test]
fn registers_asked_for_together_with_a_resume_do_not_hang_the_monitor() {
    needs_kvm!();
    let sliver = Sliver::bare("busy").spawn_running();
    for _ in 0..20 {
        sliver.assert_pauses();
        let ops = [Op::Resume, Op::ReadRegisters { vcpu: 0 }];
        let outcomes = sliver.control().ask_together(ops);
        assert_eq!(outcomes[0], Outcome::Ok(Answer::Done));
    }
    sliver.assert_well();
}

#[test]
fn a_pause_that_a_resume_overtakes_is_answered() {
    needs_kvm!();
    for case in ["busy", "idle", "flood"] {
        let sliver = Sliver::bare(case).spawn_running();
        for _ in 0..20 {
            sliver.control().ask_together([Op::Pause, Op::Resume]);
        }
        sliver.assert_well();
    }
}

#[test]
fn a_paused_vcpu_that_has_never_run_shows_its_registers() {
    needs_kvm!();
    for _ in 0..50 {
        let sliver = Sliver::bare("busy").field("start_paused", true).spawn();
        let mut control = sliver.control();
        assert_eq!(control.ask(Op::Pause), Ok(Answer::Done));
        let registers = control.ask(Op::ReadRegisters { vcpu: 0 });
        assert!(registers.is_ok(), "{registers:?}");
    }
}

// The guest's clock. The guest ends by itself if it steps back or jumps.

#[test]
fn the_clock_does_not_step_back_when_a_running_sliver_is_resumed() {
    needs_kvm!();
    let sliver = Sliver::bare("clock").spawn_running();
    let mut control = sliver.control();
    moment(1500);
    for _ in 0..50 {
        assert_eq!(control.ask(Op::Resume), Ok(Answer::Done));
    }
    moment(100); // for the guest to notice
    sliver.assert_well();
}

#[test]
fn the_clock_does_not_step_back_when_pause_and_resume_come_together() {
    needs_kvm!();
    let sliver = Sliver::bare("clock").spawn_running();
    let mut control = sliver.control();
    moment(1500);
    for _ in 0..50 {
        control.ask_together([Op::Pause, Op::Resume]);
    }
    moment(100); // for the guest to notice
    sliver.assert_well();
}

#[test]
fn the_clock_stands_still_while_the_sliver_is_paused() {
    needs_kvm!();
    let sliver = Sliver::bare("clock").spawn_running();
    sliver.assert_pauses();
    std::thread::sleep(LONG_PAUSE);
    sliver.control().ask(Op::Resume).expect("it goes on");
    moment(300);
    sliver.assert_well();
}

#[test]
fn the_clock_stands_still_while_a_sliver_is_paused_whose_output_waits() {
    needs_kvm!();
    let (mut outlet, console) = Outlet::new();
    let sliver = Sliver::bare("clock-flood")
        .console_to(console)
        .spawn_running();
    outlet.drain(Duration::from_millis(1500));
    moment(300);
    sliver.assert_pauses();
    std::thread::sleep(LONG_PAUSE);
    sliver.control().ask(Op::Resume).expect("it goes on");
    outlet.drain(Duration::from_millis(500));
    sliver.assert_well();
}

// Output that is slow or endless.

#[test]
fn one_doorbell_for_gigabytes_does_not_keep_a_pause_away() {
    needs_kvm!();
    let void = OpenOptions::new().write(true).open("/dev/null");
    let void = void.expect("Linux has /dev/null");
    let sliver = Sliver::bare("print-gigabytes")
        .console_to(void)
        .spawn_running();
    moment(200);
    sliver.assert_pauses();
    sliver.control().ask(Op::Resume).expect("it goes on");
    sliver.assert_well();
}

#[test]
fn a_vcpu_that_waits_for_the_console_beside_one_that_clogs_it_does_not_keep_a_pause_away() {
    needs_kvm!();
    let (mut outlet, console) = Outlet::new();
    let sliver = Sliver::bare("clog-beside")
        .vcpus(2)
        .console_to(console)
        .spawn_running();
    moment(500);
    sliver.assert_pauses();
    sliver.control().ask(Op::Resume).expect("it goes on");
    assert!(outlet.drain(SOON) > 1 << 20, "it does not go on");
    sliver.assert_well();
}

#[test]
fn nothing_is_printed_between_the_answer_to_a_pause_and_the_resume() {
    needs_kvm!();
    let (mut outlet, console) = Outlet::new();
    let sliver = Sliver::bare("print-flood")
        .console_to(console)
        .spawn_running();
    until("it has printed", || (outlet.held() > 0).then_some(()));
    for _ in 0..5 {
        sliver.assert_pauses();
        let held = outlet.held();
        assert_eq!(outlet.drain(Duration::from_millis(300)), held);
        assert_eq!(sliver.control().status().state, State::Paused);
        sliver.control().ask(Op::Resume).expect("it goes on");
        until("it prints again", || (outlet.held() > 0).then_some(()));
    }
    sliver.assert_well();
}

// Debuggers.

#[test]
fn a_debugger_that_leaves_right_after_a_step_leaves_the_sliver_running() {
    needs_kvm!();
    for _ in 0..10 {
        let sliver = Sliver::bare("busy").spawn_running();
        let mut debugger = sliver.control();
        debugger.ask(Op::Debug).expect("it may debug");
        debugger.ask(Op::Pause).expect("it pauses");
        debugger.send(Op::Step { vcpu: 0 });
        drop(debugger);
        moment(50);
        sliver.control().wait_for(State::Running);
        sliver.assert_well();
    }
}

#[test]
fn a_step_without_a_debugger_is_refused() {
    needs_kvm!();
    let sliver = Sliver::bare("busy").spawn_running();
    sliver.assert_pauses();
    let step = sliver.control().ask(Op::Step { vcpu: 0 });
    assert!(step.is_err(), "{step:?}");
    sliver.control().ask(Op::Resume).expect("it goes on");
    sliver.assert_well();
}

#[test]
fn a_step_that_a_resume_overtakes_leaves_the_sliver_running() {
    needs_kvm!();
    let sliver = Sliver::bare("busy").spawn_running();
    let (mut debugger, mut witness) = (sliver.control(), sliver.control());
    debugger.ask(Op::Debug).expect("it may debug");
    for _ in 0..20 {
        debugger.ask(Op::Pause).expect("it pauses");
        debugger.send_together([Op::Step { vcpu: 0 }, Op::Resume]);
        moment(20);
        assert_eq!(witness.status().state, State::Running);
        debugger.send(Op::Pause);
        // The step may be answered by the pause: that is the next stop.
        for _ in 0..3 {
            debugger.reply().expect("an answer to each");
        }
        debugger.ask(Op::Resume).expect("it goes on");
    }
    sliver.assert_well();
}
