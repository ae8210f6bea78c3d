//! Addresses that no packet should go to: those of the registries of special purposes (RFC 6890,
//! IANA's tables for IPv4 and IPv6) that cannot be reached from everywhere.

use crate::net::prefix::{Prefix, PrefixSet};

/// Groups and broadcasts are judged elsewhere.
const BOGONS: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "240.0.0.0/4",
    "::/96",
    "::ffff:0:0/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fec0::/10",
];

/// The set of them.
pub(super) fn bogons() -> PrefixSet {
    let prefixes: Vec<Prefix> = BOGONS.iter().filter_map(|text| text.parse().ok()).collect();
    PrefixSet::new(&prefixes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_prefixes_and_public_addresses_are_in_none() {
        for text in BOGONS {
            assert!(text.parse::<Prefix>().is_ok(), "{text}");
        }
        for public in ["8.8.8.8", "192.0.3.1", "2606:4700::1111"] {
            assert!(!bogons().contains(public.parse().unwrap()), "{public}");
        }
        assert!(bogons().contains("192.168.1.1".parse().unwrap()));
    }
}
