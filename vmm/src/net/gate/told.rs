//! What the gate is asked from outside: records, events, counters, blocks, and what was copied.

use std::fmt::Write;

use super::Gate;
use crate::control::proto::{
    Captured, EventBatch, EventRecord, FlowBatch, FlowEnd, FlowRecord, NetStatus, Opened,
};
use crate::nanos::Nanos;
use crate::net::capture::Capture;
use crate::net::flows::{End, Flow};
use crate::net::prefix::Prefix;
use crate::net::shaper::{Direction, Sending};
use crate::net::uplink::Kbit;
use crate::sched::quota::NetGranted;
use crate::spec::NetLimits;

/// Records in one answer at most, so that it fits into a frame of the control protocol.
const MOST_RECORDS: usize = 1000;

impl Gate {
    /// Says when the monotonic clock showed 0, in nanoseconds since 1970.
    pub fn set_epoch(&mut self, epoch: Nanos) {
        self.epoch = epoch;
        self.shaper.set_epoch(epoch);
    }

    /// Ends what is over, and gives records that are not acknowledged yet.
    pub fn take_flows(&mut self, acknowledge: u64, max: usize, now: Nanos) -> FlowBatch {
        self.flows.acknowledge(acknowledge);
        self.flows.sweep(now);
        let (first, flows) = self.flows.batch(max.min(MOST_RECORDS));
        FlowBatch {
            first,
            records: flows.iter().map(|flow| self.recorded(flow)).collect(),
            lost: self.flows.lost(),
        }
    }

    /// Ends all flows: the sliver has.
    pub fn stop_flows(&mut self) {
        self.flows.stop();
    }

    fn recorded(&self, flow: &Flow) -> FlowRecord {
        FlowRecord {
            first_ms: unix_ms(self.epoch, flow.first),
            last_ms: unix_ms(self.epoch, flow.last),
            protocol: flow.protocol,
            inside: flow.inside,
            inside_port: flow.inside_port,
            outside_port: flow.outside_port,
            remote: flow.remote,
            remote_port: flow.remote_port,
            opened: match flow.opened {
                Direction::Out => Opened::Out,
                Direction::In => Opened::In,
            },
            tx_packets: flow.tx_packets,
            tx_bytes: flow.tx_bytes,
            rx_packets: flow.rx_packets,
            rx_bytes: flow.rx_bytes,
            end: match flow.end {
                End::Idle => FlowEnd::Idle,
                End::Closed => FlowEnd::Closed,
                End::Cut => FlowEnd::Cut,
                End::Evicted => FlowEnd::Evicted,
                End::Stopped => FlowEnd::Stopped,
            },
        }
    }

    /// The events after the one with that number, as of `now`; at the end of time those are told,
    /// too, that wait for the end of a minute.
    pub fn events_after(&mut self, after: u64, now: Nanos) -> EventBatch {
        self.events.settle(now);
        let epoch = self.epoch;
        let (events, lost) = self.events.after(after);
        let events = events.map(|event| EventRecord {
            seq: event.seq,
            at_ms: unix_ms(epoch, event.last),
            kind: event.kind.to_owned(),
            detail: event.detail.clone(),
            count: event.count,
        });
        EventBatch {
            events: events.collect(),
            lost,
        }
    }

    /// Nothing goes to these prefixes from now on, not even an answer.
    pub fn set_blocks(&mut self, blocks: &[Prefix]) {
        self.guard.set_blocks(blocks);
    }

    /// Begins to copy packets, at most so many bytes of each.
    pub fn begin_capture(&mut self, snaplen: u32) {
        self.capture = Some(Capture::new(snaplen));
    }

    /// Copies no more.
    pub fn end_capture(&mut self) {
        self.capture = None;
    }

    /// What was copied since the last time; `None` if nothing is.
    pub fn take_captured(&mut self) -> Option<Captured> {
        let (records, dropped) = self.capture.as_mut()?.take();
        let mut hex = String::with_capacity(2 * records.len());
        for byte in records {
            // Writing to a string does not fail.
            let _ = write!(hex, "{byte:02x}");
        }
        Some(Captured { hex, dropped })
    }

    /// The limits in force.
    pub fn limits(&self) -> &NetLimits {
        self.shaper.limits()
    }

    /// Other limits, from now on.
    pub fn set_limits(&mut self, limits: &NetLimits, now: Nanos) {
        self.shaper.set_limits(limits, now);
    }

    /// What the sliver sends, as far as its uplink is concerned.
    pub fn sending(&self) -> Sending {
        self.shaper.sending()
    }

    /// What the uplink has for the sliver from now on.
    pub fn set_uplink_rate(&mut self, rate: Kbit, now: Nanos) {
        self.shaper.set_uplink_rate(Some(rate.0.into()), now);
    }

    /// What the sliver is told of its grants.
    pub fn granted(&self) -> NetGranted {
        NetGranted {
            tx_left_today: self.shaper.left_today(),
            tx_kbit: self.shaper.kbit(),
            rx_kbit: self.shaper.limits().rx_max_kbit(),
        }
    }

    /// How the sliver's traffic does.
    pub fn status(&self) -> NetStatus {
        let (shaped, used) = (self.shaper.counters(), self.shaper.used_today());
        let counted = |counts: &mut dyn Iterator<Item = (&'static str, u64)>| {
            let counts = counts.filter(|(_, count)| *count > 0);
            counts
                .map(|(name, count)| (name.to_owned(), count))
                .collect()
        };
        NetStatus {
            limits: self.limits().clone(),
            tx_bytes: shaped.tx_bytes,
            rx_bytes: shaped.rx_bytes,
            used_today: used.bytes,
            exempt_used_today: used.exempt_bytes,
            day: used.day,
            tx_kbit: self.shaper.kbit(),
            tx_waits: shaped.tx_waits,
            tx_waited_us: shaped.tx_waited.micros(),
            rx_waits: shaped.rx_waits,
            dropped: counted(&mut self.guard.drops()),
            would_drop: counted(&mut self.guard.would_drop()),
            flows: self.flows.len(),
            unrecorded: self.flows.ended(),
            lost: self.flows.lost(),
        }
    }
}

/// A moment of the monotonic clock, which showed 0 at `epoch`, in milliseconds since 1970.
fn unix_ms(epoch: Nanos, moment: Nanos) -> u64 {
    (epoch + moment).0 / 1_000_000
}
