//! `slicectl run` and `stop` with a kernel: what people see of its ends, and what is refused.

use std::fs;

use integration::cli::{Cli, assert_code, json, text};
use integration::sliver::until;
use integration::{guests, needs_kvm};
use serde_json::json as object;

fn metal() -> &'static str {
    guests::metal().to_str().expect("the path is UTF-8")
}

/// What runs a case of the kernel: slow or not, it is small.
fn run<'a>(options: &[&'a str], case: &'a str) -> Vec<&'a str> {
    let first = ["run", "--slow", "--no-acpi", "--mem", "64M", "--for", "60s"];
    let last = [metal(), "--", case];
    [&first, options, &last].concat()
}

#[test]
fn each_end_of_a_kernel_has_its_code_and_its_words() {
    needs_kvm!();
    let cli = Cli::set_up();
    for (case, code, words) in [
        ("poweroff", 0, "powered off"),
        ("reboot", 85, "rebooted"),
        ("panic", 134, "kernel panic: it was told to"),
        ("triple-fault", 139, "triple fault"),
    ] {
        let output = cli.run(&run(&[], case));
        assert_code(&output, code);
        let told = text(&output.stderr);
        assert!(told.contains(words), "{case}: {told}");
    }
    cli.assert_no_trace();
}

#[test]
fn the_record_of_a_kernel_tells_its_kind_of_end() {
    needs_kvm!();
    let cli = Cli::set_up();
    for (case, kind, status) in [("reboot", "rebooted", 85), ("panic", "panicked", 134)] {
        let record = json(&cli.run(&run(&["--json"], case)));
        assert_eq!(record["exit"]["kind"], object!(kind), "{record}");
        assert_eq!(record["exit"]["status"], object!(status), "{record}");
    }
}

#[test]
fn a_kernel_that_halts_for_ever_is_ended_by_the_limit() {
    needs_kvm!();
    let cli = Cli::set_up();
    let mut args = run(&[], "halt");
    args[6] = "2s";
    assert_code(&cli.run(&args), 124);
    cli.assert_no_trace();
}

#[test]
fn a_kernel_that_does_not_mind_the_button_is_stopped_after_the_grace() {
    needs_kvm!();
    let cli = Cli::set_up();
    let mut running = cli.spawn(&run(&["--name", "deaf"], "halt"));
    let pressed = |grace| cli.run(&["stop", "deaf", "--grace", grace]);
    until("it runs", || {
        text(&cli.run(&["ps"]).stdout)
            .contains("deaf")
            .then_some(())
    });
    assert_code(&pressed("1s"), 0);
    let status = running.wait().expect("slicectl ends");
    assert_eq!(status.code(), Some(143));
    cli.assert_no_trace();
}

#[test]
fn what_cannot_be_booted_is_refused_with_its_reason() {
    needs_kvm!();
    let cli = Cli::set_up();
    let file = |name: &str, bytes: &[u8]| {
        let path = cli.place.path().join(name);
        fs::write(&path, bytes).expect("the file is written");
        path.to_str().expect("the path is UTF-8").to_owned()
    };
    let mut arm = vec![0; 4096];
    arm[56..60].copy_from_slice(b"ARM\x64");
    let cut = &fs::read(guests::metal()).expect("it was built")[..2048];
    let kernel = |path: String| vec!["--kernel".to_owned(), path];
    let initrd = |path: String| {
        [
            kernel(metal().to_owned()),
            vec!["--initrd".to_owned(), path],
        ]
        .concat()
    };
    let long = [
        kernel(metal().to_owned()),
        vec!["--append".to_owned(), "x".repeat(4000)],
    ]
    .concat();
    for (what, args, reason) in [
        ("another architecture", kernel(file("arm", &arm)), "arm64"),
        (
            "compressed",
            kernel(file("gz", b"\x1f\x8b\x08\0 and so on")),
            "gzip",
        ),
        ("cut off", kernel(file("cut", cut)), "truncated"),
        (
            "no initrd",
            initrd("/nonexistent".to_owned()),
            "No such file",
        ),
        ("an empty initrd", initrd(file("empty", b"")), "empty"),
        ("too long a command line", long, "--append"),
    ] {
        let args: Vec<&str> = ["run", "--slow"]
            .into_iter()
            .chain(args.iter().map(String::as_str))
            .collect();
        let output = cli.run(&args);
        let told = text(&output.stderr);
        assert!(
            matches!(output.status.code(), Some(2 | 125)),
            "{what}: {output:?}"
        );
        assert!(told.contains(reason), "{what}: {told}");
        assert!(told.lines().count() <= 3, "{what}: {told}");
    }
    cli.assert_no_trace();
}

#[test]
fn a_large_initrd_that_does_not_fit_says_how_much_memory_would_do() {
    needs_kvm!();
    let cli = Cli::set_up();
    let path = cli.place.path().join("initrd");
    let initrd = fs::File::create(&path).expect("it is made");
    initrd.set_len(200 << 20).expect("it grows");
    let path = path.to_str().expect("the path is UTF-8");
    let output = cli.run(&run(&["--initrd", path], "hello"));
    let told = text(&output.stderr);
    assert_code(&output, 2);
    assert!(told.contains("needs 203 MiB of memory"), "{told}");
    cli.assert_no_trace();
}
