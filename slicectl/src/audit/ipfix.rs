//! IPFIX (RFC 7011): the records of flows for a site's own collector, over UDP.
//!
//! A record has both directions (RFC 5103): the forward one is that of the sliver, whoever began the
//! flow; `biflowDirection` says which that was. Templates come again with every message, since UDP
//! loses some; what is lost on the way is not sent again.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};

use vmm::control::proto::{FlowEnd, FlowRecord, Opened};

/// RFC 7011, 3.1.
const VERSION: u16 = 10;

/// RFC 7011, 3.3.2: the set that holds templates.
const TEMPLATE_SET: u16 = 2;

const TEMPLATE_FOUR: u16 = 256;
const TEMPLATE_SIX: u16 = 257;

/// RFC 5103, 6.1: the enterprise number of the same fields in the other direction.
const REVERSE: u32 = 29_305;

/// Records in a message, so that it fits into 1280 bytes, which every path carries.
const AT_ONCE: usize = 10;

/// Fields of a template: IANA's numbers, lengths, and whether they are of the other direction.
type Field = (u16, u16, bool);

const FOUR: [Field; 2] = [(8, 4, false), (12, 4, false)];
const SIX: [Field; 2] = [(27, 16, false), (28, 16, false)];

/// Behind the addresses, in the order of [`push_record`].
const REST: [Field; 12] = [
    // sourceTransportPort, destinationTransportPort, postNAPTSourceTransportPort
    (7, 2, false),
    (11, 2, false),
    (227, 2, false),
    // protocolIdentifier, flowEndReason, biflowDirection
    (4, 1, false),
    (136, 1, false),
    (239, 1, false),
    // flowStartMilliseconds, flowEndMilliseconds
    (152, 8, false),
    (153, 8, false),
    // packetDeltaCount, octetDeltaCount, and those of the answers
    (2, 8, false),
    (1, 8, false),
    (2, 8, true),
    (1, 8, true),
];

/// Where records are exported to.
#[derive(Debug)]
pub struct Exporter {
    socket: UdpSocket,
    /// Who sends, among those behind one address.
    domain: u32,
    /// Records sent so far (RFC 7011, 3.1: modulo 2^32).
    sent: u32,
}

impl Exporter {
    /// An exporter to `HOST:PORT`; `domain` tells slivers of a node apart.
    pub fn to(collector: &str, domain: u32) -> io::Result<Self> {
        let address = collector
            .to_socket_addrs()?
            .next()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))?;
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(address)?;
        // A full queue is no reason to wait: the records are in the audit.
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            domain,
            sent: 0,
        })
    }

    /// Sends records.
    pub fn send(&mut self, flows: &[FlowRecord], now_ms: u64) -> io::Result<()> {
        for some in flows.chunks(AT_ONCE) {
            let message = message(some, self.domain, self.sent, (now_ms / 1000) as u32);
            // Counted whether it arrives or not: that is how the collector sees a loss.
            self.sent = self.sent.wrapping_add(some.len() as u32);
            self.socket.send(&message)?;
        }
        Ok(())
    }
}

/// A message with the templates and some records.
fn message(flows: &[FlowRecord], domain: u32, sequence: u32, seconds: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(1280);
    out.extend(VERSION.to_be_bytes());
    out.extend([0, 0]);
    out.extend(seconds.to_be_bytes());
    out.extend(sequence.to_be_bytes());
    out.extend(domain.to_be_bytes());
    push_set(&mut out, TEMPLATE_SET, |out| {
        push_template(out, TEMPLATE_FOUR, &FOUR);
        push_template(out, TEMPLATE_SIX, &SIX);
    });
    for (template, is_four) in [(TEMPLATE_FOUR, true), (TEMPLATE_SIX, false)] {
        let of_it = || flows.iter().filter(|flow| flow.inside.is_ipv4() == is_four);
        if of_it().next().is_some() {
            push_set(&mut out, template, |out| {
                of_it().for_each(|flow| push_record(out, flow));
            });
        }
    }
    patch_len(&mut out, 0, 2);
    out
}

fn push_set(out: &mut Vec<u8>, id: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend(id.to_be_bytes());
    out.extend([0, 0]);
    fill(out);
    patch_len(out, start, start + 2);
}

/// Writes the length of what begins at `start` to `at`.
fn patch_len(out: &mut [u8], start: usize, at: usize) {
    let len = (out.len() - start) as u16;
    out[at..at + 2].copy_from_slice(&len.to_be_bytes());
}

fn push_template(out: &mut Vec<u8>, id: u16, addresses: &[Field]) {
    out.extend(id.to_be_bytes());
    out.extend(((addresses.len() + REST.len()) as u16).to_be_bytes());
    for (number, len, is_reverse) in addresses.iter().chain(&REST) {
        let enterprise_bit = if *is_reverse { 0x8000 } else { 0 };
        out.extend((number | enterprise_bit).to_be_bytes());
        out.extend(len.to_be_bytes());
        if *is_reverse {
            out.extend(REVERSE.to_be_bytes());
        }
    }
}

fn push_record(out: &mut Vec<u8>, flow: &FlowRecord) {
    for address in [flow.inside, flow.remote] {
        match address {
            IpAddr::V4(four) => out.extend(four.octets()),
            IpAddr::V6(six) => out.extend(six.octets()),
        }
    }
    let seen = flow.outside_port.unwrap_or(flow.inside_port);
    for port in [flow.inside_port, flow.remote_port, seen] {
        out.extend(port.to_be_bytes());
    }
    // RFC 5102, 5.11.3: flowEndReason.
    let reason = match flow.end {
        FlowEnd::Idle => 1,
        FlowEnd::Cut => 2,
        FlowEnd::Closed => 3,
        FlowEnd::Stopped => 4,
        FlowEnd::Evicted => 5,
    };
    // RFC 5103, 6.3: initiator, reverseInitiator.
    let direction = match flow.opened {
        Opened::Out => 1,
        Opened::In => 2,
    };
    out.extend([flow.protocol, reason, direction]);
    for number in [
        flow.first_ms,
        flow.last_ms,
        flow.tx_packets,
        flow.tx_bytes,
        flow.rx_packets,
        flow.rx_bytes,
    ] {
        out.extend(number.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::flow;

    const MESSAGE_HEADER: usize = 16;

    fn number(bytes: &[u8]) -> u64 {
        bytes
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    /// The sets of a message: number, and what is in it.
    fn sets(message: &[u8]) -> Vec<(u64, &[u8])> {
        let mut rest = &message[MESSAGE_HEADER..];
        let mut found = Vec::new();
        while !rest.is_empty() {
            let (set, behind) = rest.split_at(number(&rest[2..4]) as usize);
            found.push((number(&set[..2]), &set[4..]));
            rest = behind;
        }
        found
    }

    #[test]
    fn a_message_can_be_read_by_its_own_templates() {
        let six = FlowRecord {
            inside: "2001:db8::2".parse().expect("an address"),
            ..flow("2001:db8::7", 2_000_000)
        };
        let message = message(&[flow("192.0.2.7", 1_000_000), six], 7, 41, 99);
        assert_eq!(number(&message[..2]), 10);
        assert_eq!(number(&message[2..4]), message.len() as u64);
        assert_eq!([number(&message[4..8]), number(&message[8..12])], [99, 41]);
        assert_eq!(number(&message[12..16]), 7);
        let sets = sets(&message);
        let numbers: Vec<u64> = sets.iter().map(|set| set.0).collect();
        assert_eq!(numbers, [2, 256, 257]);
        let mut template = sets[0].1;
        for (id, record) in &sets[1..] {
            assert_eq!(number(&template[..2]), *id);
            let fields = number(&template[2..4]);
            template = &template[4..];
            let mut at = 0;
            let mut values = Vec::new();
            for _ in 0..fields {
                let (field, len) = (number(&template[..2]), number(&template[2..4]) as usize);
                let is_reverse = field & 0x8000 != 0;
                template = &template[if is_reverse { 8 } else { 4 }..];
                values.push((field, number(&record[at..at + len.min(8)])));
                at += len;
            }
            assert_eq!(at, record.len(), "nothing is left over");
            let value = |field: u64| values.iter().find(|value| value.0 == field).map(|v| v.1);
            assert_eq!([value(2), value(1)], [Some(3), Some(300)]);
            assert_eq!([value(0x8002), value(0x8001)], [Some(2), Some(200)]);
            assert_eq!(
                [value(7), value(227), value(11)],
                [Some(5000), Some(20_007), Some(53)]
            );
        }
        assert!(template.is_empty());
    }

    #[test]
    fn a_collector_gets_all_records_in_messages_that_every_path_carries() {
        let collector = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let address = collector.local_addr().expect("an address").to_string();
        let six = FlowRecord {
            inside: "2001:db8::2".parse().expect("an address"),
            ..flow("2001:db8::7", 1)
        };
        let mut exporter = Exporter::to(&address, 1).expect("made");
        exporter.send(&[six; 25], 1000).expect("sent");
        let mut sequences = Vec::new();
        for _ in 0..3 {
            let mut message = [0; 2000];
            let len = collector.recv(&mut message).expect("a message");
            assert!(len <= 1280 - 48, "{len}");
            sequences.push(number(&message[8..12]));
        }
        assert_eq!(sequences, [0, 10, 20]);
    }
}
