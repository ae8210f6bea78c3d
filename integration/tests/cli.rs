//! `slicectl` from outside: what it prints, what it ends with, what it leaves.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use integration::cli::{Cli, assert_code, json, text};
use integration::sliver::until;
use integration::{artifacts, guests, needs_kvm};
use object::{Object, ObjectSymbol};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn run_shows_the_console_and_ends_with_the_guests_status() {
    needs_kvm!();
    let cli = Cli::set_up();
    let output = cli.run(&[
        "run", "hello", "--name", "ada", "--", "--status", "42", "wörld",
    ]);
    assert_code(&output, 42);
    assert_eq!(text(&output.stdout), "hello from ada wörld\n");
    cli.assert_no_trace();
}

#[test]
fn an_image_may_be_named_by_its_path() {
    needs_kvm!();
    let image = artifacts::image("hello").to_str().expect("UTF-8");
    let output = Cli::set_up().run(&["run", image, "--name", "ada"]);
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), "hello from ada\n");
}

#[test]
fn json_puts_the_console_on_stderr_and_one_object_on_stdout() {
    needs_kvm!();
    let output = Cli::set_up().run(&["run", "hello", "--name", "ada", "--json"]);
    assert_code(&output, 0);
    assert!(
        text(&output.stderr).contains("hello from ada\n"),
        "{output:?}"
    );
    let record = json(&output);
    assert_eq!(record["exit"]["kind"], "exited");
    assert_eq!(record["exit"]["status"], 0);
    for (part, fields) in [
        (
            "timing_us",
            &["spawn", "vm", "load", "first_instruction", "total"][..],
        ),
        ("cpu_us", &["guest", "monitor"]),
        ("memory_kib", &["guest_touched", "monitor_pss"]),
    ] {
        for field in fields {
            assert!(record[part][field].is_u64(), "{part}.{field} in {record:#}");
        }
    }
}

#[test]
fn a_fault_prints_what_and_where_by_the_images_own_symbols() {
    needs_kvm!();
    let output = Cli::set_up().run(&["run", "fault", "--", "null-read"]);
    assert_code(&output, 139);
    let told = text(&output.stderr);
    for word in [
        "page fault",
        "0x0",
        "null page",
        "fault::null_read",
        "fault::run",
        "fault.rs:",
    ] {
        assert!(told.contains(word), "{word:?} is missing:\n{told}");
    }
}

#[test]
fn a_fault_as_json_has_the_fault_and_its_backtrace() {
    needs_kvm!();
    let output = Cli::set_up().run(&["run", "fault", "--json", "--", "divide"]);
    assert_code(&output, 139);
    let exit = &json(&output)["exit"];
    assert_eq!(exit["kind"], "fault");
    assert_eq!(exit["detail"]["fault"]["exception"], "divide error");
    let frames = exit["detail"]["backtrace"].as_array();
    assert!(frames.is_some_and(|frames| !frames.is_empty()), "{exit:#}");
}

#[test]
fn a_time_limit_ends_with_124() {
    needs_kvm!();
    let cli = Cli::set_up();
    let started = Instant::now();
    let output = cli.run(&["run", "spin", "--for", "300ms", "--", "--ms", "60000"]);
    assert_code(&output, 124);
    assert!(started.elapsed() < Duration::from_secs(30));
    cli.assert_no_trace();
}

#[test]
fn usage_errors_end_with_2_and_start_nothing() {
    let cli = Cli::set_up();
    for args in [
        &["run", "hello", "--frobnicate"][..],
        &["run"],
        &["frobnicate"],
        &["run", "hello", "--vcpus", "0"],
        &["run", "hello", "--mem", "much"],
        &["run", "hello", "--name", "../up"],
    ] {
        let output = cli.run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert!(!output.stderr.is_empty());
    }
    cli.assert_no_trace();
}

#[test]
fn images_that_are_none_end_with_125_and_one_line_that_names_them() {
    needs_kvm!();
    let cli = Cli::set_up();
    let path = cli.place.path().join("words");
    fs::write(&path, "just words").expect("written");
    for image in [
        path.to_str().expect("UTF-8"),
        "./absent",
        "/dev/null",
        "nonesuch",
    ] {
        let output = cli.run(&["run", image]);
        assert_code(&output, 125);
        let told = text(&output.stderr);
        assert!(told.contains(image), "{told}");
        assert_eq!(told.trim().lines().count(), 1, "{told}");
    }
}

#[test]
fn too_little_memory_says_how_much_is_needed() {
    needs_kvm!();
    let output = Cli::set_up().run(&["run", "hello", "--mem", "1M", "--vcpus", "32"]);
    assert_code(&output, 125);
    assert!(
        text(&output.stderr).contains("needs at least 9 MiB"),
        "{output:?}"
    );
}

/// Waits until the sliver called `name` runs.
fn wait_until_running(cli: &Cli, name: &str) {
    until("the sliver runs", || {
        let output = cli.run(&["status", name, "--json"]);
        (output.status.success() && json(&output)["state"] == "running").then_some(())
    });
}

fn idler<'a>(name: &'a str, image: &'a str) -> [&'a str; 6] {
    ["run", image, "--name", name, "--", "idle"]
}

fn bare() -> &'static str {
    guests::bare()
        .to_str()
        .expect("the target directory is UTF-8")
}

#[test]
fn a_running_sliver_is_listed_paused_resumed_and_stopped_by_its_name() {
    needs_kvm!();
    let cli = Cli::set_up();
    let mut run = cli.spawn(&idler("steered", bare()));
    wait_until_running(&cli, "steered");
    let listed = text(&cli.run(&["ps"]).stdout);
    assert!(listed.contains("steered"), "{listed}");
    assert_code(&cli.run(&["pause", "steered"]), 0);
    assert_eq!(
        json(&cli.run(&["status", "steered", "--json"]))["state"],
        "paused"
    );
    assert_code(&cli.run(&["resume", "steered"]), 0);
    assert_code(&cli.run(&["stop", "steered"]), 0);
    assert_eq!(run.wait().expect("ours").code(), Some(143));
    cli.assert_no_trace();
}

#[test]
fn a_monitor_that_hangs_is_told_with_the_process_to_kill() {
    needs_kvm!();
    let cli = Cli::set_up();
    let mut run = cli.spawn(&idler("hung", bare()));
    wait_until_running(&cli, "hung");
    let monitors = cli.monitors();
    let pid: i32 = monitors[0].parse().expect("a number");
    let monitor = Pid::from_raw(pid).expect("not zero");
    kill_process(monitor, Signal::STOP).expect("it is there");
    for line in [
        &["ps", "--json"][..],
        &["status", "hung"],
        &["stop", "hung"],
    ] {
        let output = cli.run(line);
        assert_code(&output, 1);
        let told = text(&output.stderr);
        assert!(told.contains(&format!("kill -KILL {pid}")), "{told}");
    }
    kill_process(monitor, Signal::KILL).expect("it is there");
    assert_eq!(run.wait().expect("ours").code(), Some(125));
    cli.assert_no_trace();
}

#[test]
fn what_cannot_be_printed_is_told() {
    let cli = Cli::set_up();
    let full = || {
        File::options()
            .write(true)
            .open("/dev/full")
            .expect("there")
    };
    for line in [&["ps"][..], &["doctor", "--json"], &["man"]] {
        let output = cli.command(line).stdout(full()).output().expect("starts");
        assert_code(&output, 1);
        assert!(text(&output.stderr).contains("No space left"), "{output:?}");
    }
}

#[test]
fn steering_what_is_not_there_says_so() {
    let cli = Cli::set_up();
    for line in [
        &["status", "nobody"][..],
        &["pause", "nobody"],
        &["resume", "nobody"],
        &["stop", "nobody"],
        &["balloon", "nobody", "1M"],
    ] {
        let output = cli.run(line);
        assert!(!output.status.success(), "{output:?}");
        assert!(text(&output.stderr).contains("nobody"), "{output:?}");
    }
}

#[test]
fn a_signal_to_slicectl_stops_the_sliver_and_ends_both_with_143() {
    needs_kvm!();
    let cli = Cli::set_up();
    for (name, signal) in [("term", Signal::TERM), ("int", Signal::INT)] {
        let mut run = cli.spawn(&idler(name, bare()));
        wait_until_running(&cli, name);
        kill_process(Pid::from_child(&run), signal).expect("it is there");
        assert_eq!(run.wait().expect("ours").code(), Some(143), "{name}");
        cli.assert_no_trace();
    }
}

#[test]
fn killing_slicectl_leaves_nothing() {
    needs_kvm!();
    let cli = Cli::set_up();
    let mut run = cli.spawn(&idler("orphan", bare()));
    wait_until_running(&cli, "orphan");
    assert_eq!(cli.monitors().len(), 1);
    run.kill().expect("it is there");
    assert_eq!(run.wait().expect("ours").signal(), Some(9));
    until("its monitor is gone", || {
        cli.monitors().is_empty().then_some(())
    });
    assert_eq!(text(&cli.run(&["ps", "--json"]).stdout).trim(), "[]");
    // A monitor sees no directories. The next of its name takes over what was left.
    let output = cli.run(&["run", "hello", "--name", "orphan"]);
    assert_code(&output, 0);
    cli.assert_no_trace();
}

#[test]
fn a_reader_that_goes_away_does_not_keep_the_sliver() {
    needs_kvm!();
    let cli = Cli::set_up();
    let mut run = cli.spawn(&["run", "hello"]);
    drop(run.stdout.take());
    let status = run.wait().expect("ours");
    assert!(status.code().is_some(), "{status:?}");
    cli.assert_no_trace();
}

#[test]
fn a_core_of_a_fault_is_opened_by_gdb_which_finds_the_place() {
    needs_kvm!();
    let cli = Cli::set_up();
    let core = cli.place.path().join("fault.elf");
    let core = core.to_str().expect("UTF-8");
    let output = cli.run(&["run", "fault", "--core", core, "--", "null-read"]);
    assert_code(&output, 139);
    let image = artifacts::image("fault").to_str().expect("UTF-8");
    let told = gdb(&["-ex", "bt", "-ex", "info registers rip", image, core]);
    for word in ["null_read ()", "run ()", "fault.rs:", "rip"] {
        assert!(told.contains(word), "{word:?} is missing:\n{told}");
    }
}

#[test]
fn gdb_stops_at_a_breakpoint_steps_and_lets_the_sliver_end() {
    needs_kvm!();
    let cli = Cli::set_up();
    let mut run = cli.spawn(&["run", "fault", "--gdb", "127.0.0.1:0", "--", "divide"]);
    let mut told = String::new();
    let mut stderr = run.stderr.take().expect("a pipe");
    // It prints where it listens, then waits.
    let address = until("it listens", || {
        let mut byte = [0];
        stderr.read_exact(&mut byte).expect("slicectl still runs");
        told.push(char::from(byte[0]));
        let line = told.strip_suffix('\n')?.lines().next_back()?;
        let start = line.find("127.0.0.1:")?;
        let address = line[start..].split(|c: char| !"0123456789.:".contains(c));
        address.into_iter().next().map(str::to_owned)
    });
    let image = artifacts::image("fault").to_str().expect("UTF-8");
    let remote = format!("target remote {address}");
    let place = format!("break *{:#x}", address_of("fault", "divide"));
    let said = gdb(&[
        "-ex",
        &remote,
        "-ex",
        &place,
        "-ex",
        "continue",
        "-ex",
        "bt",
        "-ex",
        "stepi",
        "-ex",
        "info registers rip",
        "-ex",
        "delete",
        "-ex",
        "continue",
        "-ex",
        "continue",
        image,
    ]);
    for word in [
        "Breakpoint 1,",
        "run ()",
        "rip",
        "SIGFPE",
        "exited with code 0213",
    ] {
        assert!(said.contains(word), "{word:?} is missing:\n{said}");
    }
    stderr
        .read_to_string(&mut told)
        .expect("slicectl writes text");
    assert_eq!(run.wait().expect("ours").code(), Some(139), "{said}");
    cli.assert_no_trace();
}

/// Where a function of an example is.
fn address_of(example: &str, function: &str) -> u64 {
    let file = fs::read(artifacts::image(example)).expect("the image was built");
    let image = object::File::parse(&*file).expect("the image is an ELF file");
    let named = |symbol: &object::Symbol| symbol.name().is_ok_and(|name| name.contains(function));
    let symbol = image.symbols().find(named);
    symbol.expect("the image keeps its symbols").address()
}

/// Runs gdb without a terminal; all it said.
fn gdb(args: &[&str]) -> String {
    let mut command = Command::new("gdb");
    command
        .args(["-batch", "-nx", "-iex", "set debuginfod enabled off"])
        .args(args);
    match command.stdin(Stdio::null()).output() {
        Ok(output) => text(&[output.stdout, output.stderr].concat()),
        Err(error) => {
            panic!("gdb: {error}; it helps to `apt-get install -y --no-install-recommends gdb`")
        }
    }
}

#[test]
fn inspect_tells_what_an_image_is() {
    let cli = Cli::set_up();
    let output = cli.run(&["inspect", "hello", "--json"]);
    assert_code(&output, 0);
    let told = text(&output.stdout);
    for word in ["entry", "segments", "abi"] {
        assert!(told.contains(word), "{told}");
    }
    assert!(text(&cli.run(&["inspect", "hello"]).stdout).contains("r-x"));
}

#[test]
fn inspect_says_every_reason_against_a_file_and_ends_with_1() {
    let output = Cli::set_up().run(&["inspect", "/bin/true"]);
    assert_code(&output, 1);
    let told = text(&[output.stdout, output.stderr].concat());
    for word in ["position independent", "PT_INTERP", "no slice note"] {
        assert!(told.contains(word), "{word:?} is missing:\n{told}");
    }
}

#[test]
fn doctor_finds_this_host_able() {
    needs_kvm!();
    let cli = Cli::set_up();
    let output = cli.run(&["doctor", "--json"]);
    assert_code(&output, 0);
    let checks = json(&output)["checks"].as_array().map(Vec::len);
    assert!(checks.is_some_and(|checks| checks >= 5), "{output:?}");
    let told = text(&cli.run(&["doctor"]).stdout).to_lowercase();
    for word in ["kvm", "memory", "cgroup"] {
        assert!(told.contains(word), "{word:?} is missing:\n{told}");
    }
}

#[test]
fn help_has_examples_and_completions_and_pages_are_made() {
    let cli = Cli::set_up();
    assert!(text(&cli.run(&["run", "--help"]).stdout).contains("Examples:"));
    assert!(text(&cli.run(&["completions", "bash"]).stdout).contains("_slicectl"));
    assert!(text(&cli.run(&["man"]).stdout).contains(".TH"));
}
