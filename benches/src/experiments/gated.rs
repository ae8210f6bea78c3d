//! What the gate takes from the frames that a slice can send: a guest that only sends, as fast as its
//! card takes frames, with a guard and next to one without. Nobody takes the frames out again, so that
//! the card's thread is what holds them up.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration::guests;
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::metrics::{Bar, Experiment, Metric, Samples};
use integration::netns::Namespace;

/// How long frames go before they count, and for how long they count.
const SETTLING: Duration = Duration::from_millis(200);
const COUNTED: Duration = Duration::from_millis(500);

/// Name of the sliver.
const NAME: &str = "gated";

const fn metric(name: &'static str) -> Metric {
    Metric {
        name,
        unit: "us/frame",
        peer: "no guard",
        // 90 % of the throughput.
        bar: Bar::Ratio(1.111),
    }
}

pub(crate) const EXPERIMENTS: &[Experiment] = &[Experiment {
    metrics: &[
        metric("guard-send-64"),
        metric("guard-send-1500"),
        metric("guard-send-tso"),
    ],
    run,
}];

fn run(lab: &mut Lab) -> Result<Vec<Samples>> {
    let pairs = lab.pairs.min(if lab.quick { 6 } else { 20 });
    let mut samples = Vec::new();
    for (protocol, bytes) in [("udp", 60), ("udp", 1514), ("tcp", 54 + 44 * 1448)] {
        let quads = lab.interleave(
            &format!("frames of {bytes} bytes"),
            pairs,
            |lab| sent(lab, protocol, bytes, json!({})),
            |lab| sent(lab, protocol, bytes, json!({ "mode": "off" })),
        )?;
        samples.push(Samples::Paired {
            values: quads.iter().map(|quad| quad.map(|value| *value)).collect(),
            cpu_ms: Vec::new(),
        });
    }
    Ok(samples)
}

/// Microseconds for a frame.
fn sent(lab: &Lab, protocol: &str, bytes: usize, guard: Value) -> Result<f64> {
    let namespace = Namespace::new()?;
    namespace.ip("tuntap add tap0 mode tap vnet_hdr")?;
    namespace.ip("link set tap0 up")?;
    let fields = json!({
        "nets": [{ "tap": "tap0", "ipv4": "10.0.0.2/24", "gateway4": "10.0.0.1" }],
        "guard": guard,
    });
    let args = ["egress-flood", protocol, &bytes.to_string()];
    let spec = lab.spec_with(NAME, guests::bare(), &args, fields)?;
    let sliver = namespace.inside(|| lab.start_sliver(&spec))?;
    thread::sleep(SETTLING);
    let (before, since) = (frames(lab)?, Instant::now());
    thread::sleep(COUNTED);
    let (after, span) = (frames(lab)?, since.elapsed());
    sliver.stop()?;
    ensure!(after > before, "no frame was sent");
    Ok(span.as_secs_f64() * 1e6 / (after - before) as f64)
}

/// Frames that the card has sent.
fn frames(lab: &Lab) -> Result<u64> {
    let status = lab.status(NAME)?;
    let mut devices = status.devices.iter();
    let card = devices.find(|device| device.tag == "net0");
    Ok(card.context("the sliver has no card")?.counters["tx_frames"])
}
