//! Sizes and durations as people write them: `64M`, `2GiB`, `500ms`, `2m`.
//!
//! A bare number is refused: whether 64 means bytes or mebibytes differs from tool to tool.

use std::time::Duration;

/// Parses a size; units are powers of 1024, with or without `iB` or `B`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text, "64M")?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "" => return Err(format!("{text:?} has no unit; write {number}M for MiB")),
        _ => return Err(format!("{text:?}: unknown unit {unit:?}; use K, M, G or T")),
    };
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("{text:?} is more than can be counted"))
}

/// Parses a size in whole MiB.
pub fn whole_mib(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    match bytes % (1 << 20) {
        0 => Ok(bytes >> 20),
        _ => Err(format!("{text:?} is not a whole number of MiB")),
    }
}

/// Parses a size in whole KiB; a bare number is one of KiB, as in a spec.
pub fn parse_kib(text: &str) -> Result<u64, String> {
    if let Ok(kib) = text.parse() {
        return Ok(kib);
    }
    let bytes = parse_size(text)?;
    match bytes % 1024 {
        0 => Ok(bytes >> 10),
        _ => Err(format!("{text:?} is not a whole number of KiB")),
    }
}

/// Parses a rate of bits; units are powers of 1000, a bare number is one of kbit/s, as in a spec.
pub fn parse_kbit(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a rate such as 10mbit, 512kbit or, in kbit/s, 512");
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = lower.split_at(end.unwrap_or(lower.len()));
    let unit = unit.trim_start();
    let bits: u64 = match unit.strip_suffix("/s").unwrap_or(unit) {
        "" | "k" | "kbit" => 1_000,
        "m" | "mbit" => 1_000_000,
        "g" | "gbit" => 1_000_000_000,
        "bit" => 1,
        _ => {
            return Err(format!(
                "{text:?}: unknown unit {unit:?}; use kbit, mbit or gbit"
            ));
        }
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = u32::try_from(part.len()).unwrap_or(u32::MAX);
    let (Ok(whole), Ok(part), Some(divisor)) = (
        whole.parse::<u64>(),
        part.parse::<u64>(),
        10_u64.checked_pow(digits),
    ) else {
        return Err(wrong());
    };
    let scaled = u128::from(part) * u128::from(bits);
    let total = u128::from(whole) * u128::from(bits) + scaled / u128::from(divisor);
    if scaled % u128::from(divisor) != 0 || total % 1000 != 0 {
        return Err(format!("{text:?} is not a whole number of kbit/s"));
    }
    u64::try_from(total / 1000).map_err(|_| format!("{text:?} is more than can be counted"))
}

/// Parses a duration of at least a millisecond.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text, "10s")?;
    let millis = match unit.to_ascii_lowercase().as_str() {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" | "min" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        "" => return Err(format!("{text:?} has no unit; write {number}s for seconds")),
        _ => {
            return Err(format!(
                "{text:?}: unknown unit {unit:?}; use ms, s, m, h or d"
            ));
        }
    };
    match millis {
        Some(0) => Err(format!("{text:?} is no time at all; 1ms is the least")),
        Some(millis) => Ok(Duration::from_millis(millis)),
        None => Err(format!("{text:?} is more than can be counted")),
    }
}

/// Parses milliseconds, or another duration in whole milliseconds; no time at all is 0.
pub fn parse_millis(text: &str) -> Result<u64, String> {
    if let Ok(millis) = text.parse() {
        return Ok(millis);
    }
    let units = [("ms", 1), ("s", 1000)];
    let with_unit = units.iter().find_map(|(unit, factor)| {
        let number = text.strip_suffix(unit)?.trim_end();
        number.parse::<u64>().ok()?.checked_mul(*factor)
    });
    with_unit.ok_or_else(|| format!("{text:?} is not a number of milliseconds, such as 20 or 20ms"))
}

/// A duration in the largest unit that tells it exactly.
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 => "0s".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1000) => format!("{}s", millis / 1000),
        _ => format!("{millis}ms"),
    }
}

/// How long something has been going on, in its two largest units: `3m 12s`.
pub fn format_age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{}.{}s", seconds, duration.subsec_millis() / 100),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Microseconds with a unit that leaves few digits.
pub fn format_micros(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{micros} us"),
        10_000..10_000_000 => format!("{}.{} ms", micros / 1000, micros / 100 % 10),
        _ => format!("{}.{:02} s", micros / 1_000_000, micros / 10_000 % 100),
    }
}

/// Bytes with a unit that leaves few digits, rounded down.
pub fn format_bytes(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} B"),
        _ => format_kib(bytes >> 10),
    }
}

/// KiB with a unit that leaves few digits, rounded down.
pub fn format_kib(kib: u64) -> String {
    match kib {
        0..10_240 => format!("{kib} KiB"),
        10_240..10_485_760 => format!("{} MiB", kib >> 10),
        _ => format!("{}.{} GiB", kib >> 20, ((kib & 0xf_ffff) * 10) >> 20),
    }
}

/// A rate of bits, exactly.
pub fn format_kbit(kbit: u64) -> String {
    let (divisor, unit) = match kbit {
        0..1_000 => return format!("{kbit} kbit/s"),
        _ if kbit >= 1_000_000 && kbit.is_multiple_of(1_000) => (1_000_000, "Gbit/s"),
        _ => (1_000, "Mbit/s"),
    };
    let (whole, part) = (kbit / divisor, kbit % divisor * 1_000 / divisor);
    match part {
        0 => format!("{whole} {unit}"),
        _ => {
            let part = format!("{part:03}");
            format!("{whole}.{} {unit}", part.trim_end_matches('0'))
        }
    }
}

/// KiB in the largest unit that tells them exactly.
pub fn format_kib_exactly(kib: u64) -> String {
    let units = [("TiB", 30), ("GiB", 20), ("MiB", 10)];
    let exact = |(_, shift): &&(&str, u32)| kib > 0 && kib.is_multiple_of(1 << shift);
    match units.iter().find(exact) {
        Some((unit, shift)) => format!("{} {unit}", kib >> shift),
        None => format!("{kib} KiB"),
    }
}

fn split<'a>(text: &'a str, example: &str) -> Result<(u64, &'a str), String> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if digits.is_empty() {
        return Err(format!(
            "{text:?} is not a whole number with a unit, such as {example}"
        ));
    }
    if unit.starts_with(['.', ',']) {
        return Err(format!(
            "{text:?} is not a whole number; use a smaller unit"
        ));
    }
    let number = digits
        .parse()
        .map_err(|_| format!("{text:?} is more than can be counted"))?;
    Ok((number, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_short_and_long_units() {
        for text in ["64M", "64m", "64MiB", "64 MB", "65536K"] {
            assert_eq!(parse_size(text), Ok(64 << 20), "{text}");
        }
        assert_eq!(parse_size("1G"), Ok(1 << 30));
        assert_eq!(parse_size("512MiB"), Ok(512 << 20));
        assert_eq!(parse_size("2T"), Ok(2 << 40));
        assert_eq!(parse_size("0M"), Ok(0));
    }

    #[test]
    fn sizes_without_a_clear_meaning_are_refused() {
        for text in [
            "",
            "64",
            "M",
            "-1M",
            "1.5G",
            "64X",
            "64MiBs",
            "16777216T",
            "99999999999999999999M",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert!(parse_size("64").unwrap_err().contains("64M"));
    }

    #[test]
    fn rates_take_the_units_of_the_field_and_are_kbit_without() {
        for (text, kbit) in [
            ("512", 512),
            ("512kbit", 512),
            ("512 kbit/s", 512),
            ("0", 0),
            ("10mbit", 10_000),
            ("10M", 10_000),
            ("1.5Mbit/s", 1500),
            ("2.5gbit", 2_500_000),
            ("1Gbit", 1_000_000),
            ("5000bit", 5),
        ] {
            assert_eq!(parse_kbit(text), Ok(kbit), "{text}");
        }
    }

    #[test]
    fn rates_that_could_mean_something_else_are_refused() {
        for text in [
            "",
            "fast",
            "-1",
            "1.2.3mbit",
            ".5mbit",
            "1.mbit",
            "0.5",
            "500bit",
            "10MB",
            "10mbps",
            "10mibit",
            "99999999999999999999gbit",
            "18446744073709551615gbit",
        ] {
            assert!(parse_kbit(text).is_err(), "{text}");
        }
        assert!(parse_kbit("10MB").unwrap_err().contains("mbit"));
    }

    #[test]
    fn kibibytes_need_no_unit_and_may_have_one() {
        for (text, kib) in [("64", 64), ("64K", 64), ("1M", 1024), ("10 GiB", 10 << 20)] {
            assert_eq!(parse_kib(text), Ok(kib), "{text}");
        }
        for text in ["", "100B", "1.5M", "-1", "much"] {
            assert!(parse_kib(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_and_sizes_are_told_exactly() {
        for (kbit, told) in [
            (0, "0 kbit/s"),
            (999, "999 kbit/s"),
            (1_000, "1 Mbit/s"),
            (1_050, "1.05 Mbit/s"),
            (1_000_000, "1 Gbit/s"),
            (2_500_000, "2.5 Gbit/s"),
            (1_000_001, "1000.001 Mbit/s"),
        ] {
            assert_eq!(format_kbit(kbit), told);
            let read = parse_kbit(told);
            assert_eq!(read, Ok(kbit), "{told}");
        }
        for (kib, told) in [
            (0, "0 KiB"),
            (10_546_875, "10546875 KiB"),
            (64, "64 KiB"),
            (3 << 10, "3 MiB"),
            (10 << 20, "10 GiB"),
            (1 << 30, "1 TiB"),
        ] {
            assert_eq!(format_kib_exactly(kib), told);
            assert_eq!(parse_kib(told), Ok(kib), "{told}");
        }
    }

    #[test]
    fn durations_take_their_units() {
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3600)));
    }

    #[test]
    fn durations_of_nothing_or_without_unit_are_refused() {
        for text in [
            "",
            "10",
            "0s",
            "-1s",
            "1.5s",
            "s",
            "5y",
            "999999999999999999h",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_formatted_is_parsed_back() {
        for millis in [1, 999, 1000, 1500, 60_000, 90_000, 3_600_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
    }

    #[test]
    fn amounts_are_short() {
        assert_eq!(format_micros(9_999), "9999 us");
        assert_eq!(format_micros(12_345), "12.3 ms");
        assert_eq!(format_micros(61_230_000), "61.23 s");
        assert_eq!(format_bytes(10_239), "10239 B");
        assert_eq!(format_bytes(10_240), "10 KiB");
        assert_eq!(format_kib(65_536), "64 MiB");
        assert_eq!(format_kib(3 << 19), "1536 MiB");
        assert_eq!(format_kib(24 << 20 | 1 << 19), "24.5 GiB");
        assert_eq!(format_age(Duration::from_millis(1234)), "1.2s");
        assert_eq!(format_age(Duration::from_secs(3700)), "1h 1m");
    }
}
