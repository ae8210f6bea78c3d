//! `slicectl traffic`: the example of that name, run with arguments that are checked here.
//!
//! It is written as the command line of `slicectl run` that it stands for, so that every flag of
//! that command is one of this.

use clap::{Parser, ValueEnum};

use crate::cli::{RunArgs, TrafficArgs};
use crate::run;

/// What comes after `slicectl run`.
#[derive(Debug, Parser)]
#[command(name = "slicectl run", no_binary_name = true)]
struct Line {
    #[command(flatten)]
    run: RunArgs,
}

/// Runs the command; the exit code, or what is wrong with the flags for `run`.
pub fn run(args: &TrafficArgs) -> Result<u8, clap::Error> {
    Ok(run::run(&run_args(args)?))
}

fn run_args(args: &TrafficArgs) -> Result<RunArgs, clap::Error> {
    let profile = args.profile.to_possible_value();
    let profile = profile.map_or_else(String::new, |value| value.get_name().to_owned());
    let mut words = vec!["traffic".to_owned()];
    if let Some(name) = &args.name {
        words.push(format!("--name={name}"));
    }
    words.extend(args.run.iter().cloned());
    words.push("--".to_owned());
    for (flag, value) in [
        ("--to", args.to.to_string()),
        ("--profile", profile),
        ("--rate", args.rate.to_string()),
        ("--seed", args.seed.to_string()),
        ("--seconds", args.seconds.to_string()),
    ] {
        words.extend([flag.to_owned(), value]);
    }
    if args.json {
        words.push("--json".to_owned());
    }
    Ok(Line::try_parse_from(words)?.run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};

    fn given(line: &[&str]) -> Result<RunArgs, clap::Error> {
        let words = ["slicectl", "traffic"].iter().chain(line);
        match Cli::try_parse_from(words)?.command {
            Command::Traffic(args) => run_args(&args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_load_goes_to_the_guest_and_the_rest_to_run() {
        let line = [
            "load",
            "--to",
            "192.0.2.1:9",
            "--profile",
            "bulk",
            "--seed",
            "7",
            "--",
            "--net",
            "tap",
            "--mem",
            "32M",
        ];
        let args = given(&line).expect("it is right");
        assert_eq!(args.image.as_deref(), Some("traffic"));
        assert_eq!(args.name.as_deref(), Some("load"));
        assert_eq!(args.net, ["tap"]);
        assert_eq!(args.mem.as_deref(), Some("32M"));
        let guest = "--to 192.0.2.1:9 --profile bulk --rate 1000 --seed 7 --seconds 10";
        assert_eq!(args.args.join(" "), guest);
    }

    #[test]
    fn what_is_wrong_is_refused_before_anything_runs() {
        for line in [
            &["--profile", "web"][..],
            &["--to", "192.0.2.1"],
            &["--to", "192.0.2.1:9", "--profile", "games"],
            &["--to", "192.0.2.1:9", "--rate", "0"],
            &["--to", "192.0.2.1:9", "--seconds", "0"],
            &["--to", "192.0.2.1:9", "--", "--nonesuch"],
            &["--to", "192.0.2.1:9", "--", "another-image"],
        ] {
            assert!(given(line).is_err(), "{line:?}");
        }
    }
}
