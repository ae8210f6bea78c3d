//! Quotas of processor time: read from flags, and told.

use vmm::spec::{Cap, CpuChange, CpuLimits, Percent};

use super::{number, read_one};
use crate::cli::CpuArgs;
use crate::problem::Problem;
use crate::units::parse_millis;

/// Reads the flags. What is wrong with how they are written is added to `problems`; whether the
/// numbers are allowed is checked where specs are.
pub fn read(args: &CpuArgs, problems: &mut Vec<Problem>) -> CpuChange {
    CpuChange {
        cpu_cap: read_one("--cpu-cap", &args.cpu_cap, cap, problems),
        cpu_pct: read_one("--cpu-pct", &args.cpu_pct, percent, problems),
        cpu_share: read_one("--cpu-share", &args.cpu_share, number, problems),
        cpu_burst: read_one("--cpu-burst", &args.cpu_burst, parse_millis, problems),
        cpu_period: read_one("--cpu-period", &args.cpu_period, parse_millis, problems),
    }
}

fn cap(text: &str) -> Result<Cap, String> {
    match text {
        "none" => Ok(Cap::None),
        _ => percent(text)
            .map(Cap::Percent)
            .map_err(|why| format!("{why}, or none")),
    }
}

fn percent(text: &str) -> Result<Percent, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim_end();
    // What else counts as a number in Rust, such as inf, is none to people.
    let plain = number.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '.'));
    match number.parse() {
        Ok(number) if plain => Ok(Percent(number)),
        _ => Err(format!("{text:?} is not a number of percent, such as 12.5")),
    }
}

/// A number of tenths of a percent: `12.5 %`.
pub fn percent_told(tenths: u32) -> String {
    format!("{} %", Percent::of_tenths(tenths))
}

/// Name and value of each quota.
pub fn rows(limits: &CpuLimits) -> [(&'static str, String); 5] {
    [
        (
            "cap",
            limits
                .cap()
                .map_or("none".to_owned(), |cap| percent_told(cap.0)),
        ),
        ("reserve", percent_told(limits.reserve_permille())),
        ("share", limits.share().to_string()),
        ("burst", format!("{} ms", limits.burst_ms())),
        ("period", format!("{} ms", limits.period_ms())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(cap: &str, burst: &str) -> CpuArgs {
        CpuArgs {
            cpu_cap: Some(cap.to_owned()),
            cpu_burst: Some(burst.to_owned()),
            ..CpuArgs::default()
        }
    }

    #[test]
    fn percent_and_milliseconds_need_no_unit_and_may_have_theirs() {
        for (cap, burst) in [("12.5", "20"), ("12.5%", "20ms"), ("12.50 %", "20 ms")] {
            let mut problems = Vec::new();
            let read = read(&args(cap, burst), &mut problems);
            assert_eq!(problems, []);
            assert_eq!(read.cpu_cap, Some(Cap::Percent(Percent(12.5))));
            assert_eq!(read.cpu_burst, Some(20));
            assert_eq!(read.cpu_share, None);
        }
        let none = read(&args("none", "0"), &mut Vec::new());
        assert_eq!((none.cpu_cap, none.cpu_burst), (Some(Cap::None), Some(0)));
    }

    #[test]
    fn what_is_no_quota_is_told_with_its_flag() {
        for wrong in ["", "much", "NaN", "inf", "1.2.3", "0x10", "10ms", "ten%"] {
            let mut problems = Vec::new();
            read(&args(wrong, "1x"), &mut problems);
            let told: Vec<String> = problems.iter().map(Problem::to_string).collect();
            assert_eq!(told.len(), 2, "{wrong}: {told:?}");
            assert!(told[0].starts_with("--cpu-cap: "), "{told:?}");
            assert!(told[1].starts_with("--cpu-burst: "), "{told:?}");
        }
    }
}
