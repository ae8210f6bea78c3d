//! What guard, flows and shaper cost for a packet, without all that surrounds them: a trace of small
//! and large packets of many flows goes through them again and again, in the order in which a sliver
//! sends them. Each sample is the mean of a pass, so that the clock is not what is measured.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use serde_json::json;
use vmm::nanos::Nanos;
use vmm::net::flows::FlowTable;
use vmm::net::guard::{Card, Guard, Verdict};
use vmm::net::packet::{Packet, Tuple};
use vmm::net::shaper::{Direction, Shaper, UsedToday};
use vmm::spec::SliverSpec;

use crate::lab::Lab;
use crate::metrics::{Bar, Experiment, Metric, Samples};

/// Flows of the trace, and packets of each pass.
const FLOWS: u16 = 1000;
const PACKETS: usize = 20_000;

/// Bytes of small and of large packets.
const SIZES: [usize; 2] = [66, 1514];

/// Between two packets, in nanoseconds: 1 Gbit/s of large ones.
const EVERY: u64 = 12_000;

const fn metric(name: &'static str, bar: Bar) -> Metric {
    Metric {
        name,
        unit: "ns",
        peer: "-",
        bar,
    }
}

pub(crate) const EXPERIMENTS: &[Experiment] = &[Experiment {
    metrics: &[
        metric("guard-and-flows-per-packet", Bar::Value(150.0)),
        metric("guard-per-packet", Bar::None),
        metric("flows-per-packet", Bar::None),
        metric("shaper-per-packet", Bar::None),
    ],
    run,
}];

fn run(lab: &mut Lab) -> Result<Vec<Samples>> {
    let passes = if lab.quick { 50 } else { 400 };
    let mut bench = Bench::new()?;
    let mut samples = |step: fn(&mut Bench, &[u8], usize)| {
        // Tables are filled before it counts.
        bench.pass(step);
        Samples::Alone((0..passes).map(|_| bench.pass(step)).collect())
    };
    Ok(vec![
        samples(|bench, head, bytes| {
            let packet = Packet::parse(head, bytes);
            let tuple = packet.tuple();
            let known = tuple.is_some_and(|tuple| bench.flows.knows(&tuple, Direction::Out));
            let verdict = bench.guard.outgoing(0, &packet, known, bench.now);
            assert_eq!(verdict, Verdict::Pass, "of {packet:?}");
            bench.record(tuple, bytes);
        }),
        samples(|bench, head, bytes| {
            let packet = Packet::parse(head, bytes);
            black_box(bench.guard.outgoing(0, &packet, true, bench.now));
        }),
        samples(|bench, head, bytes| {
            let tuple = Packet::parse(head, bytes).tuple();
            bench.record(tuple, bytes);
        }),
        samples(|bench, _, bytes| {
            let bytes = bytes as u64;
            if black_box(bench.shaper.check(bytes, false, bench.now)).is_ok() {
                bench.shaper.charge_sent(bytes, false, bench.now);
            }
        }),
    ])
}

/// What packets go through, and the packets.
struct Bench {
    guard: Guard,
    flows: FlowTable,
    shaper: Shaper,
    trace: Vec<(Vec<u8>, usize)>,
    now: Nanos,
}

impl Bench {
    fn new() -> Result<Self> {
        let spec = json!({
            "version": 1, "name": "packets", "slice": "bench_packets", "owner": "Benchmark",
            "contact": "bench@example.org", "image": "/image",
            "nets": [{
                "mac": "02:00:00:00:01:02", "ipv4": "10.0.0.2/24", "gateway4": "10.0.0.1",
            }],
            "guard": { "flows_per_second": 1_000_000, "reachable": ["198.51.100.0/24"] },
            "net_max_rate": 10_000_000,
        });
        let spec = SliverSpec::parse(spec.to_string().as_bytes())?;
        let cards = spec.nets().iter().map(Card::new).collect();
        let now = Nanos(EVERY);
        Ok(Self {
            guard: Guard::new(spec.guard(), cards),
            flows: FlowTable::new(1 << 14, 1),
            shaper: Shaper::new(spec.net_limits(), UsedToday::default(), now, Nanos::ZERO),
            trace: (0..FLOWS).map(packet).collect(),
            now,
        })
    }

    /// Nanoseconds that a packet takes in the mean of a pass.
    fn pass(&mut self, step: fn(&mut Self, &[u8], usize)) -> f64 {
        let trace = std::mem::take(&mut self.trace);
        let start = Instant::now();
        for (head, bytes) in trace.iter().cycle().take(PACKETS) {
            self.now = Nanos(self.now.0 + EVERY);
            step(self, head, *bytes);
        }
        let nanos = start.elapsed().as_nanos() as f64;
        self.trace = trace;
        self.flows.sweep(self.now);
        nanos / PACKETS as f64
    }

    fn record(&mut self, tuple: Option<Tuple>, bytes: usize) {
        if let Some(tuple) = tuple {
            let (flags, bytes) = (0x10, bytes as u64);
            self.flows
                .record(Direction::Out, &tuple, None, flags, 1, bytes, self.now);
        }
    }
}

/// The head of a packet of TCP in the middle of a flow, and its bytes.
fn packet(flow: u16) -> (Vec<u8>, usize) {
    let bytes = SIZES[usize::from(flow) % SIZES.len()];
    let mut head = vec![0; bytes.min(256)];
    head[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    head[6..12].copy_from_slice(&[2, 0, 0, 0, 1, 2]);
    head[12] = 8;
    head[14] = 0x45;
    head[16..18].copy_from_slice(&((bytes - 14) as u16).to_be_bytes());
    (head[22], head[23]) = (64, 6);
    head[26..30].copy_from_slice(&[10, 0, 0, 2]);
    head[30..34].copy_from_slice(&[198, 51, 100, (flow % 200) as u8 + 1]);
    head[34..36].copy_from_slice(&(20_000 + flow).to_be_bytes());
    head[36..38].copy_from_slice(&443u16.to_be_bytes());
    (head[46], head[47]) = (0x80, 0x10);
    (head, bytes)
}
