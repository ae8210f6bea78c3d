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
