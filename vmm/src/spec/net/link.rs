//! Names of taps and hardware addresses.

use std::fmt;

use serde::{Serialize, Serializer};

/// Name of a tap, as the kernel allows them: 1 to 15 printable ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct TapName(String);

impl TapName {
    /// The longest name (`IFNAMSIZ` counts the terminator).
    pub const MAX_BYTES: usize = 15;

    /// Checks a name. `/` and `:` are the kernel's own; `%` would make it count.
    pub fn parse(text: &str) -> Result<Self, String> {
        let valid = (1..=Self::MAX_BYTES).contains(&text.len())
            && text != "."
            && text != ".."
            && text
                .bytes()
                .all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%'));
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "{text:?} is not the name of a network interface: 1 to {} letters, digits and \
                 marks other than / : %",
                Self::MAX_BYTES
            ))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Hardware address of one network card: neither a group's nor all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

/// Set in addresses of groups.
const MULTICAST: u8 = 1;

/// Set in addresses that no vendor has given out.
const LOCAL: u8 = 2;

impl Mac {
    /// Reads six pairs of hexadecimal digits with colons between.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let digits = parts.next().filter(|part| part.len() == 2);
            let digits = digits.filter(|part| part.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = digits
                .and_then(|digits| u8::from_str_radix(digits, 16).ok())
                .ok_or_else(|| not_a_mac(text))?;
        }
        if parts.next().is_some() {
            Err(not_a_mac(text))
        } else if bytes[0] & MULTICAST != 0 {
            Err(format!("{text} is the address of a group, not of one card"))
        } else if bytes == [0; 6] {
            Err(format!("{text} is not the address of any card"))
        } else {
            Ok(Self(bytes))
        }
    }

    /// The address of card `index` of the sliver called `sliver`: always the same one, locally
    /// administered, and another for another name or index as far as 46 bits can tell.
    pub fn derived(sliver: &str, index: usize) -> Self {
        // FNV-1a: names are no secret, and nobody gains by two that collide.
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        for byte in sliver.bytes().chain([0, index as u8]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let folded = (hash ^ (hash >> 48)).to_le_bytes();
        let mut bytes = [0; 6];
        bytes.copy_from_slice(&folded[..6]);
        bytes[0] = bytes[0] & !MULTICAST | LOCAL;
        Self(bytes)
    }

    /// The six bytes, as they are sent.
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }
}

fn not_a_mac(text: &str) -> String {
    format!("{text:?} is not a hardware address such as 02:00:00:00:00:01")
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_zero_and_what_is_no_address_are_refused() {
        assert_eq!(
            Mac::parse("02:00:00:AA:00:01").map(Mac::bytes),
            Ok([2, 0, 0, 0xaa, 0, 1])
        );
        for bad in [
            "",
            "00:00:00:00:00:00",
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "2:0:0:0:0:1",
            "+2:00:00:00:00:01",
            "02-00-00-00-00-01",
        ] {
            assert!(Mac::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn derived_addresses_are_local_and_differ_by_name_and_index() {
        let mut seen = std::collections::BTreeSet::new();
        for name in ["a", "b", "hello-1", "hello-2"] {
            for index in 0..8 {
                let mac = Mac::derived(name, index);
                assert_eq!(mac.bytes()[0] & 3, 2, "{mac}");
                assert_eq!(Mac::parse(&mac.to_string()), Ok(mac));
                assert!(seen.insert(mac));
            }
        }
    }

    #[test]
    fn names_of_taps_are_the_kernel_s() {
        for good in ["tap0", "a", "x.y-z_1@2", "exactly15chars_"] {
            assert!(TapName::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a:b",
            "tap%d",
            "a b",
            "ä",
            "sixteen_chars_xx",
        ] {
            assert!(TapName::parse(bad).is_err(), "{bad}");
        }
    }
}
