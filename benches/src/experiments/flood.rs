//! A flood from outside against a limit of what a sliver receives: 1 Gbit/s of datagrams against
//! 512 kbit/s. What the sliver's process costs then, next to the same without a limit; and whether
//! the limit holds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use integration::guests;
use integration::taps::packet_socket;
use serde_json::json;

use crate::lab::{Lab, QuadOf};
use crate::metrics::{Bar, Experiment, Metric, Samples};
use integration::netns::Namespace;

/// Name of the sliver.
const NAME: &str = "flood";

/// Bytes of each frame, and frames a second: 1 Gbit/s.
const FRAME: usize = 1514;
const FRAMES: u64 = 1_000_000_000 / (8 * FRAME as u64);

/// What the sliver may receive, in kbit/s, and at once, in KiB.
const LIMIT: u64 = 512;
const BURST: u64 = 8;

/// How long the flood lasts before it counts, and for how long it counts.
const SETTLING: Duration = Duration::from_millis(300);
const COUNTED: Duration = Duration::from_secs(2);

pub(crate) const EXPERIMENTS: &[Experiment] = &[Experiment {
    metrics: &[
        Metric {
            name: "flood-processor-time",
            unit: "% of one CPU",
            peer: "no limit",
            bar: Bar::Value(5.0),
        },
        Metric {
            name: "flood-received",
            unit: "% of limit",
            peer: "-",
            bar: Bar::Value(101.0),
        },
        Metric {
            name: "flood-sent",
            unit: "Mbit/s",
            peer: "-",
            bar: Bar::None,
        },
    ],
    run,
}];

/// What a flood came to.
#[derive(Debug)]
struct Flood {
    /// Processor time of the sliver, in percent of one processor.
    processor: f64,
    /// Bytes a second that the sliver took.
    received: f64,
    /// Bytes a second that were sent.
    sent: f64,
}

fn run(lab: &mut Lab) -> Result<Vec<Samples>> {
    let pairs = lab.pairs.min(if lab.quick { 2 } else { 6 });
    let quads = lab.interleave(
        "a flood, with a limit and without",
        pairs,
        |lab| flood(lab, true),
        |lab| flood(lab, false),
    )?;
    let ours = |number: fn(&Flood) -> f64| {
        let each = quads
            .iter()
            .map(|quad: &QuadOf<Flood>| quad.map(number).ours);
        Samples::Alone(each.flatten().collect())
    };
    Ok(vec![
        Samples::Paired {
            values: quads
                .iter()
                .map(|quad| quad.map(|flood| flood.processor))
                .collect(),
            cpu_ms: Vec::new(),
        },
        ours(|flood| 100.0 * flood.received * 8.0 / 1000.0 / LIMIT as f64),
        ours(|flood| flood.sent * 8.0 / 1e6),
    ])
}

fn flood(lab: &Lab, limited: bool) -> Result<Flood> {
    let namespace = Namespace::new()?;
    namespace.ip("tuntap add tap0 mode tap vnet_hdr")?;
    namespace.ip("link set tap0 up")?;
    let mut fields = json!({
        "nets": [{ "tap": "tap0", "ipv4": "10.0.0.2/24", "gateway4": "10.0.0.1" }],
        "net_rx_max_rate": 10_000_000,
        "guard": { "mode": "off" },
    });
    if limited {
        fields["net_rx_max_rate"] = json!(LIMIT);
        fields["net_rx_burst"] = json!(BURST);
    }
    let spec = lab.spec_with(NAME, guests::bare(), &["egress-listen"], fields)?;
    let sliver = namespace.inside(|| lab.start_sliver(&spec))?;
    let socket = namespace.inside(|| packet_socket("tap0", 0).context("a packet socket"))?;
    let enough = AtomicBool::new(false);
    let measured = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let frame = vec![0xffu8; FRAME];
            let (start, mut sent) = (Instant::now(), 0u64);
            while !enough.load(Ordering::Relaxed) {
                let due = (start.elapsed().as_secs_f64() * FRAMES as f64) as u64;
                for _ in sent..due {
                    // A frame that finds the tap full is one that was sent.
                    let _ = rustix::io::write(&socket, &frame);
                }
                sent = due;
                thread::sleep(Duration::from_micros(200));
            }
            (sent * FRAME as u64) as f64 / start.elapsed().as_secs_f64()
        });
        let measured = measure(lab);
        enough.store(true, Ordering::Relaxed);
        let sent = sender.join().expect("the sender does not panic");
        measured.map(|measured| Flood { sent, ..measured })
    });
    sliver.stop()?;
    measured
}

/// Waits until the flood reaches the sliver, and tells what it costs.
fn measure(lab: &Lab) -> Result<Flood> {
    let look = || -> Result<(Instant, u64, u64)> {
        let status = lab.status(NAME)?;
        let used = status.cpu_us.guest + status.cpu_us.monitor;
        let traffic = status.net.context("the sliver has no card")?;
        Ok((Instant::now(), used, traffic.rx_bytes))
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while look().map_or(0, |(_, _, bytes)| bytes) == 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(SETTLING);
    let before = look()?;
    thread::sleep(COUNTED);
    let after = look()?;
    let seconds = (after.0 - before.0).as_secs_f64();
    Ok(Flood {
        processor: (after.1 - before.1) as f64 / 1e4 / seconds,
        received: (after.2 - before.2) as f64 / seconds,
        sent: 0.0,
    })
}
