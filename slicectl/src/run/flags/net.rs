//! `--net tap[=NAME]|nat[,ports=FIRST-LAST],addr=CIDR,gw=IP,mac=MAC,mtu=N,dns=IP,dhcp,
//! offloads=on|off`.
//!
//! The words become fields of a spec, whose own rules check them. A tap without a name is made in
//! a namespace of the sliver's own, where the host's side is the gateway: addresses that are not
//! given are chosen. With `nat` there is a way out of that namespace, for IPv4.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde_json::{Value, json};
use vmm::net::ports::PortRange;
use vmm::spec::NetSpec;

use super::words::{Word, split};
use crate::network::Card;

/// A card as its flag describes it.
#[derive(Debug, Clone, Default)]
pub(super) struct Net {
    text: String,
    tap: Option<Option<String>>,
    leads_out: bool,
    ports: Option<PortRange>,
    fields: serde_json::Map<String, Value>,
}

/// What of the host addresses are chosen by.
#[derive(Debug, Clone, Default)]
pub(super) struct Host {
    pub(super) has_ipv6: bool,
    pub(super) name_servers: Vec<Ipv4Addr>,
}

impl Net {
    /// Reads card `index`, and all that is wrong with it beyond what the spec's rules find.
    pub(super) fn read(text: &str, index: usize, host: &Host) -> (Self, Vec<String>) {
        let mut net = Self {
            text: text.to_owned(),
            ..Self::default()
        };
        let mut mistakes = Vec::new();
        for word in split(text) {
            mistakes.extend(net.take(&Word::read(&word)).err());
        }
        match &net.tap {
            None => mistakes.push("begins with tap, tap=NAME or nat".to_owned()),
            Some(Some(_)) => {}
            Some(None) => mistakes.extend(net.choose(index, host).err()),
        }
        if net.ports.is_some() && !net.leads_out {
            mistakes.push("ports is for nat: other cards keep their ports".to_owned());
        }
        (net, mistakes)
    }

    /// Whether its tap is made for it.
    pub(super) fn is_own(&self) -> bool {
        matches!(self.tap, Some(None))
    }

    /// Whether it leads out of the sliver's namespace.
    pub(super) fn leads_out(&self) -> bool {
        self.leads_out
    }

    /// The ports outside that it asks for.
    pub(super) fn ports(&self) -> Option<PortRange> {
        self.ports
    }

    /// As it was written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The card of the spec.
    pub(super) fn to_json(&self) -> Value {
        Value::Object(self.fields.clone())
    }

    fn take(&mut self, word: &Word) -> Result<(), String> {
        match word.key.as_str() {
            "tap" => {
                if self.leads_out {
                    return Err("tap and nat are two kinds of cards".to_owned());
                }
                if self.tap.is_some() {
                    return Err("tap is given twice".to_owned());
                }
                if let Some(name) = &word.value {
                    self.set("tap", word, json!(name))?;
                }
                self.tap = Some(word.value.clone());
                Ok(())
            }
            "nat" => {
                word.bare()?;
                if self.leads_out {
                    return Err("nat is given twice".to_owned());
                }
                if self.tap.is_some() {
                    return Err("tap and nat are two kinds of cards".to_owned());
                }
                (self.tap, self.leads_out) = (Some(None), true);
                Ok(())
            }
            "ports" => {
                let text = word.wanted("20000-20999")?;
                let ports = text.parse().map_err(|why| format!("ports: {why}"))?;
                match self.ports.replace(ports) {
                    None => Ok(()),
                    Some(_) => Err("ports is given twice".to_owned()),
                }
            }
            "addr" => {
                let text = word.wanted("10.0.0.2/24")?;
                self.set(
                    if text.contains(':') { "ipv6" } else { "ipv4" },
                    word,
                    json!(text),
                )
            }
            "gw" => {
                let text = word.wanted("10.0.0.1")?;
                let field = if text.contains(':') {
                    "gateway6"
                } else {
                    "gateway4"
                };
                self.set(field, word, json!(text))
            }
            "mac" => self.set("mac", word, json!(word.wanted("02:00:00:00:00:01")?)),
            "mtu" => {
                let text = word.wanted("1500")?;
                let mtu: u64 = text
                    .parse()
                    .map_err(|_| format!("mtu={text} is not a whole number"))?;
                self.set("mtu", word, json!(mtu))
            }
            "dns" => {
                let server = json!(word.wanted("10.0.0.1")?);
                let servers = self.fields.entry("dns").or_insert_with(|| json!([]));
                if let Some(servers) = servers.as_array_mut() {
                    servers.push(server);
                }
                Ok(())
            }
            "dhcp" => {
                word.bare()?;
                self.set("dhcp", word, json!(true))
            }
            "offloads" => match word.wanted("off")? {
                "on" => self.set("offloads", word, json!(true)),
                "off" => self.set("offloads", word, json!(false)),
                other => Err(format!("offloads={other} is neither on nor off")),
            },
            other => Err(format!(
                "{other:?} is none of tap, nat, ports, addr, gw, mac, mtu, dns, dhcp and offloads"
            )),
        }
    }

    fn set(&mut self, field: &str, word: &Word, value: Value) -> Result<(), String> {
        match self.fields.insert(field.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(match field {
                "ipv4" | "gateway4" => format!("{} is given twice for IPv4", word.key),
                "ipv6" | "gateway6" => format!("{} is given twice for IPv6", word.key),
                _ => format!("{} is given twice", word.key),
            }),
        }
    }

    /// Chooses the addresses that are not given on a tap of its own.
    fn choose(&mut self, index: usize, host: &Host) -> Result<(), String> {
        if self.fields.contains_key("dhcp") {
            return Err("dhcp needs a tap with a server on it: tap=NAME".to_owned());
        }
        if !self.fields.contains_key("ipv4") && !self.fields.contains_key("ipv6") {
            // 10.0.2.15 and its gateway are what emulators have given their guests for ages.
            self.fill("ipv4", format!("10.0.{}.15/24", 2 + index));
            self.fill("gateway4", format!("10.0.{}.2", 2 + index));
            // An address that leads nowhere would only make guests wait.
            if host.has_ipv6 && !self.leads_out {
                self.fill("ipv6", format!("fd00:0:0:{index:x}::15/64"));
                self.fill("gateway6", format!("fd00:0:0:{index:x}::2"));
            }
        }
        if self.leads_out && !self.fields.contains_key("dns") {
            self.fields
                .insert("dns".to_owned(), json!(host.name_servers));
        }
        // Addresses that are none are left to the spec's rules.
        let four = self.address::<Ipv4Addr>("ipv4");
        let six = self.address::<Ipv6Addr>("ipv6");
        for (field, address) in [("gateway4", four), ("gateway6", six)] {
            if let Some((address, prefix)) = address {
                let gateway = neighbour(address, prefix).ok_or_else(|| no_room(address))?;
                self.fill(field, gateway.to_string());
            }
        }
        Ok(())
    }

    fn fill(&mut self, field: &str, value: String) {
        self.fields.entry(field).or_insert(Value::String(value));
    }

    fn address<A: FromStr + Into<IpAddr>>(&self, field: &str) -> Option<(IpAddr, u8)> {
        let (address, prefix) = self.fields.get(field)?.as_str()?.split_once('/')?;
        let address: A = address.parse().ok()?;
        Some((address.into(), prefix.parse().ok()?))
    }
}

fn no_room(address: IpAddr) -> String {
    format!("addr={address}: its prefix has no other address for the host; use a shorter one")
}

/// The first address of a network that another host than `address` can have.
fn neighbour(address: IpAddr, prefix: u8) -> Option<IpAddr> {
    let (bits, width) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let host_bits = u32::checked_sub(width, prefix.into()).filter(|bits| *bits > 0)?;
    let network = bits & u128::MAX.checked_shl(host_bits).unwrap_or(0);
    let first = if host_bits == 1 { network } else { network | 1 };
    let other = if bits == first { first + 1 } else { first };
    Some(match address {
        IpAddr::V4(_) => Ipv4Addr::from_bits(other as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(other).into(),
    })
}

/// The addresses of a card.
pub(super) fn addresses(spec: &NetSpec) -> Vec<IpAddr> {
    let four = spec.ipv4().map(|(address, _)| IpAddr::V4(address));
    let six = spec.ipv6().map(|(address, _)| IpAddr::V6(address));
    four.into_iter().chain(six).collect()
}

/// A card that gets a tap of its own: the host's side of it is the card's gateway.
pub(super) fn card(index: usize, net: &Net, spec: &NetSpec) -> Card {
    let mut host: Vec<(IpAddr, u8)> = Vec::new();
    if let (Some((_, prefix)), Some(gateway)) = (spec.ipv4(), spec.gateway4()) {
        host.push((gateway.into(), prefix));
    }
    if let (Some((address, prefix)), Some(gateway)) = (spec.ipv6(), spec.gateway6()) {
        if gateway.is_unicast_link_local() && !address.is_unicast_link_local() {
            // It routes, but to speak with the card itself takes an address of its own network.
            host.push((gateway.into(), 64));
            host.extend(neighbour(address.into(), prefix).map(|own| (own, prefix)));
        } else {
            host.push((gateway.into(), prefix));
        }
    }
    Card {
        index,
        mac: spec.mac(),
        mtu: spec.mtu(),
        guest: addresses(spec),
        host,
        leads_out: net.leads_out,
    }
}

/// The word that a field of a card comes from.
pub(super) fn word_of(field: &str) -> &str {
    match field.split('[').next().unwrap_or(field) {
        "ipv4" | "ipv6" => "addr",
        "gateway4" | "gateway6" => "gw",
        other => other,
    }
}
