//! What the gate of a sliver costs for a packet, whole and in its parts, without all that surrounds
//! it: frames of many flows go through again and again. Each sample is the mean of a pass, so that
//! the clock is not what is measured. What only reads the headers is the peer of the whole, run in
//! turns with it: it tells how much of a figure is the noise of the machine.

mod trace;

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use serde_json::json;
use vmm::nanos::Nanos;
use vmm::net::flows::{Acquaintance, FlowTable, Passed};
use vmm::net::gate::{Gate, Judged};
use vmm::net::guard::{Card, Guard, Verdict};
use vmm::net::packet::Packet;
use vmm::net::ports::{PortMap, PortRange};
use vmm::net::shaper::{Direction, Shaper, Traffic, UsedToday};
use vmm::spec::{NetSpec, SliverSpec};

use crate::lab::Lab;
use crate::metrics::{Bar, Experiment, Metric, Samples};
use trace::{Frame, Load};

/// Packets of each pass.
const PACKETS: usize = 20_000;

/// Between two packets, in nanoseconds: 1 Gbit/s of large ones.
const EVERY: u64 = 12_000;

const BAR: Bar = Bar::Value(150.0);

const fn metric(name: &'static str, bar: Bar) -> Metric {
    Metric {
        name,
        unit: "ns",
        peer: "the parse alone",
        bar,
    }
}

const fn part(name: &'static str) -> Metric {
    Metric {
        name,
        unit: "ns",
        peer: "-",
        bar: Bar::None,
    }
}

pub(crate) const EXPERIMENTS: &[Experiment] = &[
    Experiment {
        metrics: &[
            metric("guard-and-flows-64-few", BAR),
            metric("guard-and-flows-64-many", BAR),
            metric("guard-and-flows-1500", BAR),
            metric("guard-and-flows-tso", BAR),
        ],
        run: guard_and_flows,
    },
    Experiment {
        metrics: &[
            metric("gate-out-64-few", Bar::None),
            metric("gate-out-64-many", Bar::None),
            metric("gate-out-1500", Bar::None),
            metric("gate-out-tso", Bar::None),
            metric("gate-in-64-few", Bar::None),
            metric("gate-in-64-many", Bar::None),
            metric("gate-in-1500", Bar::None),
            metric("gate-in-tso", Bar::None),
        ],
        run: gate,
    },
    Experiment {
        metrics: &[
            part("packet-parse"),
            part("packet-guard"),
            part("packet-flows"),
            part("packet-shaper"),
            part("packet-ports"),
        ],
        run: parts,
    },
];

const LOADS: [Load; 4] = [Load::Few, Load::Many, Load::Full, Load::Bundle];

fn guard_and_flows(lab: &mut Lab) -> Result<Vec<Samples>> {
    each_load(lab, Direction::Out, |bench, frame| {
        let packet = Packet::parse(&frame.head, frame.bytes);
        let Some(tuple) = packet.tuple() else {
            panic!("a frame is of no flow")
        };
        let flow = bench.flows.seek(&tuple, Direction::Out);
        let verdict = bench
            .guard
            .outgoing(0, &packet, flow.acquaintance(), bench.now);
        assert_eq!(verdict, Verdict::Pass, "of {packet:?}");
        bench.flows.record(&flow, &passed(frame), bench.now);
    })
}

fn gate(lab: &mut Lab) -> Result<Vec<Samples>> {
    let mut samples = each_load(lab, Direction::Out, |bench, frame| {
        let Frame {
            head,
            bytes,
            segments,
        } = frame;
        let judged = bench.gate.judge(0, head, *bytes, *segments, bench.now);
        let Judged::Pass(admitted) = judged else {
            panic!("a frame is dropped");
        };
        black_box(bench.gate.admit(&admitted, bench.now)).ok();
        bench.gate.sent(&admitted, head, bench.now);
    })?;
    samples.extend(each_load(lab, Direction::In, |bench, frame| {
        let Frame {
            head,
            bytes,
            segments,
        } = frame;
        black_box(bench.gate.may_receive(bench.now)).ok();
        let passed = bench.gate.received(0, head, *bytes, *segments, bench.now);
        assert!(passed, "a frame is dropped");
    })?);
    Ok(samples)
}

fn parts(lab: &mut Lab) -> Result<Vec<Samples>> {
    let passes = if lab.quick { 50 } else { 400 };
    let mut bench = Bench::new()?;
    let mut frames = { LOADS.iter() }
        .flat_map(|load| load.frames(Direction::Out).into_iter().take(100))
        .collect::<Vec<_>>();
    let mut samples = |step: fn(&mut Bench, &mut Frame)| {
        // Tables are filled before it counts.
        bench.pass(&mut frames, step);
        Samples::Alone((0..passes).map(|_| bench.pass(&mut frames, step)).collect())
    };
    Ok(vec![
        samples(parse),
        samples(|bench, frame| {
            let packet = Packet::parse(&frame.head, frame.bytes);
            black_box(
                bench
                    .guard
                    .outgoing(0, &packet, Acquaintance::Answered, bench.now),
            );
        }),
        samples(|bench, frame| {
            if let Some(tuple) = Packet::parse(&frame.head, frame.bytes).tuple() {
                let flow = bench.flows.seek(&tuple, Direction::Out);
                bench.flows.record(&flow, &passed(frame), bench.now);
            }
        }),
        samples(|bench, frame| {
            let bytes = frame.bytes as u64;
            if black_box(bench.shaper.check(bytes, Traffic::Plain, bench.now)).is_ok() {
                bench.shaper.charge_sent(bytes, Traffic::Plain, bench.now);
            }
        }),
        samples(|bench, frame| {
            let packet = Packet::parse(&frame.head, frame.bytes);
            let mut head = [0; 64];
            head[..54].copy_from_slice(&frame.head[..54]);
            black_box(bench.ports.outgoing(&mut head, &packet, true, bench.now)).ok();
        }),
    ])
}

fn passed(frame: &Frame) -> Passed {
    Passed {
        outside_port: None,
        tcp_flags: 0x10,
        packets: 1,
        bytes: frame.bytes as u64,
    }
}

fn parse(_: &mut Bench, frame: &mut Frame) {
    black_box(Packet::parse(&frame.head, frame.bytes));
}

/// A step with the frames of each load, next to the parse of the same frames alone.
fn each_load(
    lab: &mut Lab,
    direction: Direction,
    step: fn(&mut Bench, &mut Frame),
) -> Result<Vec<Samples>> {
    let pairs = if lab.quick { 40 } else { 200 };
    let measure = |load: Load| {
        let (mut ours, mut peer) = (Bench::new()?, Bench::new()?);
        let mut frames = load.frames(direction);
        let mut same = frames.clone();
        if load.is_answered() {
            ours.answered(&load.frames(Direction::In));
        }
        let quads = lab.interleave(
            &format!("{load:?}, {direction:?}"),
            pairs,
            |_| Ok(ours.pass(&mut frames, step)),
            |_| Ok(peer.pass(&mut same, parse)),
        )?;
        Ok(Samples::Paired {
            values: quads.iter().map(|quad| quad.map(|nanos| *nanos)).collect(),
            cpu_ms: Vec::new(),
        })
    };
    LOADS.into_iter().map(measure).collect()
}

/// What frames go through.
struct Bench {
    gate: Gate,
    guard: Guard,
    flows: FlowTable,
    shaper: Shaper,
    ports: PortMap,
    now: Nanos,
}

impl Bench {
    fn new() -> Result<Self> {
        let spec = spec()?;
        let networks: Vec<_> = spec.nets().iter().filter_map(NetSpec::ipv4).collect();
        let now = Nanos(EVERY);
        Ok(Self {
            gate: Gate::new(&spec, 1, now, Nanos::ZERO),
            guard: Guard::new(spec.guard(), spec.nets().iter().map(Card::new).collect()),
            flows: FlowTable::new(1 << 12, 1),
            shaper: Shaper::new(spec.net_limits(), UsedToday::default(), now, Nanos::ZERO),
            ports: PortMap::new(PortRange::new(30_000, 39_999)?, &networks, 1),
            now,
        })
    }

    /// The other side has spoken.
    fn answered(&mut self, frames: &[Frame]) {
        for frame in frames {
            let mut head = frame.head.clone();
            self.gate
                .received(0, &mut head, frame.bytes, frame.segments, self.now);
            if let Some(tuple) = Packet::parse(&head, frame.bytes).tuple() {
                let flow = self.flows.seek(&tuple, Direction::In);
                self.flows.record(&flow, &passed(frame), self.now);
            }
        }
    }

    /// Nanoseconds that a packet takes in the mean of a pass.
    fn pass(&mut self, frames: &mut [Frame], step: fn(&mut Self, &mut Frame)) -> f64 {
        let start = Instant::now();
        let mut left = PACKETS;
        while left > 0 {
            for frame in frames.iter_mut().take(left) {
                self.now = Nanos(self.now.0 + EVERY);
                step(self, frame);
            }
            left -= left.min(frames.len());
        }
        let nanos = start.elapsed().as_nanos() as f64;
        self.flows.sweep(self.now);
        nanos / PACKETS as f64
    }
}

fn spec() -> Result<SliverSpec> {
    let spec = json!({
        "version": 1, "name": "packets", "slice": "bench_packets", "owner": "Benchmark",
        "contact": "bench@example.org", "image": "/image",
        "nets": [{
            "mac": "02:00:00:00:01:02", "ipv4": "10.0.0.2/24", "gateway4": "10.0.0.1",
        }],
        "guard": { "flows_per_second": 1_000_000, "reachable": ["198.51.100.0/24"] },
        "net_max_rate": 100_000_000, "net_rx_max_rate": 100_000_000,
    });
    Ok(SliverSpec::parse(spec.to_string().as_bytes())?)
}
