//! Limits of traffic: read from flags, and told.

use vmm::spec::{Class, Most, NetChange, NetLimits};

use super::{NONE, most, number, read_one, told};
use crate::cli::NetArgs;
use crate::problem::Problem;
use crate::units::{format_kbit, format_kib_exactly, parse_kbit, parse_kib};

/// Prefixes that are told; of the others, how many there are.
const MOST_TOLD: usize = 8;

/// Reads the flags.
pub(super) fn read(args: &NetArgs, problems: &mut Vec<Problem>) -> NetChange {
    let mut rate = |flag, text| read_one(flag, text, most(parse_kbit), problems);
    let net_max_rate = rate("--net-max-rate", &args.net_max_rate);
    let net_exempt_max_rate = rate("--net-exempt-max-rate", &args.net_exempt_max_rate);
    let net_rx_max_rate = rate("--net-rx-max-rate", &args.net_rx_max_rate);
    let mut least = |flag, text| read_one(flag, text, parse_kbit, problems);
    let net_min_rate = least("--net-min-rate", &args.net_min_rate);
    let net_exempt_min_rate = least("--net-exempt-min-rate", &args.net_exempt_min_rate);
    let net_share = read_one("--net-share", &args.net_share, number, problems);
    let mut size = |flag, text| read_one(flag, text, most(parse_kib), problems);
    NetChange {
        net_min_rate,
        net_max_rate,
        net_share,
        net_burst: size("--net-burst", &args.net_burst),
        net_max_kbyte: size("--net-max-kbyte", &args.net_max_kbyte),
        net_thresh_kbyte: size("--net-thresh-kbyte", &args.net_thresh_kbyte),
        net_exempt: prefixes(&args.net_exempt),
        net_exempt_min_rate,
        net_exempt_max_rate,
        net_exempt_max_kbyte: size("--net-exempt-max-kbyte", &args.net_exempt_max_kbyte),
        net_exempt_thresh_kbyte: size("--net-exempt-thresh-kbyte", &args.net_exempt_thresh_kbyte),
        net_rx_max_rate,
        net_rx_burst: size("--net-rx-burst", &args.net_rx_burst),
    }
}

/// The prefixes, if any are given. Whether they are some is checked where specs are.
fn prefixes(texts: &[String]) -> Option<Vec<String>> {
    match texts {
        [] => None,
        [only] if only == NONE => Some(Vec::new()),
        _ => Some(texts.iter().map(|text| text.trim().to_owned()).collect()),
    }
}

/// Name and value of each limit.
pub(super) fn rows(limits: &NetLimits) -> Vec<(String, String)> {
    let mut rows = class_rows("net", limits.plain());
    let change = NetChange::from(limits.clone());
    let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
    row("net share", limits.share().to_string());
    row("net burst", burst(change.net_burst));
    row("net rx max rate", told(limits.rx_max_kbit(), format_kbit));
    row("net rx burst", burst(change.net_rx_burst));
    row("net exempt", exempt(limits));
    if !limits.prefixes().is_empty() {
        rows.extend(class_rows("net exempt", limits.exempt()));
    }
    rows
}

fn class_rows(prefix: &str, class: &Class) -> Vec<(String, String)> {
    let kib = |bytes: u64| format_kib_exactly(bytes >> 10);
    let allowance = match (class.max_kbyte, class.threshold_bytes()) {
        (Some(max), Some(from)) => format!(
            "{} a day, spread from {} on",
            format_kib_exactly(max),
            kib(from)
        ),
        _ => NONE.to_owned(),
    };
    vec![
        (
            format!("{prefix} max rate"),
            told(class.max_kbit, format_kbit),
        ),
        (format!("{prefix} min rate"), format_kbit(class.min_kbit)),
        (format!("{prefix} allowance"), allowance),
    ]
}

fn burst(wanted: Option<Most>) -> String {
    match wanted {
        Some(Most::Number(kib)) => format_kib_exactly(kib),
        _ => "2 ms at the rate, at least 32 KiB".to_owned(),
    }
}

fn exempt(limits: &NetLimits) -> String {
    let prefixes = limits.prefixes();
    if prefixes.is_empty() {
        return NONE.to_owned();
    }
    let first = prefixes.iter().take(MOST_TOLD).map(ToString::to_string);
    let first = first.collect::<Vec<_>>().join(", ");
    match prefixes.len().saturating_sub(MOST_TOLD) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
