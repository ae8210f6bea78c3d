//! PlanetLab's examples of shares, by real slivers that all send what they can through an uplink of
//! 10 Mbit/s: five with a share of 1 beside the node's own traffic with 5, the same while the node is
//! silent, and two of which one has a reserve. What each got is counted at the far end of the uplink,
//! by the hardware address that it came from.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration::guests;
use integration::receiver::Receiver;
use integration::taps::packet_socket;
use serde_json::json;

use crate::lab::{Lab, Surroundings};
use crate::metrics::{Bar, Experiment, Metric, Samples};
use integration::netns::Namespace;

/// The uplink, in kbit/s.
const UPLINK: u64 = 10_000;

/// Bytes of each frame.
const FRAME: usize = 1514;

/// How long rates settle, and for how long it is counted.
const SETTLING: Duration = Duration::from_secs(2);
const COUNTED: Duration = Duration::from_secs(5);

/// The node's hardware address.
const NODE: [u8; 6] = [2, 0, 0, 0, 2, 1];

/// A sliver that wants all.
#[derive(Debug, Clone, Copy)]
struct Wants {
    /// Its reserve, in kbit/s.
    reserve: u64,
    /// What it is due, in kbit/s.
    due: u64,
}

/// An example.
struct Example {
    /// What the node itself sends, in kbit/s.
    node: u64,
    slivers: &'static [Wants],
}

const fn metric(name: &'static str) -> Metric {
    Metric {
        name,
        unit: "% off",
        peer: "-",
        bar: Bar::Value(3.0),
    }
}

pub(crate) const EXPERIMENTS: &[Experiment] = &[
    Experiment {
        metrics: &[metric("uplink-node-5-slices-1-each")],
        run: |lab| {
            let slivers = &[Wants {
                reserve: 0,
                due: 1000,
            }; 5];
            measure(
                lab,
                &Example {
                    node: 5000,
                    slivers,
                },
            )
        },
    },
    Experiment {
        metrics: &[metric("uplink-node-silent-slices-2-each")],
        run: |lab| {
            let slivers = &[Wants {
                reserve: 0,
                due: 2000,
            }; 5];
            measure(lab, &Example { node: 0, slivers })
        },
    },
    Experiment {
        metrics: &[metric("uplink-reserve-6-and-4")],
        run: |lab| {
            let slivers = &[
                Wants {
                    reserve: 2000,
                    due: 6000,
                },
                Wants {
                    reserve: 0,
                    due: 4000,
                },
            ];
            measure(lab, &Example { node: 0, slivers })
        },
    },
];

fn measure(lab: &mut Lab, example: &Example) -> Result<Vec<Samples>> {
    let times = if lab.quick { 2 } else { 6 };
    let what = format!("shares of an uplink, {} slivers", example.slivers.len());
    let errors = lab.repeat(&what, times, |lab| once(lab, example))?;
    Ok(vec![Samples::Alone(errors)])
}

/// The error of the sliver that is farthest from its due, in percent of that.
fn once(lab: &Lab, example: &Example) -> Result<f64> {
    let (node, outside) = (Namespace::new()?, Namespace::new()?);
    for namespace in [&node, &outside] {
        // Nothing is sent there but what is counted.
        let silence = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
        namespace.inside(|| Ok(fs::write(silence, "1")?))?;
    }
    node.ip("link add bridge0 type bridge mcast_snooping 0")?;
    node.ip("link set bridge0 up")?;
    let far = outside.path();
    node.ip(&format!("link add up0 type veth peer name up1 netns {far}"))?;
    node.ip("link set up0 master bridge0 up")?;
    outside.ip("link set up1 up")?;
    let ear = outside.inside(|| Ok(Receiver::on("up1")?))?;
    let mut slivers = Vec::new();
    for (index, wants) in example.slivers.iter().enumerate() {
        let (name, tap) = (format!("uplink-{index}"), format!("tap{index}"));
        node.ip(&format!("tuntap add {tap} mode tap vnet_hdr"))?;
        node.ip(&format!("link set {tap} master bridge0 up"))?;
        let fields = json!({
            "nets": [{ "tap": tap, "mac": text(mac(index)) }],
            "uplink": { "interface": "up0", "rate": UPLINK },
            "net_min_rate": wants.reserve,
            "net_max_kbyte": "none",
            // They all say that they are one.
            "guard": { "mode": "off" },
        });
        let args = ["egress-flood", "udp", &FRAME.to_string()];
        let spec = lab.spec_with(&name, guests::bare(), &args, fields)?;
        let around = Surroundings {
            rivals: true,
            namespaced: true,
            ..Surroundings::USUAL
        };
        slivers.push(node.inside(|| lab.start(&spec, around))?);
    }
    let socket = node.inside(|| packet_socket("up0", 0).context("a packet socket"))?;
    let enough = AtomicBool::new(false);
    let got = thread::scope(|scope| {
        scope.spawn(|| send_as_node(&socket, example.node, &enough));
        let got = count(&ear);
        enough.store(true, Ordering::Relaxed);
        got
    });
    for sliver in slivers {
        sliver.stop()?;
    }
    let got = got?;
    let errors = example.slivers.iter().enumerate().map(|(index, wants)| {
        let kbit = got.get(&mac(index)).copied().unwrap_or(0.0);
        100.0 * (kbit / wants.due as f64 - 1.0).abs()
    });
    Ok(errors.fold(0.0, f64::max))
}

/// Sends at a rate until it is enough.
fn send_as_node(socket: &impl std::os::fd::AsFd, kbit: u64, enough: &AtomicBool) {
    let mut frame = vec![0; FRAME];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[6..12].copy_from_slice(&NODE);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    let start = Instant::now();
    let mut sent = 0;
    while !enough.load(Ordering::Relaxed) {
        let due = start.elapsed().as_secs_f64() * kbit as f64 * 1000.0 / 8.0;
        while (sent as f64) < due {
            // A frame that finds no room is lost, as it would be.
            let _ = rustix::io::write(socket, &frame);
            sent += FRAME;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// What came from each address, in kbit/s, once that has settled.
fn count(ear: &Receiver) -> Result<BTreeMap<[u8; 6], f64>> {
    let patience = Duration::from_millis(50);
    let start = Instant::now();
    while start.elapsed() < SETTLING {
        ear.take(patience, |_| {});
    }
    let mut bytes: BTreeMap<[u8; 6], usize> = BTreeMap::new();
    let counting = Instant::now();
    while counting.elapsed() < COUNTED {
        ear.take(patience, |heard| {
            if let Some(from) = heard.head.get(6..12).and_then(|mac| mac.try_into().ok()) {
                *bytes.entry(from).or_default() += heard.len;
            }
        });
    }
    let seconds = counting.elapsed().as_secs_f64();
    let missed = ear.missed();
    ensure!(missed == 0, "{missed} frames were not heard");
    let rates = bytes.into_iter();
    Ok(rates
        .map(|(mac, bytes)| (mac, bytes as f64 * 8.0 / 1000.0 / seconds))
        .collect())
}

fn mac(index: usize) -> [u8; 6] {
    [2, 0, 0, 0, 1, index as u8]
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
