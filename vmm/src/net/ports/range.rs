//! Ranges of ports of the outside, as they are written: `20000-20999`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Ports below are those of well-known services (RFC 6335, 6), which no sliver speaks for.
pub const FIRST_PORT: u16 = 1024;

/// A smaller range is of no use: every flow that a guest has at a time takes a port.
pub const MIN_PORTS: usize = 16;

/// At least [`MIN_PORTS`] ports from [`FIRST_PORT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Why a text is no range of ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub enum RangeError {
    #[error("{0:?} is not a range of ports such as 20000-20999")]
    Syntax(String),
    #[error("{first}-{last} begins after its end")]
    Reversed { first: u16, last: u16 },
    #[error("{first}-{last} begins below {FIRST_PORT}, with ports of well-known services")]
    WellKnown { first: u16, last: u16 },
    #[error("{first}-{last} is too small: {MIN_PORTS} ports are the least")]
    TooSmall { first: u16, last: u16 },
}

impl PortRange {
    /// The ports from `first` to `last`, both included.
    pub fn new(first: u16, last: u16) -> Result<Self, RangeError> {
        if last < first {
            Err(RangeError::Reversed { first, last })
        } else if first < FIRST_PORT {
            Err(RangeError::WellKnown { first, last })
        } else if usize::from(last - first) + 1 < MIN_PORTS {
            Err(RangeError::TooSmall { first, last })
        } else {
            Ok(Self { first, last })
        }
    }

    /// The first port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The last port.
    pub fn last(self) -> u16 {
        self.last
    }

    /// All of its ports.
    pub fn ports(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }

    /// How many ports there are.
    pub fn count(self) -> usize {
        usize::from(self.last - self.first) + 1
    }

    /// Whether a port is one of them.
    pub fn contains(self, port: u16) -> bool {
        self.ports().contains(&port)
    }

    /// Whether both have a port in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The place of a port among them.
    pub(super) fn index(self, port: u16) -> Option<usize> {
        self.contains(port).then(|| usize::from(port - self.first))
    }
}

impl FromStr for PortRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let port = |text: &str| -> Option<u16> {
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|_| digits)
        };
        let ends = text.split_once('-');
        match ends.and_then(|(first, last)| Some((port(first)?, port(last)?))) {
            Some((first, last)) => Self::new(first, last),
            None => Err(RangeError::Syntax(text.to_owned())),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let refused: Result<PortRange, _> = text.parse();
        refused.expect_err("refused").to_string()
    }

    #[test]
    fn a_range_is_read_as_it_is_written() {
        let range: PortRange = "20000-20999".parse().unwrap();
        assert_eq!(range.to_string(), "20000-20999");
        assert_eq!(range.count(), 1000);
        assert!(range.contains(20_000) && range.contains(20_999));
        assert!(!range.contains(19_999) && !range.contains(21_000));
        assert_eq!(range.index(20_001), Some(1));
        let all: PortRange = "1024-65535".parse().unwrap();
        assert_eq!(all.count(), 64_512);
    }

    #[test]
    fn what_is_no_range_is_refused_with_what_is_wrong() {
        for text in [
            "",
            "20000",
            "a-b",
            "20000-",
            "-1-5",
            "+20000-20999",
            "20000-70000",
        ] {
            assert!(refused(text).contains("such as 20000-20999"), "{text}");
        }
        assert!(refused("20999-20000").contains("after its end"));
        assert!(refused("80-2000").contains("below 1024"));
        assert!(refused("20000-20014").contains("16 ports"));
    }

    #[test]
    fn ranges_with_a_common_port_overlap() {
        let range = |first, last| PortRange::new(first, last).unwrap();
        assert!(range(2000, 2999).overlaps(range(2999, 3100)));
        assert!(range(2000, 2999).overlaps(range(2100, 2200)));
        assert!(!range(2000, 2999).overlaps(range(3000, 3999)));
    }
}
