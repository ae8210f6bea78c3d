//! Judges what a sliver sends, so that it hurts nobody: PlanetLab's worst days were outgoing. Pure,
//! and nothing is allocated for a packet but a place for a new destination, of which there are only
//! so many.
//!
//! The source must be the sliver's own. What goes nowhere, or to all, is dropped; so is what a site,
//! the node or whoever complained does not want. New flows, different destinations and ICMP have
//! rates. What comes to the sliver is judged only for what slivers of a node have agreed on.

mod answer;
mod bogons;
mod card;
mod distinct;
mod heard;
mod lease;
mod probes;
mod reach;
mod reason;
#[cfg(test)]
mod tests;
mod upkeep;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use super::bucket::Bucket;
use super::flows::Acquaintance;
use super::hash::Secrets;
use super::packet::{Datagram, Flaw, Kind, Packet, Transport, protocol};
use super::prefix::{Prefix, PrefixSet};
use crate::nanos::Nanos;
use crate::spec::{GuardMode, GuardSpec};
pub use card::Card;
use distinct::Distinct;
use heard::Heard;
use probes::{Probed, Probes};
use reach::Reach;
use reason::Counts;
pub use reason::Reason;

/// Seconds' worth of ICMP, and of answers, that may come at once.
const BURST_SECONDS: u64 = 10;

/// Answers to the guest in a second.
const ANSWERS: u64 = 10;

/// Packets in a second that keep the link going: ARP, neighbour discovery, DHCP, groups.
const UPKEEP: u64 = 100;

/// Addresses told of long probes that wait to be taken, at most.
const MOST_TOLD: usize = 64;

/// What is done with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Pass,
    /// It does not.
    Drop(Reason),
}

/// Where a datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It keeps the card on its link.
    Upkeep,
    /// To a group, or all, that may be sent to.
    Group,
    /// To somebody on the card's link.
    Link,
    /// Elsewhere.
    Far,
}

/// The guard of a sliver.
#[derive(Debug)]
pub struct Guard {
    spec: GuardSpec,
    cards: Vec<Card>,
    reach: Reach,
    multicast: PrefixSet,
    opt_in: PrefixSet,
    flows: Bucket,
    icmp: Bucket,
    answers: Bucket,
    upkeep: Bucket,
    destinations: Distinct,
    heard: Heard,
    probes: Probes,
    dropped: Counts,
    would_drop: Counts,
    probed: Vec<IpAddr>,
}

impl Guard {
    /// The guard that a spec asks for.
    pub fn new(spec: &GuardSpec, cards: Vec<Card>) -> Self {
        // For tables whose keys the guest chooses.
        let secrets = Secrets::new(RandomState::new().hash_one(0));
        let rate = |per_second: u64| Bucket::new(per_second, per_second * BURST_SECONDS);
        Self {
            cards,
            reach: Reach::new(spec),
            multicast: PrefixSet::new(spec.multicast()),
            opt_in: PrefixSet::new(spec.opt_in()),
            flows: Bucket::new(spec.flows_per_second(), spec.flows_burst()),
            icmp: rate(spec.icmp_per_second()),
            answers: rate(ANSWERS),
            upkeep: rate(UPKEEP),
            destinations: Distinct::new(spec.destinations_per_hour(), secrets),
            heard: Heard::new(secrets),
            probes: Probes::new(secrets),
            dropped: Counts::default(),
            would_drop: Counts::default(),
            probed: Vec::new(),
            spec: spec.clone(),
        }
    }

    /// Judges what the guest sends on a card. `flow` tells what is known of its flow.
    pub fn outgoing(
        &mut self,
        card: usize,
        packet: &Packet,
        flow: Acquaintance,
        now: Nanos,
    ) -> Verdict {
        // That is no matter of policy.
        if let Kind::Ip(datagram) = &packet.kind
            && self.is_blocked(datagram.destination)
        {
            return self.refuse(Reason::Blocked);
        }
        if self.spec.mode() == GuardMode::Off {
            return Verdict::Pass;
        }
        let judged = self.judge(card, packet, flow, now);
        self.done(judged)
    }

    /// Whether the node's operator has blocked an address.
    pub fn is_blocked(&self, destination: IpAddr) -> bool {
        self.reach.is_blocked(destination)
    }

    /// Whether anything is blocked.
    pub fn has_blocks(&self) -> bool {
        self.reach.has_blocks()
    }

    /// Counts a drop that no mode prevents.
    pub fn refuse(&mut self, reason: Reason) -> Verdict {
        self.dropped.add(reason);
        Verdict::Drop(reason)
    }

    /// Judges what has come for the guest.
    pub fn incoming(&mut self, card: usize, packet: &Packet) -> Verdict {
        let Kind::Ip(datagram) = &packet.kind else {
            return Verdict::Pass;
        };
        let is_sliver = self.reach.is_other_sliver(datagram.source, &self.cards);
        if self.cards.get(card).is_none() || !is_sliver {
            if datagram.protocol != protocol::TCP {
                self.heard.note(datagram.source);
            }
            return Verdict::Pass;
        }
        self.done(Err(Reason::OtherSliver))
    }

    /// Learns from what has come which address a DHCP server has given the guest. `head` is the
    /// frame's first bytes.
    pub fn learn(&mut self, card: usize, packet: &Packet, head: &[u8]) {
        if let Some(card) = self.cards.get_mut(card) {
            card.learn(packet, head);
        }
    }

    fn done(&mut self, judged: Result<(), Reason>) -> Verdict {
        match (judged, self.spec.mode()) {
            (Ok(()), _) => Verdict::Pass,
            (Err(reason), GuardMode::Enforce) => {
                self.dropped.add(reason);
                Verdict::Drop(reason)
            }
            (Err(reason), GuardMode::Report) => {
                self.would_drop.add(reason);
                Verdict::Pass
            }
            (Err(_), GuardMode::Off) => Verdict::Pass,
        }
    }

    fn judge(
        &mut self,
        card: usize,
        packet: &Packet,
        flow: Acquaintance,
        now: Nanos,
    ) -> Result<(), Reason> {
        let Some(own) = self.cards.get_mut(card) else {
            return Ok(());
        };
        if packet.source_mac != own.mac() {
            return Err(Reason::ForgedMac);
        }
        match &packet.kind {
            Kind::Malformed(Flaw::Length) => Err(Reason::BadLength),
            Kind::Malformed(Flaw::Routed) => Err(Reason::SourceRouted),
            Kind::Malformed(Flaw::Short | Flaw::Field) => Err(Reason::Malformed),
            Kind::Other(_) => Err(Reason::Ethertype),
            Kind::Arp(arp) => {
                own.judge_arp(arp)?;
                self.judge_upkeep(now)
            }
            Kind::Ip(datagram) if own.asks_dhcp(datagram) => self.judge_upkeep(now),
            Kind::Ip(datagram) => {
                own.judge_source(datagram)?;
                judge_ports(&datagram.transport)?;
                self.judge_quoted(datagram)?;
                let own = &self.cards[card];
                let place = self.place(own, datagram, packet.destination_mac)?;
                if place == Place::Upkeep {
                    self.judge_upkeep(now)?;
                } else {
                    self.reach
                        .judge(datagram.destination, place == Place::Far, &self.cards)?;
                    self.judge_rates(datagram, place, flow, now)?;
                }
                Ok(())
            }
        }
    }

    /// What keeps a link going goes to all on it, and costs each of them.
    fn judge_upkeep(&mut self, now: Nanos) -> Result<(), Reason> {
        match self.upkeep.check(1, now) {
            Ok(()) => {
                self.upkeep.take(1);
                Ok(())
            }
            Err(_) => Err(Reason::UpkeepRate),
        }
    }

    /// Who tells others that their packets do not arrive has been sent those packets: it could break
    /// off what others say to each other.
    fn judge_quoted(&self, datagram: &Datagram) -> Result<(), Reason> {
        if !datagram.transport.is_error() {
            return Ok(());
        }
        let owns = |to| self.cards.iter().any(|card| card.owns(to));
        match datagram.quoted.is_some_and(owns) {
            true => Ok(()),
            false => Err(Reason::ForgedError),
        }
    }

    fn place(&self, own: &Card, datagram: &Datagram, mac: [u8; 6]) -> Result<Place, Reason> {
        let destination = datagram.destination;
        if upkeep::is_upkeep(own, datagram)? {
            return Ok(Place::Upkeep);
        }
        let is_broadcast = matches!(destination, IpAddr::V4(four) if own.is_broadcast(four));
        match destination.is_multicast() {
            _ if is_broadcast && self.spec.broadcast() => Ok(Place::Group),
            true if self.multicast.contains(destination) => Ok(Place::Group),
            true => Err(Reason::Multicast),
            // An address of one in a frame to all reaches all, too (RFC 1122, 3.3.6).
            false if is_broadcast || mac[0] & 1 != 0 => Err(Reason::Broadcast),
            false if own.is_neighbour(destination) => Ok(Place::Link),
            false => Ok(Place::Far),
        }
    }

    fn judge_rates(
        &mut self,
        datagram: &Datagram,
        place: Place,
        flow: Acquaintance,
        now: Nanos,
    ) -> Result<(), Reason> {
        let (destination, transport) = (datagram.destination, &datagram.transport);
        let is_icmp = matches!(datagram.protocol, protocol::ICMP | protocol::ICMP6);
        if is_icmp && !self.icmp.has(1, now) {
            return Err(Reason::IcmpRate);
        }
        // Replies have a flow already, which the other side began.
        let is_answer = transport.is_error() && self.heard.has(destination);
        let is_new = flow == Acquaintance::New && !is_answer;
        let is_far = place == Place::Far;
        if is_new {
            if !self.flows.has(1, now) {
                return Err(Reason::FlowRate);
            }
            if is_far && !self.destinations.allows(destination, now) {
                return Err(Reason::Destinations);
            }
        }
        if is_far && !is_answer && (is_new || is_probe(transport, flow)) {
            self.judge_probe(destination, now)?;
        }
        if is_icmp {
            self.icmp.take(1);
        }
        if is_new {
            self.flows.take(1);
        }
        Ok(())
    }

    fn judge_probe(&mut self, destination: IpAddr, now: Nanos) -> Result<(), Reason> {
        let has_agreed = || {
            let mut cards = self.cards.iter();
            self.opt_in.contains(destination) || cards.any(|card| card.is_name_server(destination))
        };
        match self.probes.probe(destination, has_agreed, now) {
            Probed::Pass => Ok(()),
            Probed::Long => {
                if self.probed.len() < MOST_TOLD {
                    self.probed.push(destination);
                }
                Ok(())
            }
            Probed::Drop => Err(Reason::LongProbe),
        }
    }

    /// Nothing goes to these prefixes from now on, whatever the mode, and again to those that were
    /// blocked before.
    pub fn set_blocks(&mut self, blocks: &[Prefix]) {
        self.reach.set_blocks(blocks);
    }

    /// Writes the frame that tells the guest why its packet was dropped, if there is to be one: how
    /// many bytes it has. `head` is the packet's first bytes.
    pub fn answer(
        &mut self,
        card: usize,
        head: &[u8],
        packet: &Packet,
        now: Nanos,
        out: &mut [u8],
    ) -> Option<usize> {
        let gateways = self.cards.get(card)?.gateways();
        if !self.answers.has(1, now) {
            return None;
        }
        let len = answer::prohibited(head, packet, gateways, out)?;
        self.answers.take(1);
        Some(len)
    }

    /// Packets that were dropped, by reason.
    pub fn drops(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.dropped.all()
    }

    /// Packets that would have been dropped if it did not only report, by reason.
    pub fn would_drop(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.would_drop.all()
    }

    /// Destinations that were found to be probed for a day since this was last asked.
    pub fn take_probed(&mut self) -> Vec<IpAddr> {
        std::mem::take(&mut self.probed)
    }
}

/// Port 0 is nobody's, and a guest is no DHCP server (RFC 2131, 8415): who believed it would get its
/// address and its gateway from it.
fn judge_ports(transport: &Transport) -> Result<(), Reason> {
    match *transport {
        Transport::Tcp { source: 0, .. }
        | Transport::Tcp { destination: 0, .. }
        | Transport::Udp { source: 0, .. }
        | Transport::Udp { destination: 0, .. }
        | Transport::Ported { source: 0, .. }
        | Transport::Ported { destination: 0, .. } => Err(Reason::PortZero),
        Transport::Udp {
            source: 67,
            destination: 68,
        }
        | Transport::Udp {
            source: 547,
            destination: 546,
        } => Err(Reason::ForgedServer),
        _ => Ok(()),
    }
}

/// Whether it asks for an answer, though its flow may be there, or goes on without one. Of a
/// fragment the first decides: the others are a flow of their own, which nobody answers.
fn is_probe(transport: &Transport, flow: Acquaintance) -> bool {
    const SYN_ACK: u8 = 0x12;
    const SYN: u8 = 0x02;
    let asks = match *transport {
        Transport::Tcp { flags, .. } => flags & SYN_ACK == SYN,
        Transport::Icmp { kind, .. } => kind == 8,
        Transport::Icmp6 { kind, .. } => kind == 128,
        Transport::Fragment => return false,
        _ => false,
    };
    asks || flow == Acquaintance::Unanswered
}
