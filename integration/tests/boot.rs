//! Every example booted for real, with its output and its status, in slivers of every shape.

use integration::elf::{Elf, RIGHT_STATUS};
use integration::sliver::Sliver;
use integration::{guests, needs_kvm};
use slice_abi::info::MAX_ARGS_BYTES;
use slice_abi::layout::MAX_VCPUS;
use tempfile::NamedTempFile;

#[test]
fn hello_greets_by_its_name_and_exits_with_0() {
    needs_kvm!();
    let ended = Sliver::example("hello").field("name", "ada").run();
    ended.assert_exited(0);
    assert_eq!(ended.console, "hello from ada\n");
    assert_eq!(ended.errors, "");
}

#[test]
fn arguments_arrive_with_spaces_and_in_any_script() {
    needs_kvm!();
    let args = ["two  words", "", "ünï", "日本", "🦀", "tab\there"];
    let ended = Sliver::example("hello")
        .field("name", "ada")
        .args(args)
        .run();
    ended.assert_exited(0);
    assert_eq!(
        ended.console,
        format!("hello from ada {}\n", args.join(" "))
    );
}

#[test]
fn arguments_may_fill_all_their_room() {
    needs_kvm!();
    let all = "x".repeat(MAX_ARGS_BYTES - 1);
    let ended = Sliver::example("hello").args([&all]).run();
    ended.assert_exited(0);
    assert!(ended.console.ends_with(&format!(" {all}\n")));
}

#[test]
fn one_byte_of_arguments_too_many_is_refused() {
    needs_kvm!();
    let ended = Sliver::example("hello")
        .args(["x".repeat(MAX_ARGS_BYTES)])
        .run();
    assert_eq!(ended.status.code(), Some(125), "{ended:#?}");
    assert!(ended.errors.contains("args: need 4097 bytes"), "{ended:#?}");
    assert_eq!(ended.console, "");
}

#[test]
fn many_arguments_arrive_one_by_one() {
    needs_kvm!();
    let ended = Sliver::example("hello")
        .args(vec!["a"; MAX_ARGS_BYTES / 2])
        .run();
    ended.assert_exited(0);
    assert_eq!(ended.console.matches(" a").count(), MAX_ARGS_BYTES / 2);
}

#[test]
fn a_status_is_passed_through() {
    needs_kvm!();
    for status in [0, 1, 42, 255] {
        let status_text = status.to_string();
        let ended = Sliver::example("hello")
            .args(["--status", &status_text])
            .run();
        ended.assert_exited(status);
    }
}

#[test]
fn only_the_low_byte_of_a_status_counts() {
    needs_kvm!();
    for (written, seen) in [("256", 0), ("257", 1), ("18446744073709551615", 255)] {
        let ended = Sliver::new(guests::bare()).args(["status", written]).run();
        ended.assert_exited(seen);
    }
}

#[test]
fn a_usage_error_of_the_guest_is_its_own() {
    needs_kvm!();
    let ended = Sliver::example("hello").args(["--frobnicate"]).run();
    ended.assert_exited(2);
    assert!(ended.console.starts_with("usage: hello"), "{ended:#?}");
}

#[test]
fn clocks_run_and_sleeps_are_never_short() {
    needs_kvm!();
    let ended = Sliver::example("clock").run();
    ended.assert_exited(0);
    assert!(ended.console.ends_with("clocks agree\n"), "{ended:#?}");
}

#[test]
fn spin_does_the_rounds_it_is_told_and_gets_the_same_sum_every_time() {
    needs_kvm!();
    let run = || Sliver::example("spin").args(["--rounds", "50"]).run();
    let checksum = |console: &str| {
        let line = console.lines().find(|line| line.starts_with("checksum "));
        line.expect("a checksum is printed").to_owned()
    };
    let (first, second) = (run(), run());
    first.assert_exited(0);
    assert!(first.console.starts_with("rounds 50\n"), "{first:#?}");
    assert_eq!(checksum(&first.console), checksum(&second.console));
}

#[test]
fn spin_stops_when_its_time_is_up() {
    needs_kvm!();
    let ended = Sliver::example("spin").args(["--ms", "100"]).run();
    ended.assert_exited(0);
    let cpu = ended.record().cpu_us;
    assert!(cpu.guest >= 2_000, "hardly any of it ran: {cpu:?}");
}

#[test]
fn the_heap_holds_what_was_written_to_it_on_every_vcpu() {
    needs_kvm!();
    let sliver = Sliver::example("heap").args(["--rounds", "20000"]);
    let ended = sliver.vcpus(2).memory_mib(128).run();
    ended.assert_exited(0);
    assert!(ended.console.starts_with("vcpus 2\n"), "{ended:#?}");
    assert!(ended.console.ends_with("all as written\n"), "{ended:#?}");
}

#[test]
fn one_to_eight_vcpus_get_the_same_right_results() {
    needs_kvm!();
    for vcpus in [1, 2, 3, 4, 8] {
        let sliver = Sliver::example("smp").args(["--rounds", "2"]);
        let ended = sliver.vcpus(vcpus).run();
        ended.assert_exited(0);
        let expected = format!("vcpus {vcpus}\nrounds 2\nall results right\n");
        assert_eq!(ended.console, expected);
    }
}

#[test]
fn as_many_vcpus_as_the_abi_allows_start() {
    needs_kvm!();
    let sliver = Sliver::example("smp").args(["--rounds", "1"]);
    let ended = sliver.vcpus(MAX_VCPUS).run();
    ended.assert_exited(0);
    assert!(
        ended.console.contains(&format!("vcpus {MAX_VCPUS}\n")),
        "{ended:#?}"
    );
}

#[test]
fn stacks_are_as_small_as_the_image_says() {
    needs_kvm!();
    // 32 stacks of the usual 256 KiB would be 8 MiB; `smp` asks for 64 KiB.
    let sliver = Sliver::example("smp").args(["--rounds", "1"]);
    let ended = sliver.vcpus(MAX_VCPUS).memory_mib(4).run();
    ended.assert_exited(0);
}

#[test]
fn no_vcpus_and_too_many_are_refused() {
    needs_kvm!();
    for vcpus in [0, MAX_VCPUS + 1] {
        let ended = Sliver::example("hello").vcpus(vcpus).run();
        assert_eq!(ended.status.code(), Some(125), "{ended:#?}");
        assert!(ended.errors.contains("vcpus"), "{ended:#?}");
    }
}

#[test]
fn memory_of_every_size_is_usable() {
    needs_kvm!();
    for memory in [2, 3, 4, 5, 63, 64, 256, 1024] {
        let ended = Sliver::example("hello").memory_mib(memory).run();
        ended.assert_exited(0);
    }
}

#[test]
fn one_mebibyte_is_enough_for_an_image_that_needs_no_more() {
    needs_kvm!();
    let image = NamedTempFile::new().expect("a temporary file is made");
    std::fs::write(image.path(), Elf::right().bytes()).expect("the image is written");
    let ended = Sliver::new(image.path()).memory_mib(1).run();
    ended.assert_exited(RIGHT_STATUS);
}

#[test]
fn too_little_memory_is_refused_with_how_much_is_needed() {
    needs_kvm!();
    // 32 stacks of 256 KiB alone are 8 MiB.
    let sliver = Sliver::example("hello").vcpus(MAX_VCPUS).memory_mib(1);
    let ended = sliver.run();
    assert_eq!(ended.status.code(), Some(125), "{ended:#?}");
    assert!(
        ended.errors.contains("memory of 1 MiB is too small"),
        "{ended:#?}"
    );
    assert!(ended.errors.contains("needs at least 9 MiB"), "{ended:#?}");
    let enough = Sliver::example("hello").vcpus(MAX_VCPUS).memory_mib(9);
    enough.run().assert_exited(0);
}

#[test]
fn every_mistake_of_a_spec_is_told_at_once() {
    needs_kvm!();
    let ended = Sliver::example("hello")
        .field("vcpus", 0)
        .field("memory_mib", "much")
        .field("slice", "nounderscore")
        .field("colour", "red")
        .run();
    assert_eq!(ended.status.code(), Some(125), "{ended:#?}");
    for word in ["vcpus", "memory_mib", "slice", "colour"] {
        assert!(ended.errors.contains(word), "{word} is missing: {ended:#?}");
    }
}

#[test]
fn the_exit_record_tells_when_things_happened_and_what_they_cost() {
    needs_kvm!();
    let ended = Sliver::example("hello").run();
    let record = ended.record();
    let time = record.timing_us;
    let order = [
        time.spawn,
        time.vm,
        time.load,
        time.first_instruction,
        time.total,
    ];
    assert!(order.is_sorted() && time.spawn > 0, "{time:?}");
    assert!(time.total < 30_000_000, "{time:?}");
    assert!(
        record.cpu_us.guest > 0 && record.cpu_us.monitor > 0,
        "{record:#?}"
    );
    let memory = record.memory_kib;
    assert!((1..4096).contains(&memory.monitor_pss), "{memory:?}");
    assert!((1..8192).contains(&memory.guest_touched), "{memory:?}");
}

#[test]
fn text_without_a_line_end_arrives() {
    needs_kvm!();
    let ended = Sliver::new(guests::bare()).args(["print-tail"]).run();
    ended.assert_exited(0);
    assert_eq!(ended.console, "no newline");
}

#[test]
fn every_announced_processor_feature_is_switched_on() {
    needs_kvm!();
    Sliver::bare("features").run().assert_exited(0);
}
