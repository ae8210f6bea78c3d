//! The network card: TCP between a slice and its host, next to iperf3 between two namespaces; how
//! long a byte takes there and back; and how often the guest leaves for a packet.
//!
//! Ours and the peer run in the same namespace, over a tap and over a veth pair with the same MTU.
//! Throughput is told as seconds for a GiB, so that less is better, as everywhere. And what a guard
//! takes from it, next to a slice that has none.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration::artifacts;
use serde_json::{Value, json};
use vmm::control::proto::Status;

use crate::lab::{Lab, Sliver, progress_done};
use crate::metrics::Samples;
use integration::netns::{Namespace, without_offloads};

/// Name of the sliver, and of one that is watched.
const NAME: &str = "net";
const GUARDED: &str = "net-guarded";
/// Where the guest serves.
const GUEST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2)), 9000);
/// Where the peer serves.
const PEER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
/// Port of the peer's echo.
const ECHO_PORT: u16 = 9001;
/// Port of iperf3.
const IPERF_PORT: u16 = 5201;

/// What the guest does for a connection, as `blast` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// It takes what comes, and at the end says in 8 bytes how much that was.
    Sink,
    /// It sends.
    Source,
    /// It gives back each byte.
    Echo,
}

impl Mode {
    /// What a client says first: a letter, bytes to send at once, bits a second.
    fn hello(self) -> Vec<u8> {
        let letter = match self {
            Self::Sink => b'>',
            Self::Source => b'<',
            Self::Echo => b'=',
        };
        let mut hello = vec![letter];
        hello.extend((256u32 << 10).to_le_bytes());
        hello.extend(0u64.to_le_bytes());
        hello
    }
}

/// Two namespaces, a veth pair between them, a tap with a slice in the first.
struct Bench {
    ours: Namespace,
    sliver: Option<Sliver>,
    iperf: Child,
    _peers: Namespace,
}

impl Bench {
    fn new(lab: &Lab, offloads: bool) -> Result<Self> {
        Self::with(lab, NAME, offloads, json!({}))
    }

    /// The same with another name, and with these fields in its spec.
    fn with(lab: &Lab, name: &str, offloads: bool, mut fields: Value) -> Result<Self> {
        let (ours, peers) = (Namespace::new()?, Namespace::new()?);
        ours.ip("tuntap add tap0 mode tap vnet_hdr")?;
        ours.ip("addr add 10.77.0.1/24 dev tap0")?;
        ours.ip(&format!(
            "link add veth0 type veth peer name veth1 netns {}",
            peers.path()
        ))?;
        ours.ip("addr add 10.78.0.1/24 dev veth0")?;
        peers.ip("addr add 10.78.0.2/24 dev veth1")?;
        if !offloads {
            without_offloads(&ours, "tap0")?;
            without_offloads(&ours, "veth0")?;
            without_offloads(&peers, "veth1")?;
        }
        ours.ip("link set tap0 up")?;
        ours.ip("link set veth0 up")?;
        peers.ip("link set veth1 up")?;
        let iperf = peers.inside(|| {
            let echo = TcpListener::bind((PEER, ECHO_PORT))?;
            thread::spawn(move || serve_echo(&echo));
            Command::new("iperf3")
                .args(["-s", "-p", &IPERF_PORT.to_string()])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("iperf3 (resources/setup.sh benches installs it)")
        })?;
        let card = json!({
            "tap": "tap0", "ipv4": "10.77.0.2/24", "gateway4": "10.77.0.1", "offloads": offloads,
        });
        let args = ["--listen", &GUEST.port().to_string()];
        let image = artifacts::image("blast");
        fields["nets"] = json!([card]);
        let spec = lab.spec_with(name, image, &args, fields)?;
        let sliver = ours.inside(|| lab.start_sliver(&spec))?;
        sliver.wait_for_output()?;
        Ok(Self {
            ours,
            sliver: Some(sliver),
            iperf,
            _peers: peers,
        })
    }

    fn connect(&self, mode: Mode) -> Result<TcpStream> {
        self.ours.inside(|| {
            let mut stream = TcpStream::connect(GUEST).context("the guest does not answer")?;
            stream.set_nodelay(true)?;
            stream.write_all(&mode.hello())?;
            Ok(stream)
        })
    }

    /// Seconds for a GiB to or from the guest.
    fn ours(&self, mode: Mode, length: Duration) -> Result<f64> {
        let mut stream = self.connect(mode)?;
        let mut buffer = vec![0; 256 << 10];
        let (start, mut bytes) = (Instant::now(), 0u64);
        while start.elapsed() < length {
            bytes += match mode {
                Mode::Sink => stream.write(&buffer)?,
                _ => stream.read(&mut buffer)?,
            } as u64;
        }
        if mode == Mode::Sink {
            // What is still under way does not count as carried before it has arrived.
            stream.shutdown(std::net::Shutdown::Write)?;
            let mut taken = [0; 8];
            stream.read_exact(&mut taken)?;
            ensure!(
                u64::from_le_bytes(taken) == bytes,
                "the guest took {taken:?} of {bytes} bytes"
            );
        }
        ensure!(bytes > 0, "the guest moved nothing");
        Ok(start.elapsed().as_secs_f64() / (bytes as f64 / f64::from(1 << 30)))
    }

    /// Seconds for a GiB between the namespaces.
    fn peer(&self, length: Duration) -> Result<f64> {
        let output = self.ours.inside(|| {
            Ok(Command::new("iperf3")
                .args(["-c", &PEER.to_string(), "-J", "-p", &IPERF_PORT.to_string()])
                .args(["-t", &length.as_secs().max(1).to_string()])
                .output()?)
        })?;
        let report: Value = serde_json::from_slice(&output.stdout).context("iperf3's report")?;
        let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
        let rate = rate.with_context(|| format!("iperf3 said: {}", report["error"]))?;
        Ok(f64::from(1 << 30) * 8.0 / rate)
    }

    /// Median microseconds of a byte there and back, with a pause before each.
    fn round_trip(&self, mut stream: TcpStream, count: usize, pause: Duration) -> Result<f64> {
        stream.set_nodelay(true)?;
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            if !pause.is_zero() {
                thread::sleep(pause);
            }
            let start = Instant::now();
            stream.write_all(b"x")?;
            stream.read_exact(&mut [0])?;
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[count / 2])
    }

    fn peer_stream(&self) -> Result<TcpStream> {
        self.ours
            .inside(|| Ok(TcpStream::connect((PEER, ECHO_PORT))?))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.iperf.kill();
        let _ = self.iperf.wait();
        if let Some(sliver) = self.sliver.take() {
            let _ = sliver.stop();
        }
    }
}

fn serve_echo(listener: &TcpListener) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        let _ = stream.set_nodelay(true);
        thread::spawn(move || {
            let mut byte = [0];
            while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
        });
    }
}

/// Without offloads: throughput both ways, round trips, and exits per packet.
pub(crate) fn plain(lab: &mut Lab) -> Result<Vec<Samples>> {
    let bench = Bench::new(lab, false)?;
    let mut samples = throughput(lab, &bench)?;
    let exits = exits_per_packet(lab, &bench)?;
    for (what, count, pause) in [
        ("round trips", 2000, Duration::ZERO),
        ("round trips from sleep", 60, Duration::from_millis(5)),
    ] {
        let pairs = lab.pairs.min(if lab.quick { 4 } else { 20 });
        let quads = lab.interleave(
            what,
            pairs,
            |_| bench.round_trip(bench.connect(Mode::Echo)?, count, pause),
            |_| bench.round_trip(bench.peer_stream()?, count, pause),
        )?;
        samples.push(paired(&quads));
    }
    samples.push(Samples::Alone(exits));
    Ok(samples)
}

/// With offloads on both sides: throughput both ways.
pub(crate) fn offloaded(lab: &mut Lab) -> Result<Vec<Samples>> {
    let bench = Bench::new(lab, true)?;
    throughput(lab, &bench)
}

/// With offloads and without: a slice with a guard, next to one without.
pub(crate) fn guarded(lab: &mut Lab) -> Result<Vec<Samples>> {
    let pairs = lab.pairs.min(if lab.quick { 4 } else { 10 });
    let length = Duration::from_secs(1);
    let mut samples = Vec::new();
    for offloads in [false, true] {
        let watched = Bench::with(lab, GUARDED, offloads, json!({ "guard": {} }))?;
        let free = Bench::with(lab, NAME, offloads, json!({ "guard": { "mode": "off" } }))?;
        for (what, mode) in [
            ("TCP from a slice with a guard", Mode::Source),
            ("TCP to a slice with a guard", Mode::Sink),
        ] {
            let quads = lab.interleave(
                what,
                pairs,
                |_| watched.ours(mode, length),
                |_| free.ours(mode, length),
            )?;
            samples.push(paired(&quads));
        }
    }
    Ok(samples)
}

fn throughput(lab: &mut Lab, bench: &Bench) -> Result<Vec<Samples>> {
    let pairs = lab.pairs.min(if lab.quick { 4 } else { 10 });
    let length = Duration::from_secs(1);
    let mut samples = Vec::new();
    for (what, mode) in [
        ("TCP from the slice", Mode::Source),
        ("TCP to the slice", Mode::Sink),
    ] {
        let quads = lab.interleave(
            what,
            pairs,
            |_| bench.ours(mode, length),
            |_| bench.peer(length),
        )?;
        samples.push(paired(&quads));
    }
    Ok(samples)
}

/// Exits of the guest for each packet that its card carries, in either direction, under load.
fn exits_per_packet(lab: &Lab, bench: &Bench) -> Result<Vec<f64>> {
    let mut samples = Vec::new();
    for mode in [Mode::Source, Mode::Sink] {
        let before = lab.status(NAME)?;
        bench.ours(mode, Duration::from_secs(1))?;
        let after = lab.status(NAME)?;
        let exits = exits(&after) - exits(&before);
        let packets = packets(&after)? - packets(&before)?;
        progress_done(&format!(
            "{mode:?}: {packets} packets, {exits} exits, of them doorbells and registers {}",
            after.exits.device_writes - before.exits.device_writes
        ));
        ensure!(packets > 0, "no packets were counted");
        samples.push(exits as f64 / packets as f64);
    }
    Ok(samples)
}

fn exits(status: &Status) -> u64 {
    let exits = status.exits;
    exits.device_writes + exits.device_reads + exits.idle + exits.other
}

fn packets(status: &Status) -> Result<u64> {
    let card = status.devices.iter().find(|device| device.tag == "net0");
    let counters = &card.context("the sliver has no card")?.counters;
    Ok(counters["rx_frames"] + counters["tx_frames"])
}

fn paired(quads: &[crate::lab::QuadOf<f64>]) -> Samples {
    Samples::Paired {
        values: quads.iter().map(|quad| quad.map(|value| *value)).collect(),
        cpu_ms: Vec::new(),
    }
}
