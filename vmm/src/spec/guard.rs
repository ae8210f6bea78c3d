//! What a sliver's guard lets through, in its spec.

#[cfg(test)]
mod tests;

use serde::Serialize;

use super::fields::Fields;
use crate::net::prefix::Prefix;

/// Prefixes in one list at most.
const MOST_PREFIXES: usize = 10_000;

/// What a guard does with what it would not let through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardMode {
    /// Drops it.
    #[default]
    Enforce,
    /// Lets it through, and counts what it would have dropped.
    Report,
    /// Nobody looks.
    Off,
}

/// What the guard lets through; every field may be left out.
///
/// ```json
/// {
///   "mode": "enforce", "flows_per_second": 100, "flows_burst": 1000,
///   "destinations_per_hour": 5000, "icmp_per_second": 50, "bogons": true, "reachable": ["10.1.0.0/16"],
///   "broadcast": false, "multicast": ["239.1.0.0/16"],
///   "allow": [], "deny": ["198.51.100.0/24"], "do_not_contact": [], "opt_in": [],
///   "node_prefixes": ["10.0.0.0/16"], "peers": ["10.0.7.2"], "strict_audit": false
/// }
/// ```
///
/// | field | unit | default | meaning |
/// |---|---|---|---|
/// | `mode` | `enforce`, `report`, `off` | `enforce` | what is done with what is not let through |
/// | `flows_per_second` | flows, 1 to 1,000,000 | 100 | that it may begin in a second |
/// | `flows_burst` | flows, 1 to 10,000,000 | 10 seconds' worth | that it may begin at once |
/// | `destinations_per_hour` | addresses, 1 to 100,000 | 5,000 | that flows may be begun to in any hour |
/// | `icmp_per_second` | packets, 1 to 1,000,000 | 50 | of ICMP; ten seconds' worth at once |
/// | `bogons` | | true | whether private addresses, and those that are nobody's, are dropped |
/// | `reachable` | prefixes | none | bogons that may be sent to |
/// | `broadcast` | | false | whether it may send to all of its link |
/// | `multicast` | prefixes | none | groups that it may send to |
/// | `allow` | prefixes | all | beyond its own link, it may send to nobody else |
/// | `deny` | prefixes | none | what the site does not want to be sent to |
/// | `do_not_contact` | prefixes | none | who does not want to be sent anything |
/// | `opt_in` | prefixes | none | who has agreed to be probed for days; its name servers have |
/// | `node_prefixes` | prefixes | none | where the node's slivers are |
/// | `peers` | prefixes | none | those of them that it agrees to talk to |
/// | `blocked` | prefixes | none | what is blocked as it begins, in any mode; `slicectl run` tells it |
/// | `strict_audit` | | false | whether nothing passes that cannot be written down |
///
/// Whatever the mode, nothing is sent whose checksum or segments could change other bytes or the
/// count; and where something is blocked, must be written down or has its ports translated, nothing
/// that cannot be read. What keeps a link going, such as ARP, is 100 packets a second.
///
/// What is a card's own address follows from its spec: `ipv4`, or what a DHCP server has granted if it
/// says `dhcp` or no address at all; `ipv6`; and any address of the link for IPv6 but its routers',
/// with the neighbour discovery, searches for routers and reports of groups that belong to it. None is
/// learned from routers or by DHCPv6. Advertisements of routers, redirects and answers of DHCP servers
/// are never let out. On a link that slivers share, they are not kept from each other's addresses of
/// the link: what is to be kept apart has links of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GuardSpec {
    mode: GuardMode,
    flows_per_second: u64,
    flows_burst: u64,
    destinations_per_hour: u64,
    icmp_per_second: u64,
    bogons: bool,
    broadcast: bool,
    strict_audit: bool,
    reachable: Vec<Prefix>,
    multicast: Vec<Prefix>,
    allow: Vec<Prefix>,
    deny: Vec<Prefix>,
    do_not_contact: Vec<Prefix>,
    opt_in: Vec<Prefix>,
    node_prefixes: Vec<Prefix>,
    peers: Vec<Prefix>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    blocked: Vec<Prefix>,
}

impl Default for GuardSpec {
    fn default() -> Self {
        Self {
            mode: GuardMode::default(),
            flows_per_second: 100,
            flows_burst: 1_000,
            destinations_per_hour: 5_000,
            icmp_per_second: 50,
            bogons: true,
            broadcast: false,
            strict_audit: false,
            reachable: Vec::new(),
            multicast: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            do_not_contact: Vec::new(),
            opt_in: Vec::new(),
            node_prefixes: Vec::new(),
            peers: Vec::new(),
            blocked: Vec::new(),
        }
    }
}

impl GuardSpec {
    pub(super) fn read(fields: &mut Fields) -> Self {
        let usual = Self::default();
        let mode = fields.optional_parsed("mode", |text| match text {
            "enforce" => Ok(GuardMode::Enforce),
            "report" => Ok(GuardMode::Report),
            "off" => Ok(GuardMode::Off),
            _ => Err(format!("is \"{text}\", allowed are enforce, report, off")),
        });
        let flows_per_second =
            fields.ranged_u64("flows_per_second", 1, 1_000_000, usual.flows_per_second);
        Self {
            mode: mode.unwrap_or_default(),
            flows_per_second,
            flows_burst: fields.ranged_u64("flows_burst", 1, 10_000_000, 10 * flows_per_second),
            destinations_per_hour: fields.ranged_u64(
                "destinations_per_hour",
                1,
                100_000,
                usual.destinations_per_hour,
            ),
            icmp_per_second: fields.ranged_u64(
                "icmp_per_second",
                1,
                1_000_000,
                usual.icmp_per_second,
            ),
            bogons: fields.bool("bogons", usual.bogons),
            broadcast: fields.bool("broadcast", usual.broadcast),
            strict_audit: fields.bool("strict_audit", usual.strict_audit),
            reachable: prefixes(fields, "reachable"),
            multicast: prefixes(fields, "multicast"),
            allow: prefixes(fields, "allow"),
            deny: prefixes(fields, "deny"),
            do_not_contact: prefixes(fields, "do_not_contact"),
            opt_in: prefixes(fields, "opt_in"),
            node_prefixes: prefixes(fields, "node_prefixes"),
            peers: prefixes(fields, "peers"),
            blocked: prefixes(fields, "blocked"),
        }
    }

    /// What it does with what it would not let through.
    pub fn mode(&self) -> GuardMode {
        self.mode
    }

    /// Flows that the sliver may begin in a second.
    pub fn flows_per_second(&self) -> u64 {
        self.flows_per_second
    }

    /// Flows that it may begin at once when it has begun few before; ten seconds' worth unless the
    /// spec says otherwise.
    pub fn flows_burst(&self) -> u64 {
        self.flows_burst
    }

    /// Different addresses that it may send to in an hour.
    pub fn destinations_per_hour(&self) -> u64 {
        self.destinations_per_hour
    }

    /// Packets of ICMP that it may send in a second.
    pub fn icmp_per_second(&self) -> u64 {
        self.icmp_per_second
    }

    /// Whether what is nobody's, or private, cannot be sent to.
    pub fn bogons(&self) -> bool {
        self.bogons
    }

    /// Whether it may send to all of its subnet at once.
    pub fn broadcast(&self) -> bool {
        self.broadcast
    }

    /// Whether nothing passes that cannot be written down.
    pub fn strict_audit(&self) -> bool {
        self.strict_audit
    }

    /// What can be sent to though it is a bogon.
    pub fn reachable(&self) -> &[Prefix] {
        &self.reachable
    }

    /// Groups that it may send to.
    pub fn multicast(&self) -> &[Prefix] {
        &self.multicast
    }

    /// If there are any, it may send to nobody else.
    pub fn allow(&self) -> &[Prefix] {
        &self.allow
    }

    /// What the site does not want to be sent to.
    pub fn deny(&self) -> &[Prefix] {
        &self.deny
    }

    /// Who does not want to be sent anything.
    pub fn do_not_contact(&self) -> &[Prefix] {
        &self.do_not_contact
    }

    /// Who has agreed to be probed for long.
    pub fn opt_in(&self) -> &[Prefix] {
        &self.opt_in
    }

    /// Where the node's slivers are.
    pub fn node_prefixes(&self) -> &[Prefix] {
        &self.node_prefixes
    }

    /// Those of them that it agrees to talk to.
    pub fn peers(&self) -> &[Prefix] {
        &self.peers
    }

    /// Where nothing may be sent when the sliver begins, in any mode.
    pub fn blocked(&self) -> &[Prefix] {
        &self.blocked
    }
}

fn prefixes(fields: &mut Fields, field: &'static str) -> Vec<Prefix> {
    let texts = fields.strings(field);
    if texts.len() > MOST_PREFIXES {
        let problem = format!("has {}, {MOST_PREFIXES} are allowed", texts.len());
        fields.mistake(field, problem);
    }
    let mut prefixes = Vec::new();
    for (index, text) in texts.iter().take(MOST_PREFIXES).enumerate() {
        match text.parse() {
            Ok(prefix) => prefixes.push(prefix),
            Err(error) => fields.mistake(&format!("{field}[{index}]"), format!("{text:?} {error}")),
        }
    }
    prefixes
}
