//! Limits as flags: read, named in what is said about them, and told.
//!
//! What is wrong with how a flag is written is told here; whether its number is allowed is checked
//! where specs are.

pub mod cpu;
mod disk;
mod net;

use vmm::spec::{Limits, LimitsChange, Mistake, Most};

use crate::cli::LimitArgs;
use crate::problem::Problem;

/// What is written for no limit.
const NONE: &str = "none";

/// Reads the flags. What is wrong with how they are written is added to `problems`.
pub fn read(args: &LimitArgs, problems: &mut Vec<Problem>) -> LimitsChange {
    LimitsChange {
        cpu: cpu::read(&args.cpu, problems),
        net: net::read(&args.net, problems),
        disk: disk::read(&args.disk, problems),
    }
}

/// The flag that a field of the spec comes from, if it is one of these.
pub fn flag_of(field: &str) -> Option<String> {
    // Of a list it is the whole that has a flag.
    let field = field.split('[').next().unwrap_or(field);
    let unit = match field {
        "net" | "disk" => return Some(format!("--{field}-*")),
        "cpu_burst" | "cpu_period" => " (ms)",
        "cpu_cap" | "cpu_pct" | "cpu_share" | "net_share" | "net_exempt" | "disk_iops" => "",
        "disk_rate" => " (KiB/s)",
        _ if !field.starts_with("net_") => return None,
        _ if field.ends_with("_rate") => " (kbit/s)",
        _ if field.ends_with("_burst") || field.ends_with("_kbyte") => " (KiB)",
        _ => return None,
    };
    Some(format!("--{}{unit}", field.replace('_', "-")))
}

/// A mistake in a limit, about the flag that it comes from.
pub fn problem(mistake: &Mistake) -> Problem {
    let flag = flag_of(&mistake.field);
    Problem::new(
        flag.unwrap_or_else(|| mistake.field.clone()),
        &mistake.problem,
    )
}

/// Name and value of each limit.
pub fn rows(limits: &Limits) -> Vec<(String, String)> {
    let cpu = cpu::rows(&limits.cpu).into_iter();
    let mut rows: Vec<_> = cpu
        .map(|(name, value)| (format!("cpu {name}"), value))
        .collect();
    rows.extend(limits.net.iter().flat_map(net::rows));
    rows.extend(limits.disk.iter().flat_map(disk::rows));
    rows
}

fn read_one<T>(
    flag: &str,
    text: &Option<String>,
    read: impl Fn(&str) -> Result<T, String>,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    match read(text.as_deref()?.trim()) {
        Ok(value) => Some(value),
        Err(why) => {
            problems.push(Problem::new(flag, why));
            None
        }
    }
}

/// Reads what can be without limit.
fn most(read: impl Fn(&str) -> Result<u64, String>) -> impl Fn(&str) -> Result<Most, String> {
    move |text| match text {
        NONE => Ok(Most::None),
        _ => read(text)
            .map(Most::Number)
            .map_err(|why| format!("{why}, or {NONE}")),
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a whole number, such as 2"))
}

/// What can be without limit, as people read it.
fn told(limit: Option<u64>, tell: impl Fn(u64) -> String) -> String {
    limit.map_or(NONE.to_owned(), tell)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use vmm::spec::{Bounds, CpuLimits, DiskLimits, NetLimits};

    use super::*;

    #[derive(Debug, Parser)]
    #[command(no_binary_name = true)]
    struct Line {
        #[command(flatten)]
        limits: LimitArgs,
    }

    fn given(line: &[&str]) -> (LimitsChange, Vec<String>) {
        let line = Line::try_parse_from(line).expect("flags");
        let mut problems = Vec::new();
        let change = read(&line.limits, &mut problems);
        (change, problems.iter().map(Problem::to_string).collect())
    }

    fn unlimited() -> Limits {
        Limits {
            cpu: CpuLimits::default(),
            net: Some(NetLimits::default()),
            disk: Some(DiskLimits::default()),
        }
    }

    const BOUNDS: Bounds<'_> = Bounds {
        vcpus: 1,
        processors: None,
        uplink: None,
    };

    #[test]
    fn limits_are_written_with_the_units_of_the_field() {
        let line = [
            "--net-max-rate=10mbit",
            "--net-min-rate=512",
            "--net-burst=64K",
            "--net-allowance=10G",
            "--net-exempt=192.0.2.0/24,2001:db8::/32",
            "--net-exempt-max-rate=none",
            "--net-exempt=198.51.100.7",
            "--disk-rate=50M",
            "--disk-iops=1000",
            "--cpu-cap=50",
        ];
        let (change, problems) = given(&line);
        assert_eq!(problems, [""; 0]);
        let limits = change.apply(&unlimited(), &BOUNDS).expect("allowed");
        let told: Vec<String> = rows(&limits)
            .into_iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        for line in [
            "cpu cap: 50 %",
            "net max rate: 10 Mbit/s",
            "net min rate: 512 kbit/s",
            "net burst: 64 KiB",
            "net allowance: 10 GiB a day, spread from 9 GiB on",
            "net exempt: 192.0.2.0/24, 2001:db8::/32, 198.51.100.7/32",
            "net exempt max rate: none",
            "net rx burst: 2 ms at the rate, at least 32 KiB",
            "disk rate: 50 MiB/s",
            "disk requests: 1000 a second",
        ] {
            assert!(told.iter().any(|told| told == line), "{line}: {told:#?}");
        }
    }

    #[test]
    fn a_limit_is_taken_away_with_none() {
        let (limited, _) = given(&["--net-max-rate=1", "--net-exempt=::/0", "--disk-iops=5"]);
        let limited = limited.apply(&unlimited(), &BOUNDS).expect("allowed");
        let (none, problems) = given(&[
            "--net-max-rate=none",
            "--net-exempt=none",
            "--disk-iops=none",
        ]);
        assert_eq!(problems, [""; 0]);
        assert_eq!(none.apply(&limited, &BOUNDS), Ok(unlimited()));
        assert!(given(&[]).0.is_empty());
    }

    #[test]
    fn all_that_is_no_limit_is_told_with_its_flag() {
        let (_, problems) = given(&[
            "--net-max-rate=fast",
            "--net-min-rate=none",
            "--net-share=-1",
            "--net-burst=1.5K",
            "--disk-rate=50X",
            "--disk-iops=",
        ]);
        let flags = [
            "--net-max-rate: ",
            "--net-min-rate: ",
            "--net-share: ",
            "--net-burst: ",
            "--disk-rate: ",
            "--disk-iops: ",
        ];
        assert_eq!(problems.len(), flags.len(), "{problems:#?}");
        for (problem, flag) in problems.iter().zip(flags) {
            assert!(problem.starts_with(flag), "{problem}");
        }
    }

    #[test]
    fn what_is_not_allowed_is_told_with_its_flag_and_unit() {
        let (change, _) = given(&[
            "--net-max-rate=0",
            "--net-exempt=192.0.2.0/33",
            "--disk-rate=0",
            "--net-burst=1",
        ]);
        let mistakes = change.apply(&unlimited(), &BOUNDS).expect_err("refused");
        let told: Vec<String> = mistakes.iter().map(|m| problem(m).to_string()).collect();
        for flag in [
            "--net-max-rate (kbit/s): is 0",
            "--net-exempt: ",
            "--disk-rate (KiB/s): is 0",
            "--net-burst (KiB): is 1",
        ] {
            assert!(told.iter().any(|told| told.starts_with(flag)), "{told:#?}");
        }
        for field in [
            "nets[0].mac",
            "disks[1].path",
            "uplink",
            "net_used_today.day",
        ] {
            assert_eq!(flag_of(field), None);
        }
    }
}
