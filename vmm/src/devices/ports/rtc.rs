//! A PC's real-time clock (MC146818) that can be read and not be set, for kernels that insist.
//! Pure: the time is an argument.

/// Registers (Motorola MC146818A, and the ACPI century byte).
mod register {
    pub(super) const SECONDS: u8 = 0x00;
    pub(super) const MINUTES: u8 = 0x02;
    pub(super) const HOURS: u8 = 0x04;
    pub(super) const WEEKDAY: u8 = 0x06;
    pub(super) const DAY: u8 = 0x07;
    pub(super) const MONTH: u8 = 0x08;
    pub(super) const YEAR: u8 = 0x09;
    pub(super) const A: u8 = 0x0a;
    pub(super) const B: u8 = 0x0b;
    pub(super) const D: u8 = 0x0d;
    pub(super) const CENTURY: u8 = 0x32;
}

/// The usual divider and rate; no update is in progress.
const A_VALUE: u8 = 0x26;
/// 24 hours, in binary-coded decimal.
const B_VALUE: u8 = 0x02;
/// The battery is good.
const D_VALUE: u8 = 0x80;
/// The index's highest bit masks interrupts.
const INDEX_MASK: u8 = 0x7f;

const DAY: u64 = 86_400;
/// 1970-01-01 was one, counted from Sunday.
const THURSDAY: u64 = 4;

/// The clock.
#[derive(Debug, Default)]
pub(super) struct Rtc {
    index: u8,
}

impl Rtc {
    pub(super) fn select(&mut self, index: u8) {
        self.index = index & INDEX_MASK;
    }

    pub(super) fn index(&self) -> u8 {
        self.index
    }

    /// The selected register, at `realtime` seconds since 1970.
    pub(super) fn read(&self, realtime: u64) -> u8 {
        // Four digits of a year are all that there are.
        let realtime = realtime.min(253_402_300_799);
        let (days, second) = (realtime / DAY, realtime % DAY);
        let (year, month, day) = civil(days);
        let number = match self.index {
            register::SECONDS => second % 60,
            register::MINUTES => second / 60 % 60,
            register::HOURS => second / 3600,
            register::WEEKDAY => (days + THURSDAY) % 7 + 1,
            register::DAY => day,
            register::MONTH => month,
            register::YEAR => year % 100,
            register::CENTURY => year / 100,
            register::A => return A_VALUE,
            register::B => return B_VALUE,
            register::D => return D_VALUE,
            _ => return 0,
        };
        (number / 10 * 16 + number % 10) as u8
    }
}

/// Year, month and day of a count of days since 1970 (the proleptic Gregorian calendar, counted in
/// years that begin in March, so that the leap day is the last).
fn civil(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    let days = days + 719_468;
    let (era, of_era) = (days / ERA, days % ERA);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(realtime: u64) -> Vec<u8> {
        let mut rtc = Rtc::default();
        let mut read = |index| {
            rtc.select(index);
            rtc.read(realtime)
        };
        [0x32, 9, 8, 7, 6, 4, 2, 0]
            .into_iter()
            .map(&mut read)
            .collect()
    }

    #[test]
    fn it_tells_the_date_in_decimal_digits() {
        assert_eq!(fields(0), [0x19, 0x70, 1, 1, 5, 0, 0, 0]);
        // Leap days of a century that has one, and of a usual year.
        assert_eq!(fields(951_782_399), [0x20, 0, 2, 0x28, 2, 0x23, 0x59, 0x59]);
        assert_eq!(fields(951_782_400), [0x20, 0, 2, 0x29, 3, 0, 0, 0]);
        assert_eq!(
            fields(1_709_210_096),
            [0x20, 0x24, 2, 0x29, 5, 0x12, 0x34, 0x56]
        );
        assert_eq!(fields(u64::MAX)[..2], [0x99, 0x99]);
    }

    #[test]
    fn no_update_is_ever_in_progress() {
        let mut rtc = Rtc::default();
        rtc.select(0x8a);
        assert_eq!(rtc.read(0) & 0x80, 0);
    }
}
