//! Which addresses a sliver may send to: not those that are nobody's, that the site or the node does
//! not want, that do not want it, or that are other slivers'.

use std::net::{IpAddr, Ipv4Addr};

use super::{Card, Reason, bogons};
use crate::net::prefix::{Prefix, PrefixSet};
use crate::spec::GuardSpec;

/// The addresses.
#[derive(Debug)]
pub(super) struct Reach {
    bogons: PrefixSet,
    reachable: PrefixSet,
    allow: PrefixSet,
    deny: PrefixSet,
    do_not_contact: PrefixSet,
    /// What the node's operator has blocked.
    blocked: PrefixSet,
    node_prefixes: PrefixSet,
    peers: PrefixSet,
}

impl Reach {
    pub(super) fn new(spec: &GuardSpec) -> Self {
        Self {
            bogons: match spec.bogons() {
                true => bogons::bogons(),
                false => PrefixSet::default(),
            },
            reachable: PrefixSet::new(spec.reachable()),
            allow: PrefixSet::new(spec.allow()),
            deny: PrefixSet::new(spec.deny()),
            do_not_contact: PrefixSet::new(spec.do_not_contact()),
            blocked: PrefixSet::new(spec.blocked()),
            node_prefixes: PrefixSet::new(spec.node_prefixes()),
            peers: PrefixSet::new(spec.peers()),
        }
    }

    /// Nothing goes to these prefixes from now on, and again to those that were blocked before.
    pub(super) fn set_blocks(&mut self, blocks: &[Prefix]) {
        self.blocked = PrefixSet::new(blocks);
    }

    pub(super) fn has_blocks(&self) -> bool {
        !self.blocked.is_empty()
    }

    pub(super) fn is_blocked(&self, destination: IpAddr) -> bool {
        let blocked = |address| self.blocked.contains(address);
        self.has_blocks() && (blocked(destination) || translated(destination).is_some_and(blocked))
    }

    /// Whether a destination, on the link or far, may be sent to.
    pub(super) fn judge(
        &self,
        destination: IpAddr,
        is_far: bool,
        cards: &[Card],
    ) -> Result<(), Reason> {
        self.judge_address(destination, is_far, cards)?;
        match translated(destination) {
            Some(behind) => self.judge_address(behind, is_far, cards),
            None => Ok(()),
        }
    }

    fn judge_address(&self, address: IpAddr, is_far: bool, cards: &[Card]) -> Result<(), Reason> {
        if self.do_not_contact.contains(address) {
            return Err(Reason::DoNotContact);
        }
        if address.is_unspecified() {
            return Err(Reason::Bogon);
        }
        if self.deny.contains(address) {
            return Err(Reason::SiteDenied);
        }
        if is_far {
            if !self.allow.is_empty() && !self.allow.contains(address) {
                return Err(Reason::NotAllowed);
            }
            let may = || self.reachable.contains(address) || self.peers.contains(address);
            if self.bogons.contains(address) && !may() {
                return Err(Reason::Bogon);
            }
        }
        match self.is_other_sliver(address, cards) {
            true => Err(Reason::OtherSliver),
            false => Ok(()),
        }
    }

    /// Whether an address may be of a sliver with which nothing was agreed.
    pub(super) fn is_other_sliver(&self, address: IpAddr, cards: &[Card]) -> bool {
        self.node_prefixes.contains(address)
            && !self.peers.contains(address)
            && !cards.iter().any(|card| card.is_gateway(address))
    }
}

/// The IPv4 address that a translator makes of one for IPv6 (RFC 6052): what holds for one holds for
/// the other.
fn translated(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(six) = address else {
        return None;
    };
    match six.octets() {
        [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => {
            Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
        }
        _ => None,
    }
}
