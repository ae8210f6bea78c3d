//! Moments as people write them, in UTC: `14:03`, `2026-11-23 14:03:05`, `@1795000000`; and a span
//! that ends or begins now: `2h`.

use std::time::Duration;

use crate::units::parse_duration;

const MS_A_DAY: u64 = 86_400_000;

/// A moment that has been: a time of day is the last such, a span lies behind now.
pub fn parse_past(text: &str, now_ms: u64) -> Result<u64, String> {
    if let Ok(span) = parse_duration(text) {
        return Ok(now_ms.saturating_sub(millis(span)));
    }
    match parse(text)? {
        Moment::Exact(ms) => Ok(ms),
        Moment::OfDay(of_day) => {
            let today = now_ms / MS_A_DAY * MS_A_DAY + of_day;
            Ok(match today <= now_ms {
                true => today,
                false => today.saturating_sub(MS_A_DAY),
            })
        }
    }
}

/// A moment to come: a time of day is the next such, a span begins now.
pub fn parse_future(text: &str, now_ms: u64) -> Result<u64, String> {
    let moment = match parse_duration(text) {
        Ok(span) => now_ms.saturating_add(millis(span)),
        Err(_) => match parse(text)? {
            Moment::Exact(ms) => ms,
            Moment::OfDay(of_day) => {
                let today = now_ms / MS_A_DAY * MS_A_DAY + of_day;
                if today > now_ms {
                    today
                } else {
                    today + MS_A_DAY
                }
            }
        },
    };
    match moment > now_ms {
        true => Ok(moment),
        false => Err(format!("{text:?} is over")),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A moment as it is shown: `2026-11-23 14:03:05`.
pub fn format_moment(ms: u64) -> String {
    let (year, month, day) = date(ms / MS_A_DAY);
    let seconds = ms % MS_A_DAY / 1000;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

enum Moment {
    /// Milliseconds since 1970.
    Exact(u64),
    /// Milliseconds since midnight.
    OfDay(u64),
}

fn parse(text: &str) -> Result<Moment, String> {
    let wrong = || {
        format!(
            "{text:?} is no time such as 14:03, 2026-11-23T14:03:05 (UTC), @SECONDS since 1970 or 2h"
        )
    };
    if let Some(seconds) = text.strip_prefix('@') {
        let ms = number(seconds).and_then(|seconds| seconds.checked_mul(1000));
        return ms.map(Moment::Exact).ok_or_else(wrong);
    }
    let trimmed = text.strip_suffix('Z').unwrap_or(text);
    let moment = match trimmed.split_once(['T', ' ']) {
        Some((date, time)) => parse_date(date)
            .and_then(|days| Some(Moment::Exact(days * MS_A_DAY + parse_time(time)?))),
        None if trimmed.contains(':') => parse_time(trimmed).map(Moment::OfDay),
        None => parse_date(trimmed).map(|days| Moment::Exact(days * MS_A_DAY)),
    };
    moment.ok_or_else(wrong)
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn parse_time(text: &str) -> Option<u64> {
    let mut parts = text.split(':').map(number);
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = match parts.next() {
        Some(second) => second?,
        None => 0,
    };
    let valid = hour < 24 && minute < 60 && second < 60 && parts.next().is_none();
    valid.then_some((hour * 3600 + minute * 60 + second) * 1000)
}

/// Days since 1970.
fn parse_date(text: &str) -> Option<u64> {
    let mut parts = text.split('-').map(number);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || !(1970..10_000).contains(&year) {
        return None;
    }
    // Whole years and leap days before it, then the days of the months.
    let before = year - 1;
    let leap_days = |years: u64| years / 4 - years / 100 + years / 400;
    let start = (year - 1970) * 365 + leap_days(before) - leap_days(1969);
    (start..start + 366).find(|days| date(*days) == (year, month, day))
}

/// Year, month and day of a number of days since 1970.
fn date(days: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    // 400 years have the same number of days wherever they begin.
    let (mut year, mut left) = (1970 + days / 146_097 * 400, days % 146_097);
    loop {
        let len = if is_leap(year) { 366 } else { 365 };
        if left < len {
            break;
        }
        left -= len;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for len in months {
        if left < len {
            break;
        }
        left -= len;
        month += 1;
    }
    (year, month, left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23 14:30:00.
    const NOW: u64 = 1_795_444_200_000;

    #[test]
    fn a_time_of_day_is_the_last_or_the_next_such() {
        let past = |text| parse_past(text, NOW).map(format_moment);
        assert_eq!(format_moment(NOW), "2026-11-23 14:30:00");
        assert_eq!(past("14:03"), Ok("2026-11-23 14:03:00".to_owned()));
        assert_eq!(past("15:03:07"), Ok("2026-11-22 15:03:07".to_owned()));
        assert_eq!(past("1h"), Ok("2026-11-23 13:30:00".to_owned()));
        let future = |text| parse_future(text, NOW).map(format_moment);
        assert_eq!(future("14:03"), Ok("2026-11-24 14:03:00".to_owned()));
        assert_eq!(future("15:03"), Ok("2026-11-23 15:03:00".to_owned()));
        assert_eq!(future("2d"), Ok("2026-11-25 14:30:00".to_owned()));
        assert!(future("2026-11-23").is_err_and(|why| why.contains("is over")));
    }

    #[test]
    fn dates_are_exact_on_leap_days_and_at_the_ends_of_years() {
        for text in [
            "2024-02-29 23:59:59",
            "2000-12-31 00:00:01",
            "1970-01-01 00:00:00",
        ] {
            assert_eq!(
                parse_past(text, NOW).map(format_moment),
                Ok(text.to_owned())
            );
        }
        assert_eq!(parse_past("@1000000000", NOW), Ok(1_000_000_000_000));
        assert_eq!(
            parse_past("2001-09-09T01:46:40Z", NOW),
            Ok(1_000_000_000_000)
        );
        assert_eq!(
            parse_past("2100-03-01", NOW).map(format_moment),
            Ok("2100-03-01 00:00:00".to_owned())
        );
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "x",
            "25:00",
            "14",
            "14:60",
            "2023-02-29",
            "2026-13-01",
            "@",
            "1:2:3:4",
            "+1:+2",
        ] {
            assert!(parse_past(text, NOW).is_err(), "{text}");
        }
    }
}
