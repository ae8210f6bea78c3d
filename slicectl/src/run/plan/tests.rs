//! What is refused before anything is created, and the defaults.

mod kernels;

use clap::Parser;

use super::*;
use crate::cli::{Cli, Command};

fn args(line: &[&str]) -> RunArgs {
    match Cli::parse_from(["slicectl", "run"].iter().chain(line)).command {
        Command::Run(args) => *args,
        other => panic!("{other:?}"),
    }
}

fn around() -> Surroundings {
    Surroundings {
        kvm: Ok(KvmFacts {
            api_version: 12,
            max_vcpus: 8,
            needed_capabilities: true,
            create_error: None,
        }),
        memory: Some(Memory {
            total_kib: 4 << 20,
            available_kib: 2 << 20,
        }),
        user: "ada".to_owned(),
        contact: "ada@host".to_owned(),
        number: 7,
        terminal: false,
        processors: 2,
        processor: Processor::Neither,
    }
}

fn refused(line: &[&str]) -> (u8, String) {
    let failure = check(&args(line), &Kind::Native.into(), &around()).expect_err("must be refused");
    (failure.status, failure.summary())
}

#[test]
fn the_defaults_name_the_image_and_the_user() {
    let plan = check(
        &args(&["./dir/my-image.elf"]),
        &Kind::Native.into(),
        &around(),
    )
    .expect("fine");
    let spec = plan
        .spec("/dir/my-image.elf".as_ref(), None, &Known::default())
        .expect("valid");
    assert_eq!(spec.name(), "my-image-7");
    assert_eq!(spec.slice(), "local_my_image");
    assert_eq!((spec.owner(), spec.contact()), ("ada", "ada@host"));
    assert_eq!((spec.memory_bytes(), spec.vcpus()), (64 << 20, 1));
    assert!(!spec.start_paused());
}

#[test]
fn names_of_images_that_are_no_names_still_give_valid_ones() {
    for image in ["..", "--", "ü", &"x".repeat(300), "a b", "/"] {
        let mut run = args(&["x"]);
        run.image = Some((*image).to_owned());
        check(&run, &Kind::Native.into(), &around())
            .unwrap_or_else(|failure| panic!("{image}: {}", failure.summary()));
    }
}

#[test]
fn the_command_line_is_split_as_a_shell_would_and_comes_first() {
    let plan = check(
        &args(&["hello", "--cmdline", "--to 'a b'", "--", "c d"]),
        &Kind::Native.into(),
        &around(),
    );
    let spec = plan
        .and_then(|plan| plan.spec("/i".as_ref(), None, &Known::default()))
        .expect("valid");
    assert_eq!(spec.args(), ["--to", "a b", "c d"]);
}

#[test]
fn every_wrong_flag_is_reported_at_once() {
    let (status, told) = refused(&[
        "hello",
        "--mem",
        "64",
        "--vcpus",
        "none",
        "--for",
        "0s",
        "--cmdline",
        "'",
        "--gdb",
        "nowhere",
        "--name",
        "-",
        "--slice",
        "bad",
        "--owner",
        " ",
    ]);
    assert_eq!(status, USAGE);
    for flag in [
        "--mem",
        "--vcpus",
        "--for",
        "--cmdline",
        "--gdb",
        "--name",
        "--slice",
        "--owner",
    ] {
        assert!(
            told.contains(&format!("{flag}: ")),
            "{flag} is not in {told}"
        );
    }
}

#[test]
fn no_vcpus_and_more_than_the_host_allows_are_refused() {
    let (status, told) = refused(&["hello", "--vcpus", "0"]);
    assert_eq!(status, USAGE);
    assert!(
        told.starts_with("--vcpus: is 0, allowed are 1 to 32"),
        "{told}"
    );
    let (_, told) = refused(&["hello", "--vcpus", "9"]);
    assert_eq!(told, "--vcpus: is 9, this host's KVM allows 8");
    let (_, told) = refused(&["hello", "--vcpus", "33"]);
    assert!(told.contains("allowed are 1 to 32"), "{told}");
}

#[test]
fn memory_that_is_not_there_is_refused_with_both_amounts() {
    let (status, told) = refused(&["hello", "--mem", "3G"]);
    assert_eq!(status, USAGE);
    assert!(
        told.contains("3072 MiB are wanted, this host has 2048 MiB available"),
        "{told}"
    );
    for mem in ["0M", "16777215T", "1K", "65535G"] {
        assert_eq!(refused(&["hello", "--mem", mem]).0, USAGE, "{mem}");
    }
}

#[test]
fn a_missing_or_closed_kvm_is_no_usage_error() {
    let mut around = around();
    around.kvm = Err(CannotOpen {
        errno: libc::EACCES,
        group: Some("kvm".to_owned()),
    });
    let failure =
        check(&args(&["hello"]), &Kind::Native.into(), &around).expect_err("must be refused");
    assert_eq!(failure.status, MONITOR);
    assert!(
        failure.summary().contains("usermod"),
        "{}",
        failure.summary()
    );
}

#[test]
fn a_debugger_finds_the_sliver_before_its_first_instruction() {
    let plan = check(
        &args(&["hello", "--gdb", ":1234"]),
        &Kind::Native.into(),
        &around(),
    )
    .expect("fine");
    assert!(
        plan.spec("/i".as_ref(), None, &Known::default())
            .expect("valid")
            .start_paused()
    );
    assert_eq!(
        plan.gdb.map(|gdb| gdb.to_string()).as_deref(),
        Some("127.0.0.1:1234")
    );
}

#[test]
fn what_the_guard_does_is_a_mode_or_a_file() {
    let spec = |flags: &[&str]| {
        let plan = check(&args(flags), &Kind::Native.into(), &around())?;
        plan.spec("/i".as_ref(), None, &Known::default())
    };
    let strict = spec(&["x", "--guard", "report", "--strict-audit"]).expect("valid");
    assert_eq!(strict.guard().mode(), vmm::spec::GuardMode::Report);
    assert!(strict.guard().strict_audit());
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("guard.json");
    let path = file.to_str().expect("UTF-8");
    std::fs::write(&file, r#"{"deny":["192.0.2.0/24"]}"#).expect("written");
    assert_eq!(
        spec(&["x", "--guard", path])
            .expect("valid")
            .guard()
            .deny()
            .len(),
        1
    );
    for (text, told) in [
        (r#"{"deny":["here"]}"#, "--guard (guard.deny[0])"),
        ("[]", "has no JSON object"),
        ("{", "is not JSON"),
    ] {
        std::fs::write(&file, text).expect("written");
        let refused = spec(&["x", "--guard", path]).expect_err("refused");
        assert!(refused.summary().contains(told), "{}", refused.summary());
    }
}

#[test]
fn a_strict_audit_needs_one() {
    let (status, told) = refused(&["x", "--strict-audit", "--audit", "none"]);
    assert_eq!(status, USAGE);
    assert!(told.contains("--strict-audit"), "{told}");
}

#[test]
fn an_uplink_brings_planetlab_s_limits_with_it() {
    let spec = |flags: &[&str]| {
        let plan = check(&args(flags), &Kind::Native.into(), &around())?;
        plan.spec("/i".as_ref(), None, &Known::default())
    };
    let shared = spec(&["x", "--uplink", "eth0=10mbit", "--net-share", "5"]).expect("valid");
    let uplink = shared.uplink().expect("it has one");
    assert_eq!((uplink.interface(), uplink.kbit()), ("eth0", 10_000));
    assert_eq!(shared.net_limits().share(), 5);
    assert_eq!(shared.net_limits().plain().max_kbyte, Some(10_546_875));
    for (uplink, told) in [
        ("eth0", "--uplink: \"eth0\" is not IF=RATE"),
        ("eth0=fast", "--uplink"),
        ("a/b=1mbit", "--uplink (uplink.interface)"),
    ] {
        let refused = spec(&["x", "--uplink", uplink]).expect_err("refused");
        assert!(refused.summary().contains(told), "{}", refused.summary());
    }
}
