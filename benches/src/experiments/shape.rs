//! How well a rate is kept: frames of a slice that sends all it can through its limit, next to a
//! program that does so through `tc tbf` and `tc htb` with the same rate and burst: that of a spec
//! that names none, and once the least.
//!
//! Both are heard at the other end by the same means, with the moments at which the kernel took the
//! frames in: ours at its tap, the peers' at the far end of a veth pair. What counts are bytes as on
//! the wire, of bundles of segments those of each segment. Errors are in percent of what was due: in
//! the long run, and of the worst window of a length among all that do not overlap. The first part of
//! each run, in which the saved-up burst goes, is left out.

mod peer;
mod windows;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use integration::guests;
use integration::receiver::Receiver;
use serde_json::json;

use crate::lab::{Lab, QuadOf};
use crate::metrics::{Bar, Experiment, Metric, Samples};
use crate::stats::Quad;
use integration::netns::Namespace;
use peer::{Discipline, Link};
use windows::{Errors, Gone};

/// How long frames go before they count, and for how long they count.
const SETTLING: Duration = Duration::from_millis(300);
const COUNTED: Duration = Duration::from_secs(2);
const COUNTED_QUICKLY: Duration = Duration::from_secs(1);

/// Name of the sliver.
const NAME: &str = "shape";

/// An error that is less is told as this: a comparison needs a number that is not 0.
const LEAST_ERROR: f64 = 0.001;

/// What the bytes of a frame are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    /// Datagrams, in frames of the shortest length: 64 bytes with their checksum.
    Short,
    /// Datagrams, in frames for an MTU of 1500.
    Full,
    /// TCP in bundles of 44 segments.
    Bundle,
}

impl Frame {
    /// Bytes that are handed over at once.
    const fn bytes(self) -> usize {
        match self {
            Self::Short => 60,
            Self::Full => 1514,
            Self::Bundle => 54 + 44 * 1448,
        }
    }

    /// The same as on the wire.
    const fn on_wire(self) -> u64 {
        windows::on_wire(self.bytes())
    }

    fn protocol(self) -> &'static str {
        match self {
            Self::Short | Self::Full => "udp",
            Self::Bundle => "tcp",
        }
    }
}

/// What is measured at once.
#[derive(Debug, Clone, Copy)]
struct Case {
    kbit: u64,
    frame: Frame,
    burst: Burst,
}

/// What may go at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Burst {
    /// As a spec has it that names none: 10 ms at the rate, at least 32 KiB, and a frame.
    Usual,
    /// A frame, and not two: whoever is late has lost what came meanwhile.
    Tight,
}

impl Case {
    const fn usual(kbit: u64, frame: Frame) -> Self {
        Self {
            kbit,
            frame,
            burst: Burst::Usual,
        }
    }

    fn burst_kib(self) -> u64 {
        let bytes = match self.burst {
            Burst::Usual => (self.kbit * 10 / 8).max(32 << 10).max(self.frame.on_wire()),
            Burst::Tight => self.frame.on_wire(),
        };
        bytes.div_ceil(1024)
    }
}

/// Bar of a window: 3 % or one frame, whichever is larger.
const fn bar_of_window(kbit: u64, frame: Frame) -> Bar {
    let due = (kbit * 100 / 8) as f64;
    let one = 100.0 * frame.on_wire() as f64 / due;
    Bar::Value(if one > 3.0 { one } else { 3.0 })
}

const fn metric(name: &'static str, peer: &'static str, bar: Bar) -> Metric {
    Metric {
        name,
        unit: "% off",
        peer,
        bar,
    }
}

macro_rules! case {
    ($rate:literal, $kbit:literal, $size:literal, $frame:expr) => {
        case!($rate, $kbit, $size, $frame,)
    };
    ($rate:literal, $kbit:literal, $size:literal, $frame:expr, $($more:expr),*) => {
        Experiment {
            metrics: &[
                metric(concat!("shape-", $rate, "-", $size, "-long"), "tc tbf", Bar::Value(1.0)),
                metric(
                    concat!("shape-", $rate, "-", $size, "-100ms"),
                    "tc tbf",
                    bar_of_window($kbit, $frame),
                ),
                metric(concat!("shape-", $rate, "-", $size, "-10ms"), "tc tbf", Bar::None),
                metric(concat!("shape-", $rate, "-", $size, "-1ms"), "tc tbf", Bar::None),
                metric(concat!("shape-", $rate, "-", $size, "-long-htb"), "tc htb", Bar::None),
                metric(concat!("shape-", $rate, "-", $size, "-100ms-htb"), "tc htb", Bar::None),
                $($more),*
            ],
            run: |lab| measure(lab, Case::usual($kbit, $frame)),
        }
    };
}

pub(crate) const EXPERIMENTS: &[Experiment] = &[
    case!("1m", 1_000, "64", Frame::Short),
    case!("1m", 1_000, "1500", Frame::Full),
    case!("1m", 1_000, "tso", Frame::Bundle),
    case!("10m", 10_000, "64", Frame::Short),
    case!(
        "10m",
        10_000,
        "1500",
        Frame::Full,
        metric("shape-10m-1500-long-as-tbf", "tc tbf", Bar::Ratio(1.0)),
        metric("shape-10m-1500-100ms-as-tbf", "tc tbf", Bar::Ratio(1.0))
    ),
    case!("10m", 10_000, "tso", Frame::Bundle),
    case!("100m", 100_000, "64", Frame::Short),
    case!("100m", 100_000, "1500", Frame::Full),
    case!("100m", 100_000, "tso", Frame::Bundle),
    case!("1g", 1_000_000, "64", Frame::Short),
    case!("1g", 1_000_000, "1500", Frame::Full),
    case!("1g", 1_000_000, "tso", Frame::Bundle),
    case!("10g", 10_000_000, "64", Frame::Short),
    case!("10g", 10_000_000, "1500", Frame::Full),
    case!("10g", 10_000_000, "tso", Frame::Bundle),
    Experiment {
        metrics: &[
            // Without a bar: the kernel's timer needs no thread that others may keep waiting.
            metric("shape-10m-1500-tight-long", "tc tbf", Bar::None),
            metric("shape-10m-1500-tight-100ms", "tc tbf", Bar::None),
        ],
        run: |lab| {
            let case = Case::usual(10_000, Frame::Full);
            measure(
                lab,
                Case {
                    burst: Burst::Tight,
                    ..case
                },
            )
        },
    },
];

fn measure(lab: &mut Lab, case: Case) -> Result<Vec<Samples>> {
    let what = format!("{} kbit/s, {:?} frames", case.kbit, case.frame);
    let free = ours(lab, case, false)?;
    let fastest = free.kbit();
    if fastest < 1.1 * case.kbit as f64 {
        let why = format!(
            "without a limit this machine carries {fastest:.0} kbit/s of such frames, which leaves \
             nothing to limit"
        );
        return Ok(vec![Samples::LeftOut(why); 8]);
    }
    let pairs = lab.pairs.min(if lab.quick { 2 } else { 6 });
    let mut against = |discipline: Discipline| {
        lab.interleave(
            &format!("{what}, against {}", discipline.name()),
            pairs,
            |lab| Ok(ours(lab, case, true)?.errors(case.kbit)),
            |lab| Ok(peers(lab, case, discipline)?.errors(case.kbit)),
        )
    };
    let tbf = against(Discipline::Tbf)?;
    let htb = against(Discipline::Htb)?;
    let [long, hundred, ten, one]: [fn(&Errors) -> f64; 4] = [
        |errors| errors.long,
        |errors| errors.windows[0],
        |errors| errors.windows[1],
        |errors| errors.windows[2],
    ];
    Ok(vec![
        paired(&tbf, long),
        paired(&tbf, hundred),
        paired(&tbf, ten),
        paired(&tbf, one),
        paired(&htb, long),
        paired(&htb, hundred),
        paired(&tbf, long),
        paired(&tbf, hundred),
    ])
}

fn paired(quads: &[QuadOf<Errors>], error: fn(&Errors) -> f64) -> Samples {
    let values: Vec<Quad> = quads
        .iter()
        .map(|quad| quad.map(|errors| error(errors).max(LEAST_ERROR)))
        .collect();
    Samples::Paired {
        values,
        cpu_ms: Vec::new(),
    }
}

/// A slice that sends all it can, with a limit or without.
fn ours(lab: &Lab, case: Case, limited: bool) -> Result<Gone> {
    let namespace = Namespace::new()?;
    namespace.ip("tuntap add tap0 mode tap vnet_hdr")?;
    namespace.ip("link set tap0 up")?;
    let ear = namespace.inside(|| Ok(Receiver::on("tap0")?))?;
    let mut fields = json!({
        "nets": [{ "tap": "tap0", "ipv4": "10.0.0.2/24", "gateway4": "10.0.0.1" }],
    });
    if limited {
        fields["net_max_rate"] = json!(case.kbit);
        fields["net_burst"] = json!(case.burst_kib());
    }
    let bytes = case.frame.bytes().to_string();
    let args = ["egress-flood", case.frame.protocol(), &bytes];
    let spec = lab.spec_with(NAME, guests::bare(), &args, fields)?;
    let sliver = namespace.inside(|| lab.start_sliver(&spec))?;
    let gone = listen(lab, &ear);
    sliver.stop()?;
    gone
}

/// A program that sends all it can.
fn peers(lab: &Lab, case: Case, discipline: Discipline) -> Result<Gone> {
    let link = Link::new()?;
    link.shape(discipline, case)?;
    let ear = link.ear()?;
    let sending = link.flood(case.frame)?;
    let gone = listen(lab, &ear);
    sending.end()?;
    gone
}

fn listen(lab: &Lab, ear: &Receiver) -> Result<Gone> {
    let counted = if lab.quick { COUNTED_QUICKLY } else { COUNTED };
    let mut gone = Gone::default();
    let mut first = None;
    let started = Instant::now();
    loop {
        let came = ear.take(Duration::from_millis(50), |heard| {
            gone.add(heard.at, heard.len);
        });
        match first {
            None if came > 0 => first = Some(Instant::now()),
            None => ensure!(
                started.elapsed() < Duration::from_secs(20),
                "no frame came within 20 s"
            ),
            Some(since) if since.elapsed() > SETTLING + counted => break,
            Some(_) => {}
        }
    }
    let missed = ear.missed();
    ensure!(missed == 0, "{missed} frames were not heard");
    gone.skip(SETTLING);
    Ok(gone)
}
