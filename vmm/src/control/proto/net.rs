//! What is asked and told about a sliver's traffic.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::spec::NetLimits;

/// Who began a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Opened {
    /// The sliver.
    Out,
    /// Somebody outside.
    In,
}

/// Why a record of a flow was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowEnd {
    /// Nothing came for as long as its protocol allows.
    Idle,
    /// TCP closed it.
    Closed,
    /// It lasts: this is its last minute.
    Cut,
    /// Its place in the table was needed.
    Evicted,
    /// The sliver has ended.
    Stopped,
}

/// A flow, or a minute of one. Bytes are as on the wire, without preamble and checksum of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRecord {
    /// Time of its first packet, in milliseconds since 1970.
    pub first_ms: u64,
    /// Time of its last packet.
    pub last_ms: u64,
    /// Number of its protocol (RFC 5237): 6 is TCP, 17 UDP, 1 ICMP.
    pub protocol: u8,
    /// The sliver's address.
    pub inside: IpAddr,
    /// The sliver's port; for ICMP the identifier; 0 if there is none.
    pub inside_port: u16,
    /// The port that the outside saw, if it was translated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside_port: Option<u16>,
    /// The other's address.
    pub remote: IpAddr,
    /// The other's port.
    pub remote_port: u16,
    /// Who began it.
    pub opened: Opened,
    /// Packets that the sliver sent.
    pub tx_packets: u64,
    /// Bytes that the sliver sent.
    pub tx_bytes: u64,
    /// Packets that it was sent.
    pub rx_packets: u64,
    /// Bytes that it was sent.
    pub rx_bytes: u64,
    /// Why it was written.
    pub end: FlowEnd,
}

/// Traffic of which there is no record, because nobody took the records in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostFlows {
    /// Records that were given up.
    pub flows: u64,
    /// Packets in them.
    pub packets: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// Records of flows, to be acknowledged with the next question.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowBatch {
    /// Number of the first record; each has the next.
    pub first: u64,
    /// The records.
    pub records: Vec<FlowRecord>,
    /// What was lost so far.
    pub lost: LostFlows,
}

/// Something that somebody should know of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Its number in this sliver's life.
    pub seq: u64,
    /// When it was last seen, in milliseconds since 1970.
    pub at_ms: u64,
    /// What it is: `drop`, `long_probe`, `cap_reached`, ...
    pub kind: String,
    /// About what, in one line.
    pub detail: String,
    /// How often it was seen since it was told last.
    pub count: u64,
}

/// Events after the one that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventBatch {
    /// The events, the oldest first.
    pub events: Vec<EventRecord>,
    /// Events between that one and the first of these that are no longer there.
    pub lost: u64,
}

/// What a monitor tells of its sliver's traffic when that has ended: what nobody has taken yet. It
/// may come in several pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastTraffic {
    /// Records of flows.
    pub flows: FlowBatch,
    /// What has happened.
    pub events: EventBatch,
    /// How it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net: Option<NetStatus>,
}

/// How a sliver's traffic does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetStatus {
    /// The limits in force.
    #[serde(default)]
    pub limits: NetLimits,
    /// Bytes sent, as on the wire.
    pub tx_bytes: u64,
    /// Bytes received, as on the wire.
    pub rx_bytes: u64,
    /// Of the bytes sent today (UTC), those that count against the allowance.
    pub used_today: u64,
    /// The same to and from exempt prefixes.
    pub exempt_used_today: u64,
    /// The day that `used_today` speaks of, since 1970.
    pub day: u64,
    /// What it may send at present, in kbit/s; `None` without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx_kbit: Option<u64>,
    /// How often a frame waited for the rate.
    pub tx_waits: u64,
    /// For how long frames waited, in microseconds.
    pub tx_waited_us: u64,
    /// How often the tap was left alone because of the rate of reception.
    pub rx_waits: u64,
    /// Frames that the guard dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Frames that it would have dropped if it did not only report.
    pub would_drop: BTreeMap<String, u64>,
    /// Flows in the table.
    pub flows: usize,
    /// Records that wait to be taken.
    pub unrecorded: usize,
    /// What was lost so far.
    pub lost: LostFlows,
}

/// A piece of a capture.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captured {
    /// Packets as records of the pcap format, nanosecond kind, little endian, as hexadecimal digits;
    /// the file's header is not among them.
    pub hex: String,
    /// Packets that found no room since the capture began.
    pub dropped: u64,
}
