//! Which addresses a card has, from what its owner has configured.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use slice_abi::info::{NET_DHCP, NetConfig};

/// What a card's owner has configured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Addressing {
    /// Address and length of its prefix.
    pub(crate) v4: Option<(Ipv4Addr, u8)>,
    /// Default gateway.
    pub(crate) gateway4: Option<Ipv4Addr>,
    /// Address and length of its prefix.
    pub(crate) v6: Option<(Ipv6Addr, u8)>,
    /// Default gateway.
    pub(crate) gateway6: Option<Ipv6Addr>,
    /// Name servers.
    pub(crate) dns: Vec<IpAddr>,
    /// What of IPv4 is not given comes from DHCP.
    pub(crate) dhcp: bool,
}

impl Addressing {
    /// From an entry of the info page. A prefix that is too long is taken for one address.
    pub(crate) fn of(config: &NetConfig) -> Self {
        let v4 = |bytes: [u8; 4]| Some(Ipv4Addr::from(bytes)).filter(|a| !a.is_unspecified());
        let v6 = |bytes: [u8; 16]| Some(Ipv6Addr::from(bytes)).filter(|a| !a.is_unspecified());
        let unicast4 = |a: &Ipv4Addr| !a.is_multicast() && !a.is_broadcast();
        let unicast6 = |a: &Ipv6Addr| !a.is_multicast();
        let dns = config.dns.iter().filter_map(|&bytes| v6(bytes));
        Self {
            v4: v4(config.ipv4)
                .filter(unicast4)
                .map(|a| (a, config.prefix4.min(32))),
            gateway4: v4(config.gateway4).filter(unicast4),
            v6: v6(config.ipv6)
                .filter(unicast6)
                .map(|a| (a, config.prefix6.min(128))),
            gateway6: v6(config.gateway6).filter(unicast6),
            dns: dns
                .map(|address| IpAddr::from(address).to_canonical())
                .collect(),
            dhcp: config.flags & NET_DHCP != 0,
        }
    }
}

/// The address that a card has on its own link whatever else it has (RFC 4291, appendix A).
pub(super) fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    let host = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&[0xfe, 0x80]);
    bytes[8..].copy_from_slice(&host);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_no_addresses_and_mapped_name_servers_are_ipv4() {
        let config = NetConfig {
            flags: NET_DHCP,
            prefix4: 24,
            ipv6: "2001:db8::2".parse::<Ipv6Addr>().unwrap().octets(),
            prefix6: 200,
            dns: [
                "::ffff:192.0.2.1".parse::<Ipv6Addr>().unwrap().octets(),
                [0; 16],
            ],
            ..NetConfig::default()
        };
        let expected = Addressing {
            v6: Some(("2001:db8::2".parse().unwrap(), 128)),
            dns: vec!["192.0.2.1".parse().unwrap()],
            dhcp: true,
            ..Addressing::default()
        };
        assert_eq!(Addressing::of(&config), expected);
    }

    #[test]
    fn a_multicast_address_is_nobodys_own() {
        let config = NetConfig {
            ipv4: [224, 0, 0, 1],
            ipv6: "ff02::1".parse::<Ipv6Addr>().unwrap().octets(),
            ..NetConfig::default()
        };
        assert_eq!(Addressing::of(&config), Addressing::default());
    }

    #[test]
    fn the_link_local_address_is_made_of_the_mac() {
        let address = link_local([0x02, 0x53, 0x4c, 0, 0, 1]);
        assert_eq!(address, "fe80::53:4cff:fe00:1".parse::<Ipv6Addr>().unwrap());
    }
}
