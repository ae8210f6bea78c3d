//! The network cards of a sliver, in its spec.

mod address;
mod link;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;
use slice_abi::info::MAX_NETS;

use super::fields::Fields;
use address::Prefixed;
pub use link::{Mac, TapName};

/// Name servers that a card can have.
pub const MAX_DNS: usize = 2;

/// The largest packet of a card whose spec names none.
pub const DEFAULT_MTU: u16 = 1500;

/// What every host must take in (RFC 791).
const MIN_MTU: u64 = 576;

/// What every link with IPv6 must carry (RFC 8200, 5).
const MIN_MTU_IPV6: u64 = 1280;

const MAX_MTU: u64 = 9000;

/// A network card; every field may be left out.
///
/// ```json
/// {
///   "tap": "tap3", "mac": "02:00:00:00:00:01", "mtu": 1500, "offloads": true,
///   "ipv4": "10.0.0.2/24", "gateway4": "10.0.0.1",
///   "ipv6": "fd00::2/64", "gateway6": "fd00::1",
///   "dns": ["10.0.0.1"], "dhcp": false
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    tap: Option<TapName>,
    mac: Mac,
    mtu: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv4: Option<Prefixed<Ipv4Addr>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway4: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv6: Option<Prefixed<Ipv6Addr>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway6: Option<Ipv6Addr>,
    dns: Vec<IpAddr>,
    dhcp: bool,
    offloads: bool,
}

/// Reads the field `nets` of the sliver called `sliver`.
pub(super) fn read_all(fields: &mut Fields, sliver: &str) -> Vec<NetSpec> {
    let (mut taps, mut macs) = (BTreeSet::new(), BTreeSet::new());
    fields.objects("nets", MAX_NETS, |fields, index| {
        let net = NetSpec::read(fields, sliver, index);
        if let Some(tap) = &net.tap
            && !taps.insert(tap.clone())
        {
            fields.mistake("tap", format!("{tap} is the tap of another card, too"));
        }
        if !macs.insert(net.mac) {
            let why = format!("{} is the address of another card, too", net.mac);
            fields.mistake("mac", why);
        }
        Some(net)
    })
}

impl NetSpec {
    fn read(fields: &mut Fields, sliver: &str, index: usize) -> Self {
        let tap = fields.optional_parsed("tap", TapName::parse);
        let mac = fields.optional_parsed("mac", Mac::parse);
        let ipv4 = fields.optional_parsed("ipv4", Prefixed::parse_ipv4);
        let ipv6 = fields.optional_parsed("ipv6", Prefixed::parse_ipv6);
        let mtu = fields.ranged_u64("mtu", MIN_MTU, MAX_MTU, u64::from(DEFAULT_MTU));
        if ipv6.is_some() && mtu < MIN_MTU_IPV6 {
            fields.mistake(
                "mtu",
                format!("is {mtu}, IPv6 needs at least {MIN_MTU_IPV6}"),
            );
        }
        let gateway4 =
            fields.optional_parsed("gateway4", |text| address::gateway4(text, ipv4.as_ref()));
        let gateway6 =
            fields.optional_parsed("gateway6", |text| address::gateway6(text, ipv6.as_ref()));
        Self {
            tap,
            mac: mac.unwrap_or_else(|| Mac::derived(sliver, index)),
            mtu: mtu as u16,
            ipv4,
            gateway4,
            ipv6,
            gateway6,
            dns: name_servers(fields),
            dhcp: fields.bool("dhcp", false),
            offloads: fields.bool("offloads", true),
        }
    }

    /// The tap of the host to use. Without one, its descriptor is handed to the monitor.
    pub fn tap(&self) -> Option<&TapName> {
        self.tap.as_ref()
    }

    /// Its hardware address: that of the spec, or one that follows from the sliver's name and the
    /// card's place in the list.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// The largest packet, in bytes.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Its IPv4 address and the length of the prefix.
    pub fn ipv4(&self) -> Option<(Ipv4Addr, u8)> {
        self.ipv4.as_ref().map(Prefixed::parts)
    }

    /// The default gateway for IPv4, a neighbour.
    pub fn gateway4(&self) -> Option<Ipv4Addr> {
        self.gateway4
    }

    /// Its IPv6 address and the length of the prefix.
    pub fn ipv6(&self) -> Option<(Ipv6Addr, u8)> {
        self.ipv6.as_ref().map(Prefixed::parts)
    }

    /// The default gateway for IPv6, a neighbour.
    pub fn gateway6(&self) -> Option<Ipv6Addr> {
        self.gateway6
    }

    /// Name servers, at most [`MAX_DNS`].
    pub fn dns(&self) -> &[IpAddr] {
        &self.dns
    }

    /// Whether the guest asks a DHCP server for what is not given here.
    pub fn dhcp(&self) -> bool {
        self.dhcp
    }

    /// Whether checksums and segmentation are offered as the host's work.
    pub fn offloads(&self) -> bool {
        self.offloads
    }
}

fn name_servers(fields: &mut Fields) -> Vec<IpAddr> {
    let texts = fields.strings("dns");
    if texts.len() > MAX_DNS {
        fields.mistake("dns", format!("has {}, {MAX_DNS} are allowed", texts.len()));
    }
    let mut servers = Vec::with_capacity(MAX_DNS);
    for (i, text) in texts.iter().take(MAX_DNS).enumerate() {
        match address::server(text) {
            Ok(server) => servers.push(server),
            Err(problem) => fields.mistake(&format!("dns[{i}]"), problem),
        }
    }
    servers
}
