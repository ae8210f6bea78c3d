//! The machine of a legacy kernel, tried with one that is none: how it begins and ends, rests, counts
//! its processors and hears what is typed. It runs on every KVM, Linux or not.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use integration::needs_kvm;
use integration::sliver::{Ended, Running, Sliver};
use vmm::control::proto::{Answer, Op, State};
use vmm::exit::ExitKind;

/// Runs a case that ends the machine somehow, and tells the message of its end.
#[track_caller]
fn message(case: &str, kind: ExitKind, status: u8) -> String {
    let ended = Sliver::kernel(case).run();
    ended.assert_end(kind, status);
    assert!(!ended.console.contains("it goes on"), "{ended:#?}");
    ended.record().exit.detail.message.clone()
}

#[track_caller]
fn printing(sliver: Sliver) -> Ended {
    let ended = sliver.run();
    ended.assert_exited(0);
    ended
}

#[test]
fn a_kernel_is_entered_as_pvh_says_and_prints_over_the_serial_port() {
    needs_kvm!();
    assert_eq!(printing(Sliver::kernel("hello")).console, "hello\n");
    let with_acpi = Sliver::kernel("hello").field("kernel", serde_json::json!({}));
    assert_eq!(printing(with_acpi).console, "hello\n");
}

#[test]
fn powering_off_ends_with_status_0() {
    needs_kvm!();
    for case in ["poweroff", "poweroff-bochs"] {
        assert_eq!(message(case, ExitKind::Exited, 0), "powered off", "{case}");
    }
}

#[test]
fn a_reset_is_told_from_an_end() {
    needs_kvm!();
    for case in ["reboot", "reboot-8042"] {
        message(case, ExitKind::Rebooted, 85);
    }
}

#[test]
fn a_triple_fault_is_a_fault() {
    needs_kvm!();
    message("triple-fault", ExitKind::Fault, 139);
}

#[test]
fn a_panic_is_told_with_what_the_kernel_said() {
    needs_kvm!();
    let message = message("panic", ExitKind::Panicked, 134);
    assert!(message.contains("it was told to"), "{message:?}");
}

#[test]
fn a_status_written_to_the_exit_port_is_the_end() {
    needs_kvm!();
    for status in ["0", "1", "42", "255"] {
        let ended = Sliver::kernel("status").args(["status", status]).run();
        ended.assert_exited(status.parse().expect("it is a status"));
    }
}

#[test]
fn an_exception_is_the_kernels_own() {
    needs_kvm!();
    let ended = Sliver::kernel("exception").run();
    ended.assert_exited(128 | 6);
    assert!(ended.console.starts_with("exception 6"), "{ended:#?}");
}

#[test]
fn all_processors_start_and_are_counted() {
    needs_kvm!();
    for count in [1, 2, 5] {
        let ended = printing(Sliver::kernel("smp").vcpus(count));
        assert_eq!(ended.console, format!("{count} processors\n"));
    }
}

#[test]
fn a_kernel_that_halts_for_ever_costs_nothing_and_can_be_ended() {
    needs_kvm!();
    for (case, shown) in [("halt", "halting"), ("rest", "resting")] {
        let sliver = Sliver::kernel(case).spawn_running();
        sliver.wait_for_console(shown);
        let cost = cost_of_a_while(&sliver);
        assert!(cost < Duration::from_millis(50), "{case} cost {cost:?}");
        sliver.assert_pauses();
        let resumed = sliver.control().ask(Op::Resume);
        assert_eq!(resumed, Ok(Answer::Done));
        sliver.assert_well();
    }
}

/// Processor time that a sliver takes of a second.
fn cost_of_a_while(sliver: &Running) -> Duration {
    let mut control = sliver.control();
    let mut spent = || {
        let cpu = control.status().cpu_us;
        Duration::from_micros(cpu.guest + cpu.monitor)
    };
    let before = spent();
    std::thread::sleep(Duration::from_secs(1));
    spent() - before
}

#[test]
fn a_time_limit_ends_a_kernel_that_halts_or_spins() {
    needs_kvm!();
    for case in ["halt", "spin"] {
        let ended = Sliver::kernel(case).field("time_limit_ms", 1000).run();
        ended.assert_end(ExitKind::Timeout, 124);
    }
}

#[test]
fn a_kernel_that_never_leaves_can_be_paused_and_stopped() {
    needs_kvm!();
    for vcpus in [1, 2] {
        let sliver = Sliver::kernel("spin").vcpus(vcpus).spawn_running();
        sliver.assert_pauses();
        let resumed = sliver.control().ask(Op::Resume);
        assert_eq!(resumed, Ok(Answer::Done));
        sliver.assert_well();
    }
}

#[test]
fn what_is_typed_interrupts_and_is_heard() {
    needs_kvm!();
    let (sliver, mut typist) = echo();
    typist.write_all(b"hello").expect("it is typed");
    sliver.wait_for_console("hello");
    // More than the port holds at once.
    let long = "0123456789".repeat(100);
    typist.write_all(long.as_bytes()).expect("it is typed");
    sliver.wait_for_console(&long);
    typist.write_all(b"\x04").expect("it is typed");
    sliver.wait().assert_exited(0);
}

#[test]
fn what_is_typed_during_a_pause_is_heard_after_it() {
    needs_kvm!();
    let (sliver, mut typist) = echo();
    sliver.assert_pauses();
    typist.write_all(b"later").expect("it is typed");
    assert_eq!(sliver.control().status().state, State::Paused);
    assert!(!sliver.console().contains("later"));
    assert_eq!(sliver.control().ask(Op::Resume), Ok(Answer::Done));
    sliver.wait_for_console("later");
    typist.write_all(b"\x04").expect("it is typed");
    sliver.wait().assert_exited(0);
}

/// A kernel that says what is typed, and the typist.
fn echo() -> (Running, UnixStream) {
    let (typist, typed) = UnixStream::pair().expect("a socket pair is made");
    let sliver = Sliver::kernel("echo")
        .field("console", serde_json::json!({ "input": true }))
        .input_from(OwnedFd::from(typed))
        .spawn_running();
    sliver.wait_for_console("ready");
    (sliver, typist)
}

#[test]
fn a_new_size_of_the_balloon_interrupts() {
    needs_kvm!();
    let case = "interrupt-of-configuration";
    let sliver = Sliver::kernel(case).args([case, "balloon"]).spawn_running();
    sliver.wait_for_console("listening");
    assert_eq!(
        sliver.control().ask(Op::SetBalloon { mib: 1 }),
        Ok(Answer::Done)
    );
    sliver.wait().assert_exited(0);
}

#[test]
fn a_processor_at_rest_is_woken_when_a_device_fails_beside_it() {
    needs_kvm!();
    Sliver::kernel("fail-beside")
        .vcpus(2)
        .run()
        .assert_exited(0);
}
