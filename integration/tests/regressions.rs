//! What once broke the monitor: outputs that are closed or full, signals blocked by its parent, long
//! starts, too much of everything. It lives on, ends when told to and leaves a record that is right.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use integration::elf::{Elf, Header, TEXT};
use integration::needs_kvm;
use integration::outlet::{Outlet, to_nobody};
use integration::sliver::{Ended, Running, SOON, Sliver, new_place, until};
use object::elf;
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use slice_abi::layout::{PAGE_SIZE, RAM_BASE};
use vmm::control::proto::{Op, Outcome, State};
use vmm::exit::ExitKind;

fn moment(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

// Output that is slow, endless or goes nowhere.

#[test]
fn a_failing_queue_does_no_harm_when_nobody_reads_the_messages() {
    needs_kvm!();
    Sliver::bare("loop")
        .errors_to(to_nobody())
        .run()
        .assert_exited(0);
    let full = OpenOptions::new().write(true).open("/dev/full");
    let full = full.expect("Linux has /dev/full");
    Sliver::bare("loop").errors_to(full).run().assert_exited(0);
}

#[test]
fn a_start_that_fails_ends_with_125_when_nobody_reads_the_messages() {
    needs_kvm!();
    let absent = Sliver::new("/absent/image");
    let ended = absent.errors_to(to_nobody()).run();
    ended.assert_end(ExitKind::Error, 125);
}

/// A sliver that has filled the one pipe that takes its console and the monitor's messages.
fn gagged(sliver: Sliver) -> (Running, Outlet) {
    let (outlet, pipe) = Outlet::new();
    let twin = pipe.try_clone().expect("a descriptor is copied");
    let sliver = sliver.console_to(pipe).errors_to(twin).spawn_running();
    until("the pipe is full", || {
        (outlet.held() >= 1 << 16).then_some(())
    });
    (sliver, outlet)
}

#[test]
fn messages_that_nobody_reads_do_not_keep_sigterm_away() {
    needs_kvm!();
    let (sliver, _outlet) = gagged(Sliver::bare("fill-and-fail"));
    moment(300);
    sliver.signal(Signal::TERM);
    let ended = sliver.wait_within(SOON);
    ended.assert_end(ExitKind::Stopped, 143);
}

#[test]
fn messages_that_nobody_reads_do_not_keep_the_time_limit_away() {
    needs_kvm!();
    let (sliver, _outlet) = gagged(Sliver::bare("fill-and-fail").field("time_limit_ms", 1000));
    let ended = sliver.wait_within(2 * SOON);
    ended.assert_end(ExitKind::Timeout, 124);
}

#[test]
fn a_failed_queue_wakes_an_idle_vcpu() {
    needs_kvm!();
    let sliver = Sliver::bare("fail-beside")
        .vcpus(2)
        .field("time_limit_ms", 5000);
    sliver.run().assert_exited(0);
}

// Signals that the monitor's parent had blocked.

fn block_kick() {
    block(Some(libc::SIGRTMIN()));
}

fn block_all() {
    block(None);
}

#[allow(unsafe_code, reason = "no safe interface blocks signals")]
fn block(signal: Option<i32>) {
    // SAFETY: the set is initialised by sigfillset or sigemptyset before it is used, and the calls
    // write nothing but the set and this thread's mask.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        match signal {
            Some(signal) => {
                libc::sigemptyset(&mut set);
                libc::sigaddset(&mut set, signal);
            }
            None => {
                libc::sigfillset(&mut set);
            }
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
}

#[test]
fn signals_blocked_by_the_parent_do_not_keep_pause_stop_and_the_time_limit_away() {
    needs_kvm!();
    for block in [block_kick as fn(), block_all] {
        let masked = || Sliver::bare("busy").launched_after(block);
        let sliver = masked().spawn_running();
        sliver.assert_pauses();
        sliver.control().ask(Op::Resume).expect("it goes on");
        sliver.assert_well();
        let sliver = masked().field("time_limit_ms", 300).spawn();
        let ended = sliver.wait_within(SOON);
        ended.assert_end(ExitKind::Timeout, 124);
    }
}

// A start that takes long.

/// Starts an image that says it has gigabytes of data, does `then` while it is being loaded, and
/// returns how it ended.
fn ended_while_loading(
    sliver: impl FnOnce(Sliver) -> Sliver,
    then: impl FnOnce(&mut Running),
) -> Ended {
    const DATA_MIB: u64 = 3 << 10;
    const DATA_AT: u64 = 2 * PAGE_SIZE;
    let mut image = Elf::with_code(&[0xeb, 0xfe]); // jumps to itself
    image.headers.push(Header {
        offset: DATA_AT,
        filesz: DATA_MIB << 20,
        ..Header::zeroed(
            elf::PF_R.0 | elf::PF_W.0,
            RAM_BASE + DATA_AT,
            (DATA_MIB << 20) / PAGE_SIZE,
        )
    });
    let place = Arc::new(new_place());
    let path = place.path().join("image");
    fs::write(&path, image.bytes()).expect("the image is written");
    let file = OpenOptions::new().write(true).open(&path);
    let file = file.expect("the image is there");
    file.set_len(DATA_AT + (DATA_MIB << 20))
        .expect("a file may have a hole");
    let big = Sliver::new(&path)
        .memory_mib(DATA_MIB + 64)
        .in_place(&place);
    let mut sliver = sliver(big).spawn();
    until("it has its directory", || {
        sliver.dir().exists().then_some(())
    });
    moment(100);
    then(&mut sliver);
    sliver.wait_within(SOON)
}

#[test]
fn sigterm_ends_a_start() {
    needs_kvm!();
    let ended = ended_while_loading(|sliver| sliver, |sliver| sliver.signal(Signal::TERM));
    ended.assert_end(ExitKind::Stopped, 143);
}

#[test]
fn cutting_the_tie_ends_a_start() {
    needs_kvm!();
    let ended = ended_while_loading(|sliver| sliver, Running::cut_tie);
    assert_eq!(ended.status.code(), Some(143), "{ended:#?}");
}

#[test]
fn the_time_limit_ends_a_start() {
    needs_kvm!();
    let ended = ended_while_loading(|sliver| sliver.field("time_limit_ms", 300), |_| {});
    ended.assert_end(ExitKind::Timeout, 124);
}

// Too much of everything.

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number
        .and_then(|kib| kib.parse().ok())
        .expect("it tells its memory")
}

#[test]
fn waits_without_end_are_refused_and_cost_no_memory() {
    needs_kvm!();
    let sliver = Sliver::bare("idle").spawn_running();
    let before = resident_kib(sliver.pid());
    let refused = sliver.control().flood(&Op::WaitStop, 100_000);
    assert_ne!(refused, Some(0));
    let grown = resident_kib(sliver.pid()).saturating_sub(before);
    assert!(grown < 4096, "{grown} KiB more");
    sliver.assert_well();
}

#[test]
fn questions_that_wait_for_their_answers_to_be_read_are_answered_then() {
    needs_kvm!();
    let sliver = Sliver::bare("idle").spawn_running();
    for times in [100, 300, 1000] {
        let answers = sliver.control().ask_together(vec![Op::Status; times]);
        assert!(
            answers
                .iter()
                .all(|answer| matches!(answer, Outcome::Ok(_)))
        );
    }
    sliver.assert_well();
}

#[test]
fn the_reason_of_a_stop_is_kept_short() {
    needs_kvm!();
    let sliver = Sliver::bare("busy").spawn_running();
    let reason = "because ".repeat(900_000 / 8);
    sliver.control().ask(Op::Stop { reason }).expect("it stops");
    let ended = sliver.wait();
    ended.assert_end(ExitKind::Stopped, 143);
    let message = &ended.record().exit.detail.message;
    assert!(message.starts_with("because"), "{message:.100}");
    assert!(message.len() < 4096, "{} bytes", message.len());
}

#[test]
fn a_spec_of_a_hundred_thousand_mistakes_is_refused_in_short() {
    needs_kvm!();
    let ended = Sliver::bare("busy").field("args", vec![1; 100_000]).run();
    ended.assert_end(ExitKind::Error, 125);
    let message = &ended.record().exit.detail.message;
    assert!(message.contains("args"), "{message:.100}");
    assert!(message.len() < 16 << 10, "{} bytes", message.len());
    assert!(
        ended.errors.len() < 16 << 10,
        "{} bytes",
        ended.errors.len()
    );
}

#[test]
fn what_a_spec_says_does_not_reach_the_terminal_raw() {
    needs_kvm!();
    const FORGED: &str = "x\nslicevmm: all is well\u{1b}[2J\u{9b}2J\r";
    for ended in [
        Sliver::bare("busy").field(FORGED, 1).run(),
        Sliver::bare("busy").field("name", FORGED).run(),
        Sliver::bare("busy").field("slice", FORGED).run(),
        Sliver::new(Path::new("/absent").join(FORGED)).run(),
    ] {
        ended.assert_end(ExitKind::Error, 125);
        for text in [&ended.record().exit.detail.message, ended.errors.trim_end()] {
            assert!(!text.contains(char::is_control), "{text:?}");
        }
    }
}

#[test]
fn a_monitor_without_descriptors_waits_for_some_and_serves_again() {
    needs_kvm!();
    let sliver = Sliver::bare("idle").spawn_running();
    let mut witness = sliver.control();
    witness.wait_for(State::Running);
    let open = fs::read_dir(format!("/proc/{}/fd", sliver.pid())).expect("it is there");
    let limit = Some(open.count() as u64 + 2);
    let limit = Rlimit {
        current: limit,
        maximum: limit,
    };
    prlimit(Pid::from_raw(sliver.pid() as i32), Resource::Nofile, limit).expect("it is ours");
    let crowd: Vec<_> = (0..12).map(|_| sliver.control()).collect();
    moment(200);
    let before = witness.status().cpu_us.monitor;
    moment(1000);
    let used = witness.status().cpu_us.monitor - before;
    assert!(used < 300_000, "{used} us in 1 s");
    drop(crowd);
    sliver.assert_well();
}

// What is left and what is told.

#[test]
fn an_untied_start_that_fails_leaves_its_record_in_place_of_an_older_one() {
    needs_kvm!();
    let place = Arc::new(new_place());
    let named = |sliver: Sliver| sliver.field("name", "again").untied().in_place(&place);
    named(Sliver::bare("idle-past")).run().assert_exited(0);
    let absent = Path::new("/absent/image");
    named(Sliver::new(absent)).run().assert_refused(absent, &[]);
    let fresh = Sliver::new(absent).untied().run();
    fresh.assert_refused(absent, &["No such file"]);
}

#[test]
fn a_writable_segment_below_the_code_is_refused() {
    needs_kvm!();
    let mut image = Elf::right();
    image.entry += PAGE_SIZE;
    image.headers[TEXT].vaddr += PAGE_SIZE;
    let flags = elf::PF_R.0 | elf::PF_W.0;
    let data = Header::zeroed(flags, RAM_BASE + PAGE_SIZE, 1);
    image.headers.insert(TEXT, data);
    let place = new_place();
    let path = place.path().join("image");
    fs::write(&path, image.bytes()).expect("the image is written");
    Sliver::new(&path)
        .run()
        .assert_refused(&path, &["writable"]);
}

#[test]
fn memory_that_was_only_read_does_not_count_as_touched() {
    needs_kvm!();
    let touched = |case| {
        let ended = Sliver::bare(case).args([case, "40"]).run();
        ended.assert_exited(0).record().memory_kib.guest_touched
    };
    let read = touched("read-heap");
    assert!(read < 8 << 10, "{read} KiB for reading 40 MiB");
    let written = touched("write-heap");
    assert!(written >= 40 << 10, "{written} KiB for writing 40 MiB");
}
