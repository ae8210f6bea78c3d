//! Frames in both directions with their virtio headers in every form, through all that they pass:
//! judged, shaped, translated, written down and copied. What leaves is the sliver's own, no more
//! than its rate allows, and told of.
#![no_main]
#![allow(missing_docs, reason = "a program")]

use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::Result;
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use vmm::devices::virtio::net::frame::{
    HEADER_BYTES, Header, JUDGED_BYTES, Rules, device_work, judge_received, judge_sent,
};
use vmm::nanos::Nanos;
use vmm::net::gate::{Admitted, Gate, Held, Judged, MAX_REPLY, Segments};
use vmm::net::packet::{HEAD_BYTES, Kind, Packet};
use vmm::net::uplink::Kbit;
use vmm::spec::SliverSpec;
use vmm_fuzz::{Unstructured, frame, spec};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
/// Bytes per second of the slowest that have a rate, and what they may send at once.
const RATE: u64 = 1_000_000 / 8;
const BURST: u64 = 64 << 10;
/// Frames that one input sends at most.
const FRAMES: usize = 200;

/// Slivers that are kept from nothing, watched, shaped, and behind one address with others.
static SPECS: LazyLock<[SliverSpec; 4]> = LazyLock::new(|| {
    let card = json!([{
        "mac": "02:00:00:00:00:07", "ipv4": "10.0.2.15/24", "gateway4": "10.0.2.2",
        "ipv6": "fd00::15/64",
    }]);
    [
        json!({ "nets": card, "guard": { "mode": "off" } }),
        json!({ "nets": card, "guard": { "strict_audit": true, "blocked": ["192.0.2.0/24"] } }),
        json!({
            "nets": card, "net_max_rate": 1000, "net_burst": 64, "net_rx_max_rate": 1000,
            "net_exempt": ["198.51.100.0/24"], "net_exempt_max_rate": 500,
            "net_max_kbyte": 4000, "net_thresh_kbyte": 1000,
        }),
        json!({
            "nets": card, "public": { "ports": "20000-20015", "address": "192.0.2.1" },
            "guard": { "mode": "off" },
        }),
    ]
    .map(|fields| spec(&fields))
});

fuzz_target!(|data: &[u8]| {
    let _ = run(&mut Unstructured::new(data));
});

struct World {
    gate: Gate,
    now: Nanos,
    began: Nanos,
    shaped: bool,
    /// Bytes that were handed over while the rate counts.
    sent: u64,
    waiting: Option<(Admitted, Vec<u8>)>,
    events: u64,
    flows: u64,
}

fn run(input: &mut Unstructured) -> Result<()> {
    let which = usize::from(input.arbitrary::<u8>()? % 4);
    let began = Nanos::from_millis(1000);
    let mut world = World {
        gate: Gate::new(&SPECS[which], input.arbitrary()?, began, Nanos(0)),
        now: began,
        began,
        shaped: which == 2,
        sent: 0,
        waiting: None,
        events: 0,
        flows: 0,
    };
    for _ in 0..FRAMES {
        if input.is_empty() {
            break;
        }
        world.now = world.now + Nanos::from_millis(u64::from(input.arbitrary::<u8>()?) * 4);
        match input.arbitrary::<u8>()? % 16 {
            0..=8 => world.send(input)?,
            9..=12 => world.receive(input)?,
            _ => world.steer(input)?,
        }
    }
    world.end();
    Ok(())
}

/// A header and a frame: its first bytes, and its length with what is not looked at.
fn framed(input: &mut Unstructured) -> Result<(Vec<u8>, usize)> {
    let mut bytes = vec![0; HEADER_BYTES];
    let (how, more) = input.arbitrary::<(u8, u16)>()?;
    match how % 4 {
        // A checksum to be made of TCP or UDP over IPv4, maybe of segments.
        0 => {
            let udp: bool = input.arbitrary()?;
            (bytes[0], bytes[6], bytes[8]) = (1, 34, if udp { 6 } else { 16 });
            if how & 8 != 0 {
                bytes[1] = 1;
                bytes[4..6].copy_from_slice(&input.arbitrary::<u16>()?.to_le_bytes());
            }
        }
        1 => input.fill_buffer(&mut bytes)?,
        _ => {}
    }
    bytes.extend(frame(input, MAC)?);
    let more = if how & 0x10 == 0 {
        0
    } else {
        usize::from(more)
    };
    let total = bytes.len() + more;
    // What is not looked at is there.
    bytes.resize(total.min(HEADER_BYTES + HEAD_BYTES), 0xaa);
    Ok((bytes, total))
}

fn segments(header: &Header) -> Segments {
    Segments {
        size: header.segment(),
        checksum: header.checksum(),
    }
}

impl World {
    fn send(&mut self, input: &mut Unstructured) -> Result<()> {
        let features = u64::from(input.arbitrary::<u32>()?);
        let (mut bytes, total) = framed(input)?;
        let rules = Rules {
            work: device_work(features),
            mtu: 1500,
            mac: MAC,
        };
        let judged = &bytes[..bytes.len().min(JUDGED_BYTES)];
        let Ok(header) = judge_sent(judged, total as u64, &rules) else {
            return Ok(());
        };
        let (frame_bytes, segments) = (total - HEADER_BYTES, segments(&header));
        let head = &mut bytes[HEADER_BYTES..];
        let before = head.to_vec();
        match self.gate.judge(0, head, frame_bytes, segments, self.now) {
            Judged::Drop => self.take_replies(),
            Judged::Pass(admitted) => {
                // Only who shares an address has something changed, and nothing but ports.
                let changed = |range: std::ops::Range<usize>| head[range.clone()] != before[range];
                assert!(!changed(0..14), "the Ethernet header is the guest's");
                assert_eq!(Packet::parse(head, frame_bytes).source_mac, MAC);
                let head = head.to_vec();
                // The device waits with one frame, and takes no other meanwhile.
                if self.waiting.replace((admitted, head)).is_some() {
                    self.gate.stop_waiting();
                }
                self.admit();
            }
        }
        Ok(())
    }

    /// Hands over what waits, if it may go; the time of its turn is believed.
    fn admit(&mut self) {
        let Some((admitted, head)) = self.waiting.take() else {
            return;
        };
        match self.gate.admit(&admitted, self.now) {
            Ok(()) => {
                let before = self.gate.status();
                self.gate.sent(&admitted, &head, self.now);
                let after = self.gate.status();
                assert!(after.flows <= before.flows + 1);
                self.held_to_its_rate();
            }
            Err(Held::Dropped) => {}
            Err(Held::Until(until)) => {
                assert!(until > self.now, "it is asked again at once, for ever");
                self.waiting = Some((admitted, head));
            }
        }
    }

    fn held_to_its_rate(&mut self) {
        self.sent = self.gate.status().tx_bytes;
        if !self.shaped {
            return;
        }
        let seconds = (self.now - self.began).0 as f64 / 1e9;
        // What is exempt has half of the rate for itself; a bundle may be longer than the burst.
        let most = seconds * (RATE + RATE / 2) as f64 + (2 * BURST + 2 * 70_000) as f64;
        assert!(self.sent as f64 <= most, "{} of {most}", self.sent);
    }

    fn take_replies(&mut self) {
        let mut taken = 0;
        while let Some(reply) = self.gate.take_reply(0) {
            let told = Packet::parse(&reply, reply.len());
            assert!(
                reply.len() <= MAX_REPLY && matches!(told.kind, Kind::Ip(_)),
                "{told:?}"
            );
            taken += 1;
        }
        assert!(taken <= 16 && !self.gate.has_reply(0));
    }

    fn receive(&mut self, input: &mut Unstructured) -> Result<()> {
        let features = u64::from(input.arbitrary::<u32>()?);
        let (mut bytes, total) = framed(input)?;
        let Some((header, head)) = bytes.split_first_chunk_mut() else {
            return Ok(());
        };
        let frame_bytes = total - HEADER_BYTES;
        let work = device_work(features);
        let Ok(header) = judge_received(header, frame_bytes as u64, work) else {
            return Ok(());
        };
        if let Err(until) = self.gate.may_receive(self.now) {
            assert!(until > self.now, "it is asked again at once, for ever");
            return Ok(());
        }
        let received = self.gate.status().rx_bytes;
        let passed = self
            .gate
            .received(0, head, frame_bytes, segments(&header), self.now);
        let counted = self.gate.status().rx_bytes - received;
        assert!(
            counted >= frame_bytes as u64,
            "{passed}: {counted} of {frame_bytes}"
        );
        Ok(())
    }

    fn steer(&mut self, input: &mut Unstructured) -> Result<()> {
        match input.arbitrary::<u8>()? % 8 {
            0 => self.gate.begin_capture(input.arbitrary()?),
            1 => self.take_captured(),
            2 => self.take_flows(input.arbitrary()?, input.arbitrary::<u8>()?.into()),
            3 => self.take_events(),
            4 => self
                .gate
                .set_uplink_rate(Kbit(input.arbitrary()?), self.now),
            5 => self.gate.set_epoch(Nanos(input.arbitrary()?)),
            6 => self.now = self.now + Nanos::from_millis(input.arbitrary::<u16>()?.into()),
            _ => self.admit(),
        }
        Ok(())
    }

    fn take_captured(&mut self) {
        let Some(captured) = self.gate.take_captured() else {
            return;
        };
        let bytes: Vec<u8> = (0..captured.hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&captured.hex[at..at + 2], 16).expect("digits"))
            .collect();
        let mut rest = &bytes[..];
        while let Some((header, others)) = rest.split_first_chunk::<16>() {
            let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four"));
            let (copied, whole) = (word(8) as usize, word(12) as usize);
            assert!(word(4) < 1_000_000_000, "nanoseconds of a second");
            assert!(copied <= whole && copied <= HEAD_BYTES);
            rest = &others[copied..];
        }
        assert!(rest.is_empty());
    }

    fn take_flows(&mut self, acknowledge: u64, max: usize) {
        let batch = self
            .gate
            .take_flows(acknowledge.min(self.flows), max, self.now);
        assert!(batch.records.len() <= max && batch.first >= self.flows.min(acknowledge));
        for record in &batch.records {
            assert!(record.first_ms <= record.last_ms, "{record:?}");
            assert!(record.tx_packets + record.rx_packets > 0, "{record:?}");
        }
        self.flows = self.flows.max(batch.first + batch.records.len() as u64);
    }

    fn take_events(&mut self) {
        let batch = self.gate.events_after(self.events, self.now);
        for event in batch.events {
            assert!(event.seq > self.events && event.count > 0, "{event:?}");
            self.events = event.seq;
        }
    }

    fn end(&mut self) {
        self.gate.stop_flows();
        self.take_flows(0, usize::MAX);
        self.take_captured();
        self.take_events();
        assert_eq!(self.gate.status().flows, 0, "all of them have ended");
    }
}
