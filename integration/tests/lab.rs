//! Linux guests on a host with complete virtualisation, emulated where this one is none: the cases
//! of the lab that every change must pass. `cargo run -p integration --bin lab` runs all of them.

use std::sync::OnceLock;

use integration::lab::Lab;
use integration::lab::cases::{self, Case};

/// What is run here.
const CASES: [&str; 5] = ["bzimage", "pvh", "root-disk", "network", "poweroff"];

fn find(name: &str) -> &'static Case {
    cases::find(name).expect("it is a case")
}

/// Asserts that a case passes.
#[track_caller]
fn assert_passes(name: &str) {
    static LAB: OnceLock<Lab> = OnceLock::new();
    let lab = LAB.get_or_init(|| {
        Lab::assemble(&CASES.map(find), false).unwrap_or_else(|error| panic!("{error:#}"))
    });
    let outcome = lab.run(find(name)).expect("a case can be run");
    assert!(outcome.result.is_ok(), "{}", outcome.text());
}

#[test]
fn debians_kernel_boots_as_it_is_shipped() {
    assert_passes("bzimage");
}

#[test]
fn its_elf_file_boots_by_pvh() {
    assert_passes("pvh");
}

#[test]
fn a_root_disk_comes_to_a_login_prompt() {
    assert_passes("root-disk");
}

#[test]
fn ping_and_tcp_go_both_ways() {
    assert_passes("network");
}

#[test]
fn a_guest_that_powers_off_ends_with_status_0() {
    assert_passes("poweroff");
}
