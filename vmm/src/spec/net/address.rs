//! Addresses of a network card: which ones it can have, and which ones can be its gateway.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Serialize, Serializer};

/// An address of a card and the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefixed<A> {
    address: A,
    prefix: u8,
}

impl<A: Copy> Prefixed<A> {
    pub(super) fn parts(&self) -> (A, u8) {
        (self.address, self.prefix)
    }
}

impl Prefixed<Ipv4Addr> {
    pub(super) fn parse_ipv4(text: &str) -> Result<Self, String> {
        let (address, prefix) = split(text, 32, "10.0.0.2/24")?;
        let parsed = Self { address, prefix };
        match unfit4(address).or_else(|| parsed.reserved(address)) {
            Some(what) => Err(format!("{text}: {address} is {what}")),
            None => Ok(parsed),
        }
    }

    fn mask(&self) -> u32 {
        u32::MAX << (32 - u32::from(self.prefix))
    }

    fn contains(&self, other: Ipv4Addr) -> bool {
        (other.to_bits() ^ self.address.to_bits()) & self.mask() == 0
    }

    /// What an address of this prefix is that no host can have. The two of a /31 and the one of a
    /// /32 are hosts' (RFC 3021).
    fn reserved(&self, address: Ipv4Addr) -> Option<&'static str> {
        match address.to_bits() & !self.mask() {
            _ if self.prefix > 30 => None,
            0 => Some("the address of its network"),
            host if host == !self.mask() => Some("the broadcast address of its network"),
            _ => None,
        }
    }
}

impl Prefixed<Ipv6Addr> {
    pub(super) fn parse_ipv6(text: &str) -> Result<Self, String> {
        let (address, prefix) = split(text, 128, "fd00::2/64")?;
        let parsed = Self { address, prefix };
        // The address of a subnet's routers (RFC 4291, 2.6.1).
        let routers = prefix < 127 && address.to_bits() & !parsed.mask() == 0;
        match unfit6(address).or(routers.then_some("the address of its network")) {
            Some(what) => Err(format!("{text}: {address} is {what}")),
            None => Ok(parsed),
        }
    }

    fn mask(&self) -> u128 {
        u128::MAX << (128 - u32::from(self.prefix))
    }

    fn contains(&self, other: Ipv6Addr) -> bool {
        (other.to_bits() ^ self.address.to_bits()) & self.mask() == 0
    }
}

impl<A: fmt::Display> Serialize for Prefixed<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}/{}", self.address, self.prefix))
    }
}

/// A default gateway: a neighbour by the card's own prefix.
pub(super) fn gateway4(text: &str, card: Option<&Prefixed<Ipv4Addr>>) -> Result<Ipv4Addr, String> {
    let gateway = parse(text, "10.0.0.1")?;
    let Some(card) = card else {
        return Err(format!(
            "{gateway} needs an IPv4 address in whose prefix it is"
        ));
    };
    let Prefixed { address, prefix } = card;
    if let Some(what) = unfit4(gateway) {
        Err(format!("{gateway} is {what}"))
    } else if !card.contains(gateway) {
        Err(format!(
            "{gateway} is outside the prefix of {address}/{prefix}"
        ))
    } else if let Some(what) = card.reserved(gateway) {
        Err(format!("{gateway} is {what}"))
    } else if gateway == *address {
        Err(format!("{gateway} is the card's own address"))
    } else {
        Ok(gateway)
    }
}

/// A default gateway: a neighbour by the card's own prefix, or by its link-local address.
pub(super) fn gateway6(text: &str, card: Option<&Prefixed<Ipv6Addr>>) -> Result<Ipv6Addr, String> {
    let gateway: Ipv6Addr = parse(text, "fd00::1")?;
    let Some(card) = card else {
        return Err(format!(
            "{gateway} needs an IPv6 address in whose prefix it is"
        ));
    };
    let Prefixed { address, prefix } = card;
    if let Some(what) = unfit6(gateway) {
        Err(format!("{gateway} is {what}"))
    } else if !card.contains(gateway) && !gateway.is_unicast_link_local() {
        Err(format!(
            "{gateway} is outside the prefix of {address}/{prefix}"
        ))
    } else if gateway == *address {
        Err(format!("{gateway} is the card's own address"))
    } else {
        Ok(gateway)
    }
}

/// A server that a guest can ask.
pub(super) fn server(text: &str) -> Result<IpAddr, String> {
    let address = parse(text, "10.0.0.1")?;
    let unfit = match address {
        IpAddr::V4(address) => unfit4(address),
        IpAddr::V6(address) => unfit6(address),
    };
    match unfit {
        Some(what) => Err(format!("{address} is {what}")),
        None => Ok(address),
    }
}

fn split<A: std::str::FromStr>(text: &str, max: u8, example: &str) -> Result<(A, u8), String> {
    let wrong = || format!("{text:?} is not an address with its prefix such as {example}");
    let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
    let address = address.parse().map_err(|_| wrong())?;
    let digits = prefix.bytes().all(|b| b.is_ascii_digit());
    let prefix = prefix.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
    if !(1..=max).contains(&prefix) {
        return Err(format!(
            "{text}: the prefix has {prefix} bits, allowed are 1 to {max}"
        ));
    }
    Ok((address, prefix))
}

fn parse<A: std::str::FromStr>(text: &str, example: &str) -> Result<A, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not an address such as {example}"))
}

/// What an address is that is not one host's on a network.
fn unfit4(address: Ipv4Addr) -> Option<&'static str> {
    if address.octets()[0] == 0 {
        Some("no host's address")
    } else if address.is_loopback() {
        Some("a loopback address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if address.is_broadcast() {
        Some("the broadcast address")
    } else {
        None
    }
}

/// What an address is that is not one host's on a network.
fn unfit6(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_unspecified() {
        Some("no host's address")
    } else if address.is_loopback() {
        Some("a loopback address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if address.to_ipv4_mapped().is_some() {
        Some("an IPv4 address in IPv6 clothes")
    } else {
        None
    }
}
