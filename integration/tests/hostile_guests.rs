//! Guests that misuse the control window, or keep the monitor busy: a misused register is ignored
//! and counted, and whoever steers the sliver still does.

use std::time::{Duration, Instant};

use integration::client::Client;
use integration::guests;
use integration::needs_kvm;
use integration::sliver::{Ended, Running, Sliver};
use vmm::control::proto::{Op, State};
use vmm::exit::ExitKind;

fn bare(case: &str) -> Sliver {
    Sliver::new(guests::bare()).args([case])
}

/// Runs a case of the guest that must find everything as the ABI says.
#[track_caller]
fn bears(case: &str) -> Ended {
    let ended = bare(case).run();
    ended.assert_exited(0);
    ended
}

#[test]
fn wrong_accesses_to_the_control_window_are_ignored_and_counted() {
    needs_kvm!();
    let ended = bears("control-misuse");
    // Per register four wrong writes, and four writes where there is no register.
    let ignored = ended.record().ignored_accesses;
    assert!(ignored >= 4 * 4 + 4, "{ended:#?}");
}

#[test]
fn a_wake_of_a_vcpu_that_does_not_exist_is_ignored_and_counted() {
    needs_kvm!();
    assert!(bears("wake-missing").record().ignored_accesses >= 5);
}

#[test]
fn an_idle_with_a_deadline_in_the_past_returns_at_once() {
    needs_kvm!();
    bears("idle-past");
}

#[test]
fn an_idle_with_the_last_deadline_there_is_sleeps_and_can_be_stopped() {
    needs_kvm!();
    let sliver = bare("idle-max").spawn();
    let mut control = sliver.control();
    control.wait_for(State::Running);
    std::thread::sleep(Duration::from_millis(300));
    let cpu = control.status().cpu_us;
    assert!(
        cpu.guest + cpu.monitor < 200_000,
        "it does not sleep: {cpu:?}"
    );
    stop(sliver, &mut control);
}

#[test]
fn any_vcpu_may_end_the_sliver() {
    needs_kvm!();
    let sliver = Sliver::new(guests::bare()).args(["exit-from-1", "33"]);
    sliver.vcpus(2).run().assert_exited(33);
}

/// However busy the guest keeps the monitor, a pause stops it and a stop ends it.
fn stop(sliver: Running, control: &mut Client) {
    control
        .ask(Op::Stop {
            reason: "test".into(),
        })
        .expect("it stops");
    sliver.wait().assert_end(ExitKind::Stopped, 143);
}

fn steerable_while(case: &str, vcpus: usize) {
    let sliver = bare(case).vcpus(vcpus).spawn();
    let mut control = sliver.control();
    control.wait_for(State::Running);
    for _ in 0..20 {
        let asked = Instant::now();
        control.ask(Op::Pause).expect("it pauses");
        assert!(asked.elapsed() < Duration::from_secs(5), "slow to pause");
        assert_eq!(control.status().state, State::Paused);
        control.ask(Op::Resume).expect("it goes on");
    }
    stop(sliver, &mut control);
}

#[test]
fn a_flood_of_exits_does_not_keep_pause_and_stop_away() {
    needs_kvm!();
    steerable_while("flood", 1);
}

#[test]
fn a_guest_that_never_leaves_does_not_keep_pause_and_stop_away() {
    needs_kvm!();
    steerable_while("busy", 1);
}

#[test]
fn a_flood_of_output_that_nobody_reads_does_not_keep_pause_and_stop_away() {
    needs_kvm!();
    let sliver = bare("print-flood").clogged().spawn();
    let mut control = sliver.control();
    control.wait_for(State::Running);
    std::thread::sleep(Duration::from_millis(300));
    for _ in 0..20 {
        control.ask(Op::Pause).expect("it pauses");
        control.ask(Op::Resume).expect("it goes on");
    }
    stop(sliver, &mut control);
}
