//! A sliver's life as others steer it: over its control socket, by signals, by its tie.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use integration::client::Client;
use integration::sliver::{Running, Sliver, new_place, run_dir, until};
use integration::{guests, needs_kvm};
use rustix::process::Signal;
use vmm::control::proto::{Answer, MAX_FRAME, Op, Outcome, State};
use vmm::exit::ExitKind;

/// A sliver that sleeps until it is stopped, after it has said so.
fn idler() -> Running {
    let sliver = Sliver::new(guests::bare()).args(["idle"]).spawn();
    sliver.wait_for_console("recovered\n");
    sliver
}

/// A sliver that computes until it is stopped.
fn worker() -> Sliver {
    Sliver::new(guests::bare()).args(["busy"])
}

fn stop() -> Op {
    Op::Stop {
        reason: "enough".to_owned(),
    }
}

#[test]
fn status_tells_who_it_is_and_how_it_does() {
    needs_kvm!();
    let sliver = idler();
    let status = sliver.control().status();
    assert_eq!(status.pid, sliver.pid());
    assert_eq!(status.slice, "test_integration");
    assert_eq!(status.owner, "Integration Test");
    assert_eq!(status.contact, "test@example.org");
    assert_eq!(status.image, guests::bare().to_string_lossy());
    assert_eq!((status.state, status.vcpus), (State::Running, 1));
    assert_eq!(status.memory_kib, 64 << 10);
    assert!(status.cpu_us.guest > 0);
}

#[test]
fn a_paused_sliver_computes_nothing_until_it_is_resumed() {
    needs_kvm!();
    let sliver = worker().vcpus(2).spawn();
    let mut control = sliver.control();
    control.wait_for(State::Running);
    assert_eq!(control.ask(Op::Pause), Ok(Answer::Done));
    assert_eq!(control.status().state, State::Paused);
    let before = control.status().cpu_us.guest;
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(control.status().cpu_us.guest, before);
    assert_eq!(control.ask(Op::Resume), Ok(Answer::Done));
    until("it computes again", || {
        (control.status().cpu_us.guest > before).then_some(())
    });
}

#[test]
fn a_sliver_may_wait_for_its_resume_before_its_first_instruction() {
    needs_kvm!();
    let sliver = Sliver::example("hello").field("start_paused", true).spawn();
    let mut control = sliver.control();
    control.wait_for(State::Paused);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(sliver.console(), "");
    control.ask(Op::Resume).expect("it goes on");
    sliver.wait().assert_exited(0);
}

#[test]
fn pausing_twice_and_resuming_twice_is_no_mistake() {
    needs_kvm!();
    let sliver = idler();
    let mut control = sliver.control();
    for op in [Op::Pause, Op::Pause, Op::Resume, Op::Resume] {
        assert_eq!(control.ask(op), Ok(Answer::Done));
    }
    assert_eq!(control.status().state, State::Running);
}

#[test]
fn a_stop_ends_it_with_143_and_the_reason_given() {
    needs_kvm!();
    let sliver = idler();
    assert_eq!(sliver.control().ask(stop()), Ok(Answer::Done));
    let ended = sliver.wait();
    ended.assert_end(ExitKind::Stopped, 143);
    assert!(ended.record().exit.detail.message.contains("enough"));
}

#[test]
fn a_paused_sliver_can_be_stopped() {
    needs_kvm!();
    let sliver = worker().spawn();
    let mut control = sliver.control();
    control.ask(Op::Pause).expect("it pauses");
    control.ask(stop()).expect("it stops");
    sliver.wait().assert_end(ExitKind::Stopped, 143);
}

#[test]
fn two_clients_are_served_side_by_side() {
    needs_kvm!();
    let sliver = worker().spawn();
    let (mut one, mut two) = (sliver.control(), sliver.control());
    one.ask(Op::Pause).expect("it pauses");
    assert_eq!(two.status().state, State::Paused);
    two.ask(Op::Resume).expect("it goes on");
    assert_eq!(one.status().state, State::Running);
    drop(one);
    assert_eq!(two.status().state, State::Running);
}

#[test]
fn clients_that_say_nothing_keep_nobody_away() {
    needs_kvm!();
    let sliver = idler();
    let silent: Vec<Client> = (0..40).map(|_| sliver.control()).collect();
    assert_eq!(sliver.control().status().state, State::Running);
    drop(silent);
    assert_eq!(sliver.control().status().state, State::Running);
}

#[test]
fn requests_are_answered_each_with_its_own_number() {
    needs_kvm!();
    let sliver = idler();
    let mut control = sliver.control();
    let sent: Vec<u64> = (0..50).map(|_| control.send(Op::Status)).collect();
    let mut answered: Vec<u64> = (0..50)
        .map(|_| control.reply().expect("an answer to each").id)
        .collect();
    answered.sort_unstable();
    assert_eq!(answered, sent);
}

/// Sends what no monitor understands. The client may be told or cut off; others are still served.
fn bad_request(send: impl FnOnce(&mut Client), words: &[&str]) {
    let sliver = idler();
    let mut control = sliver.control();
    send(&mut control);
    if let Some(reply) = control.reply() {
        let Outcome::Error(refusal) = reply.result else {
            panic!("it was taken: {reply:?}");
        };
        for word in words {
            assert!(refusal.contains(word), "{refusal:?} does not say {word:?}");
        }
    }
    assert_eq!(sliver.control().status().state, State::Running);
}

#[test]
fn a_body_that_is_not_json_is_refused() {
    needs_kvm!();
    bad_request(|control| control.send_body("not json"), &[]);
    bad_request(|control| control.send_body(""), &[]);
    bad_request(
        |control| control.send_raw(&[4, 0, 0, 0, 0xff, 0xfe, 0, 0]),
        &[],
    );
}

#[test]
fn an_oversized_frame_is_refused_by_its_head() {
    needs_kvm!();
    let head = (MAX_FRAME as u32 + 1).to_le_bytes();
    bad_request(|control| control.send_raw(&head), &[]);
    bad_request(|control| control.send_raw(&[0xff; 4096]), &[]);
}

#[test]
fn another_version_of_the_protocol_is_refused_by_name() {
    needs_kvm!();
    let body = r#"{"v":2,"id":1,"op":"status"}"#;
    bad_request(|control| control.send_body(body), &["version"]);
}

#[test]
fn an_unknown_operation_is_refused() {
    needs_kvm!();
    let body = r#"{"v":1,"id":1,"op":"frobnicate"}"#;
    bad_request(|control| control.send_body(body), &["frobnicate"]);
}

#[test]
fn half_a_request_keeps_nobody_away() {
    needs_kvm!();
    let sliver = idler();
    let mut half = sliver.control();
    half.send_raw(&[100, 0, 0, 0, b'{']);
    assert_eq!(sliver.control().status().state, State::Running);
    drop(half);
    assert_eq!(sliver.control().status().state, State::Running);
}

#[test]
fn a_time_limit_ends_it_with_124() {
    needs_kvm!();
    let started = Instant::now();
    let ended = worker().field("time_limit_ms", 300).run();
    ended.assert_end(ExitKind::Timeout, 124);
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert!(ended.record().timing_us.total >= 300_000, "{ended:#?}");
}

#[test]
fn a_time_limit_also_ends_a_sliver_that_sleeps() {
    needs_kvm!();
    let sliver = Sliver::new(guests::bare()).args(["idle"]);
    let ended = sliver.field("time_limit_ms", 300).run();
    ended.assert_end(ExitKind::Timeout, 124);
}

#[test]
fn sigterm_stops_it() {
    needs_kvm!();
    let sliver = idler();
    sliver.signal(Signal::TERM);
    sliver.wait().assert_end(ExitKind::Stopped, 143);
}

#[test]
fn a_tied_sliver_leaves_ctrl_c_to_its_parent() {
    needs_kvm!();
    let sliver = idler();
    sliver.signal(Signal::INT);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(sliver.control().status().state, State::Running);
}

#[test]
fn cutting_the_tie_ends_it_and_leaves_nothing() {
    needs_kvm!();
    let mut sliver = idler();
    let dir = sliver.dir();
    sliver.cut_tie();
    let ended = sliver.wait();
    assert_eq!(ended.status.code(), Some(143), "{ended:#?}");
    assert!(!dir.exists());
}

#[test]
fn a_tied_sliver_removes_its_directory_when_it_ends() {
    needs_kvm!();
    let place = Arc::new(new_place());
    Sliver::example("hello")
        .in_place(&place)
        .run()
        .assert_exited(0);
    let left = fs::read_dir(run_dir(&place)).expect("the run directory is there");
    assert_eq!(left.count(), 0);
}

#[test]
fn an_untied_sliver_leaves_its_exit_record_and_no_socket() {
    needs_kvm!();
    let sliver = Sliver::example("hello")
        .args(["--status", "9"])
        .untied()
        .spawn();
    let dir = sliver.dir();
    sliver.wait().assert_exited(9);
    // Its temporary directory went with it; what was in it was read as the record above.
    assert!(!dir.exists());
}

#[test]
fn an_untied_sliver_can_be_stopped_like_any_other() {
    needs_kvm!();
    let place = Arc::new(new_place());
    let sliver = worker().untied().in_place(&place).spawn();
    let dir = sliver.dir();
    sliver.control().ask(stop()).expect("it stops");
    sliver.wait().assert_end(ExitKind::Stopped, 143);
    assert!(dir.join("exit.json").exists());
    assert!(!dir.join("control.sock").exists());
}

#[test]
fn its_directory_is_for_its_owner_alone() {
    needs_kvm!();
    let sliver = idler();
    let mode = fs::metadata(sliver.dir())
        .expect("it is there")
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o700);
}

#[test]
fn a_name_that_is_taken_is_refused_and_the_first_goes_on() {
    needs_kvm!();
    let place = Arc::new(new_place());
    let twin = |sliver: Sliver| sliver.field("name", "twin").in_place(&place);
    let first = twin(worker()).spawn();
    first.control().wait_for(State::Running);
    // Its machine may be made before the refusal or after it.
    for _ in 0..10 {
        let ended = twin(worker()).spawn().wait();
        assert_eq!(ended.status.code(), Some(125), "{ended:#?}");
        assert!(ended.errors.contains("twin"), "{ended:#?}");
    }
    assert_eq!(first.control().status().pid, first.pid());
}

#[test]
fn the_name_of_a_monitor_that_was_killed_is_free_again() {
    needs_kvm!();
    let place = Arc::new(new_place());
    let named = |sliver: Sliver| sliver.field("name", "again").in_place(&place);
    let first = named(worker()).spawn();
    first.control().wait_for(State::Running);
    first.signal(Signal::KILL);
    assert_eq!(first.wait().killed_by(), Some(9));
    named(Sliver::example("hello")).run().assert_exited(0);
}

#[test]
fn an_idle_sliver_costs_hardly_any_processor_time() {
    needs_kvm!();
    let sliver = idler();
    let mut control = sliver.control();
    let cpu = |control: &mut Client| {
        let cpu = control.status().cpu_us;
        cpu.guest + cpu.monitor
    };
    let before = cpu(&mut control);
    std::thread::sleep(Duration::from_secs(2));
    let used = cpu(&mut control) - before;
    // Two status requests cost some hundred microseconds; 1 % of the time would be 20 ms.
    assert!(used < 20_000, "{used} us in 2 s");
}
