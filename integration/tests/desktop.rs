//! The same source as a slice and as an ordinary process: the same output, the same status.

use std::process::{Command, Output};

use integration::artifacts;
use integration::needs_kvm;
use integration::sliver::Sliver;
use serde_json::Value;

fn desktop(example: &str, vcpus: usize, args: &[&str]) -> Output {
    Command::new(artifacts::desktop(example))
        .args(args)
        .env("SLIVER_NAME", "ada")
        .env("SLICE_VCPUS", vcpus.to_string())
        .output()
        .expect("the process starts")
}

/// Runs both; what they printed must be the same. Both console streams of a slice are one.
#[track_caller]
fn same(example: &str, vcpus: usize, args: &[&str]) {
    let process = desktop(example, vcpus, args);
    let sliver = Sliver::example(example).field("name", "ada").args(args);
    let ended = sliver.vcpus(vcpus).run();
    let printed = [process.stdout, process.stderr].concat();
    assert_eq!(ended.console, String::from_utf8_lossy(&printed));
    assert_eq!(ended.status.code(), process.status.code());
}

#[test]
fn hello_says_the_same_in_both() {
    needs_kvm!();
    same("hello", 1, &[]);
    same("hello", 1, &["a b", "ü", "--status", "42"]);
}

#[test]
fn usage_errors_are_the_same_in_both() {
    needs_kvm!();
    for example in [
        "hello", "clock", "spin", "heap", "smp", "fault", "jitter", "adaptive",
    ] {
        same(example, 1, &["--frobnicate"]);
    }
}

#[test]
fn heap_does_the_same_in_both() {
    needs_kvm!();
    same("heap", 2, &["--rounds", "5000"]);
}

#[test]
fn smp_gets_the_same_results_in_both() {
    needs_kvm!();
    same("smp", 4, &["--rounds", "2"]);
}

#[test]
fn spin_computes_the_same_in_both() {
    needs_kvm!();
    let process = desktop("spin", 1, &["--rounds", "50"]);
    let ended = Sliver::example("spin").args(["--rounds", "50"]).run();
    let results = |text: &str| {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with("ns per round"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let printed = String::from_utf8_lossy(&process.stdout);
    assert_eq!(results(&ended.console), results(&printed));
    assert_eq!(results(&printed).len(), 2, "{printed}");
}

#[test]
fn clock_is_right_in_a_process_too() {
    let process = desktop("clock", 1, &[]);
    assert_eq!(process.status.code(), Some(0), "{process:?}");
    assert!(process.stdout.ends_with(b"clocks agree\n"), "{process:?}");
}

#[test]
fn spin_computes_on_all_vcpus_what_it_computes_on_one() {
    needs_kvm!();
    let args = ["--rounds", "50", "--all"];
    let process = desktop("spin", 2, &args);
    let ended = Sliver::example("spin").args(args).vcpus(2).run();
    let printed = String::from_utf8_lossy(&process.stdout);
    let results = |text: &str| text.lines().take(2).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(results(&printed)[0], "rounds 100", "{printed}");
    assert_eq!(results(&ended.console), results(&printed));
}

#[test]
fn jitter_tells_how_steadily_both_run() {
    needs_kvm!();
    for (args, keys) in [
        (
            ["sleep", "--every", "100", "--count", "50"],
            &["count", "p50_us", "p99_us", "max_us"][..],
        ),
        (["stops", "--ms", "50", "--longer-than", "20"], &["vcpus"]),
    ] {
        let process = desktop("jitter", 2, &args);
        let ended = Sliver::example("jitter").args(args).vcpus(2).run();
        for printed in [
            String::from_utf8_lossy(&process.stdout).as_ref(),
            &ended.console,
        ] {
            let told: Value = serde_json::from_str(printed).expect("it is JSON");
            for &key in keys {
                assert!(!told[key].is_null(), "{key}: {told}");
            }
        }
    }
}

#[test]
fn a_process_that_could_adapt_knows_of_no_limit() {
    let args = [
        "--rate",
        "50",
        "--work",
        "500",
        "--goal",
        "2000",
        "--seconds",
        "1",
    ];
    let process = desktop("adaptive", 1, &args);
    let told: Value = serde_json::from_slice(&process.stdout).expect("it is JSON");
    assert_eq!(told["done"], 50, "{told}");
    assert_eq!(told["refused"], 0, "{told}");
    assert!(told["throttled_ms"].is_null(), "{told}");
}

#[test]
fn a_panic_ends_both_with_101_and_names_the_place() {
    needs_kvm!();
    let process = desktop("fault", 1, &["panic"]);
    let ended = Sliver::example("fault").args(["panic"]).run();
    assert_eq!(process.status.code(), Some(101), "{process:?}");
    ended.assert_exited(101);
    for text in [
        String::from_utf8_lossy(&process.stderr).as_ref(),
        &ended.console,
    ] {
        assert!(text.contains("asked to panic"), "{text}");
        assert!(text.contains("fault.rs:"), "{text}");
    }
}
