//! Guests that misuse what the ABI gives them. The monitor bears it: a misused register is ignored
//! and counted, a misused queue makes the device ask for a reset and work again after it.

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

/// Runs a case that misuses the console; afterwards it must print again.
#[track_caller]
fn console_recovers_from(case: &str) {
    if integration::kvm_or_left_out() {
        let ended = bears(case);
        assert!(ended.console.ends_with("recovered\n"), "{ended:#?}");
    }
}

macro_rules! console_cases {
    ($($name:ident: $case:literal,)*) => {
        $(
            #[test]
            fn $name() {
                console_recovers_from($case);
            }
        )*
    };
}

console_cases! {
    a_descriptor_loop_fails_the_queue: "loop",
    a_descriptor_that_follows_itself_fails_the_queue: "loop-to-itself",
    a_next_out_of_range_fails_the_queue: "next-out-of-range",
    an_address_beyond_ram_fails_the_queue: "address-beyond-ram",
    an_address_in_the_null_page_fails_the_queue: "address-in-null-page",
    an_address_over_the_end_of_ram_fails_the_queue: "address-over-the-end",
    an_address_that_wraps_fails_the_queue: "address-wraps",
    a_huge_length_fails_the_queue: "length-huge",
    a_length_of_zero_does_no_harm: "length-zero",
    a_buffer_for_the_wrong_direction_does_no_harm: "device-writable",
    a_buffer_that_is_the_ring_does_no_harm: "aliases-the-ring",
    an_indirect_chain_that_was_not_negotiated_fails_the_queue: "indirect-not-negotiated",
    an_available_index_far_ahead_fails_the_queue: "avail-forward",
    an_available_index_that_goes_back_fails_the_queue: "avail-backward",
    a_head_out_of_range_fails_the_queue: "head-out-of-range",
    descriptors_that_change_in_flight_do_no_harm: "changed-in-flight",
    a_notify_before_driver_ok_is_ignored: "notify-early",
    resets_of_a_busy_device_are_clean: "reset-busy",
    a_queue_of_no_entries_is_refused: "queue-size-0",
    a_queue_of_three_entries_is_refused: "queue-size-3",
    a_queue_larger_than_the_device_has_is_refused: "queue-size-huge",
    a_queue_without_addresses_is_refused: "queue-no-addresses",
    a_queue_off_its_alignment_is_refused: "queue-unaligned",
    a_queue_beyond_ram_is_refused: "queue-beyond-ram",
    a_queue_over_the_end_of_ram_is_refused: "queue-over-the-end",
    a_used_ring_in_read_only_memory_is_refused: "used-ring-in-text",
    a_queue_that_does_not_exist_stays_unready: "queue-select-missing",
    a_half_of_the_features_that_does_not_exist_is_empty: "feature-select-missing",
    registers_that_do_not_exist_in_any_width_do_no_harm: "device-holes",
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

#[test]
fn a_neighbour_notices_nothing_of_a_failed_queue() {
    needs_kvm!();
    let hostile: Vec<_> = (0..4).map(|_| bare("loop").spawn()).collect();
    Sliver::example("hello").run().assert_exited(0);
    for sliver in hostile {
        sliver.wait().assert_exited(0);
    }
}
