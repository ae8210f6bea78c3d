//! The gate that all of a sliver's frames pass, whichever card they take: judged by the guard,
//! held to the sliver's rate, written down, and copied for whoever looks on.
//!
//! Pure: a frame is here the copy of its first bytes that will really be sent. A frame goes through
//! in three steps, since the tap may not take it yet: [`Gate::judge`] once, [`Gate::admit`] until
//! its rate allows it, [`Gate::sent`] when it is gone.

#[cfg(test)]
mod tests;
mod told;

use super::capture::Capture;
use super::events::EventLog;
use super::flows::{Acquaintance, FlowTable, Passed, Sought};
use super::guard::{Card, Guard, Reason, Verdict};
use super::packet::{Kind, Packet, Transport};
use super::ports::PortMap;
use super::shaper::{Direction, Shaper, Traffic};
use super::wire;
use crate::nanos::Nanos;
use crate::spec::{GuardMode, NetSpec, PublicSpec, SliverSpec};
use std::collections::VecDeque;
use std::net::IpAddr;

/// Bytes of a frame that the gate itself writes, at most.
pub const MAX_REPLY: usize = 160;

/// Such frames that wait for the guest at most: it may not look.
const MOST_REPLIES: usize = 16;

/// Flows that are swept this often.
const SWEEP_EVERY: Nanos = Nanos::from_millis(500);

/// How a frame is to be cut into segments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Segments {
    /// Bytes of TCP in each; 0 if it is not to be cut.
    pub size: u16,
    /// If the checksum of its payload is still to be made: from where, and where it goes.
    pub checksum: Option<(usize, usize)>,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// It may go, when its rate allows it.
    Pass(Admitted),
    /// It is dropped.
    Drop,
}

/// Why a frame is not sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Its rate allows it at this moment, or is then to be asked again.
    Until(Nanos),
    /// It is dropped.
    Dropped,
}

/// What is known of a frame that may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// The flow that it is of, if it is a datagram, and what is written down of it.
    flow: Option<Sought>,
    passed: Passed,
    kind: Traffic,
    /// Where it goes, if it has an address.
    destination: Option<IpAddr>,
    /// Bytes of the frame as it is handed over.
    frame_bytes: usize,
}

/// Flows in the table of a sliver.
const FLOWS: usize = 4096;

/// The gate.
#[derive(Debug)]
pub struct Gate {
    guard: Guard,
    shaper: Shaper,
    flows: FlowTable,
    /// The ports that the outside sees, if they are not the sliver's own.
    ports: Option<PortMap>,
    /// Whether a checksum must go where its protocol has it.
    minds_checksums: bool,
    strict: bool,
    capture: Option<Capture>,
    events: EventLog,
    replies: VecDeque<(usize, Vec<u8>)>,
    swept_at: Nanos,
    /// Nanoseconds since 1970 when the monotonic clock showed 0.
    epoch: Nanos,
}

impl Gate {
    /// The gate that a spec asks for, where nothing has passed yet. `epoch` is nanoseconds since
    /// 1970 when the monotonic clock showed 0, `seed` a secret.
    pub fn new(spec: &SliverSpec, seed: u64, now: Nanos, epoch: Nanos) -> Self {
        let cards = spec.nets().iter().map(Card::new).collect();
        let networks: Vec<_> = spec.nets().iter().filter_map(NetSpec::ipv4).collect();
        let ports = spec.public().map(PublicSpec::ports);
        Self {
            guard: Guard::new(spec.guard(), cards),
            shaper: Shaper::new(spec.net_limits(), spec.net_used_today(), now, epoch),
            flows: FlowTable::new(FLOWS, seed),
            ports: ports.map(|range| PortMap::new(range, &networks, seed)),
            minds_checksums: ports.is_some() || spec.guard().mode() != GuardMode::Off,
            strict: spec.guard().strict_audit(),
            capture: None,
            events: EventLog::default(),
            replies: VecDeque::new(),
            swept_at: now,
            epoch,
        }
    }

    /// Judges a frame of `bytes` bytes that the guest wants to send on `card`. `head` is its first
    /// bytes, [`HEAD_BYTES`](super::packet::HEAD_BYTES) or all of it, and is what will be sent: its
    /// source port may be another afterwards.
    pub fn judge(
        &mut self,
        card: usize,
        head: &mut [u8],
        bytes: usize,
        segments: Segments,
        now: Nanos,
    ) -> Judged {
        self.sweep(now);
        let packet = Packet::parse(head, bytes);
        let tuple = packet.tuple();
        let flow = tuple.map(|tuple| self.flows.seek(&tuple, Direction::Out));
        let acquaintance = flow.map_or(Acquaintance::New, |flow| flow.acquaintance());
        if self.is_unaudited(&packet, now) {
            return Judged::Drop;
        }
        if let Verdict::Drop(reason) = self.guard.outgoing(card, &packet, acquaintance, now) {
            self.tell_guest(card, head, &packet, now);
            self.note_drop(reason, now);
            return Judged::Drop;
        }
        if let Some(reason) = self.objection(&packet, &segments) {
            return self.refuse(reason, now);
        }
        let (frames, wire_bytes) = on_the_wire(&packet, bytes, segments);
        let outside_port = match &mut self.ports {
            None => None,
            Some(ports) => match ports.outgoing(head, &packet, segments.checksum.is_some(), now) {
                Ok(port) => port,
                Err(_) => return self.refuse(Reason::PortsFull, now),
            },
        };
        Judged::Pass(Admitted {
            flow,
            passed: Passed {
                outside_port,
                tcp_flags: tcp_flags(&packet),
                packets: frames,
                bytes: wire_bytes,
            },
            kind: match &packet.kind {
                Kind::Arp(_) => Traffic::Link,
                Kind::Ip(datagram) if datagram.discovery.is_some() => Traffic::Link,
                Kind::Ip(datagram) if self.shaper.is_exempt(datagram.destination) => {
                    Traffic::Exempt
                }
                _ => Traffic::Plain,
            },
            destination: tuple.map(|tuple| tuple.destination),
            frame_bytes: bytes,
        })
    }

    /// Whether the rate allows a frame now, which is then charged.
    pub fn admit(&mut self, admitted: &Admitted, now: Nanos) -> Result<(), Held> {
        let (bytes, kind) = (admitted.passed.bytes, admitted.kind);
        let Err(until) = self.shaper.check(bytes, kind, now) else {
            // It may have waited since it was judged.
            if admitted
                .destination
                .is_some_and(|to| self.guard.is_blocked(to))
            {
                self.refuse(Reason::Blocked, now);
                return Err(Held::Dropped);
            }
            self.shaper.charge_sent(bytes, kind, now);
            return Ok(());
        };
        if let Some(cap) = self.shaper.cap(bytes, kind, now) {
            self.events.note("cap", cap, 1, now);
        }
        if self.shaper.is_in_the_way(bytes, kind, now) {
            self.shaper.stop_waiting();
            self.refuse(Reason::Allowance, now);
            return Err(Held::Dropped);
        }
        Err(Held::Until(until))
    }

    /// Forgets that a frame waits: it will not be sent.
    pub fn stop_waiting(&mut self) {
        self.shaper.stop_waiting();
    }

    /// Why a frame that the guard lets through cannot be sent in any mode.
    fn objection(&self, packet: &Packet, segments: &Segments) -> Option<Reason> {
        // Who blocks, translates or must write everything down must be able to read it.
        let must_read = self.ports.is_some() || self.strict || self.guard.has_blocks();
        let minds_checksums = self.minds_checksums || must_read;
        let datagram = match &packet.kind {
            Kind::Ip(datagram) => Some(datagram),
            Kind::Malformed(_) if must_read => return Some(Reason::Malformed),
            // What is in it is looked at by whoever takes the tag away.
            Kind::Other(0x8100 | 0x88a8 | 0x9100) if must_read => return Some(Reason::Ethertype),
            _ => None,
        };
        let transport = datagram.map(|datagram| datagram.transport);
        if segments.size > 0 && !matches!(transport, Some(Transport::Tcp { .. })) {
            return Some(Reason::Segments);
        }
        // The host writes it last of all, over whatever is there: ports, or an address.
        if minds_checksums && !segments.checksum.is_none_or(|at| is_checksum(packet, at)) {
            return Some(Reason::Checksum);
        }
        let is_ported = matches!(transport, Some(Transport::Ported { .. }));
        (self.ports.is_some() && is_ported).then_some(Reason::Untranslated)
    }

    fn refuse(&mut self, reason: Reason, now: Nanos) -> Judged {
        self.guard.refuse(reason);
        self.note_drop(reason, now);
        Judged::Drop
    }

    /// A frame was sent.
    pub fn sent(&mut self, admitted: &Admitted, head: &[u8], now: Nanos) {
        if let Some(flow) = &admitted.flow {
            self.flows.record(flow, &admitted.passed, now);
        }
        self.copy(head, admitted.frame_bytes, now);
    }

    /// Whether a frame may be taken from a tap; if not, when. What is not taken stays with the
    /// host, which drops what it has no room for.
    pub fn may_receive(&mut self, now: Nanos) -> Result<(), Nanos> {
        self.shaper.may_receive(now)
    }

    /// Whether a frame of `bytes` bytes that has come on `card` is handed to the guest. Its
    /// destination port may be another afterwards.
    pub fn received(
        &mut self,
        card: usize,
        head: &mut [u8],
        bytes: usize,
        segments: Segments,
        now: Nanos,
    ) -> bool {
        self.sweep(now);
        let mut packet = Packet::parse(head, bytes);
        let (frames, wire_bytes) = on_the_wire(&packet, bytes, segments);
        // It has come, whatever becomes of it.
        self.shaper.charge_received(wire_bytes);
        let mut outside_port = None;
        if let Some(ports) = &mut self.ports
            && ports.incoming(head, &packet, segments.checksum.is_some(), now)
        {
            let at_home = Packet::parse(head, bytes);
            let port = |packet: &Packet| packet.tuple().map(|tuple| tuple.destination_port);
            // Of an error it is the packet that it quotes that was translated.
            outside_port = port(&packet).filter(|outside| port(&at_home) != Some(*outside));
            packet = at_home;
        }
        if self.is_unaudited(&packet, now) {
            return false;
        }
        if let Verdict::Drop(reason) = self.guard.incoming(card, &packet) {
            self.note_drop(reason, now);
            return false;
        }
        self.guard.learn(card, &packet, head);
        if let Some(tuple) = packet.tuple() {
            let flow = self.flows.seek(&tuple, Direction::In);
            let passed = Passed {
                outside_port,
                tcp_flags: tcp_flags(&packet),
                packets: frames,
                bytes: wire_bytes,
            };
            self.flows.record(&flow, &passed, now);
        }
        self.copy(head, bytes, now);
        true
    }

    /// Whether there is a frame that tells the guest something on `card`.
    pub fn has_reply(&self, card: usize) -> bool {
        self.replies.iter().any(|(of, _)| *of == card)
    }

    /// Takes such a frame.
    pub fn take_reply(&mut self, card: usize) -> Option<Vec<u8>> {
        let index = self.replies.iter().position(|(of, _)| *of == card)?;
        self.replies.remove(index).map(|(_, frame)| frame)
    }

    /// Sees to what is due by time.
    fn sweep(&mut self, now: Nanos) {
        if now - self.swept_at < SWEEP_EVERY {
            return;
        }
        self.swept_at = now;
        self.flows.sweep(now);
        for destination in self.guard.take_probed() {
            let detail = format!("{destination} has been probed for a day");
            self.events.note("long_probe", &detail, 1, now);
        }
    }

    /// Whether a packet must not pass because it could not be written down.
    fn is_unaudited(&mut self, packet: &Packet, now: Nanos) -> bool {
        let unaudited = self.strict && packet.tuple().is_some() && self.flows.is_full();
        if unaudited {
            self.guard.refuse(Reason::NotAudited);
            self.events.note(
                "not_audited",
                "nobody takes the records of flows: nothing passes until somebody does",
                1,
                now,
            );
        }
        unaudited
    }

    fn note_drop(&mut self, reason: Reason, now: Nanos) {
        self.events.note("drop", reason.as_str(), 1, now);
    }

    fn copy(&mut self, head: &[u8], bytes: usize, now: Nanos) {
        if let Some(capture) = &mut self.capture {
            capture.add(head, bytes, self.epoch + now);
        }
    }

    /// Tells the guest why it gets no answer.
    fn tell_guest(&mut self, card: usize, head: &[u8], packet: &Packet, now: Nanos) {
        let mut reply = [0; MAX_REPLY];
        if self.replies.len() < MOST_REPLIES
            && let Some(len) = self.guard.answer(card, head, packet, now, &mut reply)
        {
            self.replies.push_back((card, reply[..len].to_vec()));
        }
    }
}

fn on_the_wire(packet: &Packet, bytes: usize, segments: Segments) -> (u32, u64) {
    let headers = match &packet.kind {
        Kind::Ip(datagram) => datagram.header_bytes,
        _ => 0,
    };
    wire::on_the_wire(bytes, headers, segments.size)
}

/// Whether the checksum of a packet's transport is made from there, and goes there.
fn is_checksum(packet: &Packet, at: (usize, usize)) -> bool {
    let Kind::Ip(datagram) = &packet.kind else {
        return false;
    };
    let offset = match datagram.transport {
        Transport::Tcp { .. } => 16,
        Transport::Udp { .. } => 6,
        _ => return false,
    };
    at == (datagram.transport_at, datagram.transport_at + offset)
}

fn tcp_flags(packet: &Packet) -> u8 {
    match &packet.kind {
        Kind::Ip(datagram) => match datagram.transport {
            Transport::Tcp { flags, .. } => flags,
            _ => 0,
        },
        _ => 0,
    }
}
