//! What the command line accepts.

use clap::{CommandFactory, Parser};

use super::*;

fn run_args(line: &[&str]) -> RunArgs {
    let words = ["slicectl", "run"].iter().chain(line);
    match Cli::try_parse_from(words).map(|cli| cli.command) {
        Ok(Command::Run(args)) => *args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_visible_command_has_examples() {
    for command in Cli::command().get_subcommands() {
        if command.is_hide_set() {
            continue;
        }
        let help = command.get_after_help().map(ToString::to_string);
        assert!(
            help.is_some_and(|help| help.starts_with("Examples:")),
            "{}",
            command.get_name()
        );
    }
}

#[test]
fn flags_may_follow_the_image_and_guest_arguments_follow_two_dashes() {
    let args = run_args(&["hello", "--mem", "1G", "--for", "10s", "--", "--mem", "2G"]);
    assert_eq!(args.image.as_deref(), Some("hello"));
    assert_eq!(args.mem.as_deref(), Some("1G"));
    assert_eq!(args.time_limit.as_deref(), Some("10s"));
    assert_eq!(args.args, ["--mem", "2G"]);
}

#[test]
fn a_command_line_may_begin_with_a_dash() {
    let args = run_args(&["hello", "--cmdline", "--greeting 'a b'"]);
    assert_eq!(args.cmdline.as_deref(), Some("--greeting 'a b'"));
}

#[test]
fn values_that_are_wrong_are_left_to_the_check_that_reports_them_all() {
    let args = run_args(&["hello", "--vcpus", "-1", "--mem", "much"]);
    assert_eq!(
        (args.vcpus.as_str(), args.mem.as_deref()),
        ("-1", Some("much"))
    );
}

#[test]
fn a_kernel_needs_no_image_and_has_a_command_line_that_begins_with_a_dash() {
    let args = run_args(&["--kernel", "vmlinuz", "--append", "-x", "--append", "quiet"]);
    assert_eq!(
        (args.image, args.kernel.as_deref()),
        (None, Some("vmlinuz"))
    );
    assert_eq!(args.append, ["-x", "quiet"]);
}

#[test]
fn unknown_flags_and_stray_words_are_usage_errors() {
    for line in [
        vec!["slicectl", "run", "hello", "--frobnicate"],
        vec!["slicectl", "run", "hello", "stray"],
        vec!["slicectl", "run"],
        vec!["slicectl", "frobnicate"],
        vec!["slicectl", "build", ".", "--bin", "a", "--example", "b"],
    ] {
        let error = Cli::try_parse_from(&line).expect_err("must be refused");
        assert_eq!(
            error.exit_code(),
            i32::from(crate::problem::USAGE),
            "{line:?}"
        );
    }
}
