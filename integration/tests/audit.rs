//! The audit of a node with real slivers on it, between network namespaces: what a slice has used
//! stays used, a block holds, and a complaint leads to whom it is about.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use integration::artifacts;
use integration::cli::{Cli, assert_code, json, text};
use integration::needs_kvm;
use integration::netns::Namespace;
use integration::receiver::{Heard, Receiver};
use integration::sliver::until;
use serde_json::Value;
use vmm::net::ports::PortRange;

/// The node, and somebody outside: of addresses that guards take for public. Nothing leaves here.
const NODE: Ipv4Addr = Ipv4Addr::new(11, 0, 0, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(11, 0, 0, 9);

/// Where everything is sent. Nobody listens there: datagrams are heard all the same.
const PORT: u16 = 9000;

/// What a slice may send in a day, where it has an allowance.
const ALLOWANCE_KIB: u64 = 256;
const ALLOWANCE: u64 = ALLOWANCE_KIB << 10;

/// A slice with a sliver on the node, and the ports by which the outside tells it from others.
#[derive(Debug, Clone, Copy)]
struct Slice {
    name: &'static str,
    owner: &'static str,
    contact: &'static str,
    ports: &'static str,
}

const ONE: Slice = Slice {
    name: "test_one",
    owner: "ada",
    contact: "ada@one.example",
    ports: "20000-20099",
};

const OTHER: Slice = Slice {
    name: "test_other",
    owner: "grace",
    contact: "grace@other.example",
    ports: "21000-21099",
};

/// A node and somebody outside, with a cable between them.
struct World {
    node: Namespace,
    ear: Ear,
    cli: Cli,
    /// The cable ends there.
    _outside: Namespace,
}

impl World {
    fn new() -> Result<Self> {
        let (node, outside) = (Namespace::new()?, Namespace::new()?);
        let far = outside.path();
        node.ip(&format!(
            "link add eth0 type veth peer name eth0 netns {far}"
        ))?;
        for (namespace, address) in [(&node, NODE), (&outside, OUTSIDE)] {
            namespace.ip(&format!("addr add {address}/24 dev eth0"))?;
            namespace.ip("link set eth0 up")?;
        }
        node.ip(&format!("route add default via {OUTSIDE}"))?;
        node.inside(|| Ok(std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?))?;
        let receiver = outside.inside(|| Ok(Receiver::on("eth0")?))?;
        let cli = Cli::set_up();
        Ok(Self {
            node,
            ear: Ear::new(receiver),
            cli,
            _outside: outside,
        })
    }

    /// A sliver of the slice that sends calls to the outside for so many seconds.
    fn sliver(&self, slice: Slice, name: &str, more: &[&str], seconds: u32) -> Command {
        let image = artifacts::image("traffic");
        let net = format!("nat,ports={}", slice.ports);
        let to = format!("{OUTSIDE}:{PORT}");
        let seconds = seconds.to_string();
        let flags = ["run", image.to_str().expect("a path is UTF-8")];
        let who = ["--no-build", "--name", name, "--slice", slice.name];
        let owner = ["--owner", slice.owner, "--contact", slice.contact];
        let calls = ["--net", &net, "--profile", "voip", "--rate", "2000"];
        let (net, calls) = calls.split_at(2);
        let to = ["--seconds", &seconds, "--to", &to];
        let arguments = [&flags, &who[..], &owner, net, more, &["--"], calls, &to].concat();
        self.cli.command(&arguments)
    }

    /// Runs it to its end.
    fn run(&self, slice: Slice, name: &str, more: &[&str], seconds: u32) -> Output {
        let mut command = self.sliver(slice, name, more, seconds);
        let output = self.node.inside(|| Ok(command.output()?));
        output.expect("slicectl starts")
    }

    /// Starts it, and lets it be.
    fn start(&self, slice: Slice, name: &str, more: &[&str]) -> Sending {
        let mut command = self.sliver(slice, name, more, 3600);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = self.node.inside(|| Ok(command.spawn()?));
        Sending(child.expect("slicectl starts"))
    }

    /// What `status` tells of a running sliver's traffic, once it tells.
    fn traffic(&self, name: &str) -> Value {
        until("a sliver tells of its traffic", || {
            let output = self.cli.run(&["status", name, "--json"]);
            let status: Value = serde_json::from_slice(&output.stdout).ok()?;
            status.get("net").filter(|net| net.is_object()).cloned()
        })
    }
}

/// A sliver that sends, until this is dropped.
struct Sending(Child);

impl Drop for Sending {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        // Asked to end, so that it stores its last records and removes what it has made.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

/// What the outside has heard of the node, by the port that it came from.
struct Ear {
    receiver: Receiver,
    heard: RefCell<BTreeMap<u16, Sum>>,
}

/// What came from a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    frames: u64,
    bytes: u64,
    /// When the last of it came, since 1970.
    last: Duration,
}

impl Ear {
    fn new(receiver: Receiver) -> Self {
        let heard = RefCell::default();
        Self { receiver, heard }
    }

    /// All that was heard from a slice so far.
    fn heard(&self, slice: Slice) -> Sum {
        let mut heard = self.heard.borrow_mut();
        let mut add = |frame: Heard<'_>| {
            if let Some(port) = port_of_node(frame.head) {
                let sum = heard.entry(port).or_default();
                sum.frames += 1;
                sum.bytes += frame.len as u64;
                sum.last = sum.last.max(frame.at);
            }
        };
        while self.receiver.take(Duration::ZERO, &mut add) > 0 {}
        assert_eq!(self.receiver.missed(), 0);
        let range: PortRange = slice.ports.parse().expect("a range");
        let of_it = heard.range(range.first()..=range.last());
        of_it.fold(Sum::default(), |all, (_, sum)| Sum {
            frames: all.frames + sum.frames,
            bytes: all.bytes + sum.bytes,
            last: all.last.max(sum.last),
        })
    }

    /// Waits until more is heard from a slice.
    fn wait_for_more(&self, slice: Slice) {
        let before = self.heard(slice);
        until("more is heard", || {
            (self.heard(slice).frames > before.frames).then_some(())
        });
    }
}

/// The source port of a datagram of the node, as it was heard.
fn port_of_node(head: &[u8]) -> Option<u16> {
    const UDP: u8 = 17;
    let packet = head.get(14..)?;
    let is_of_node = head[12..14] == [8, 0] && packet.get(12..16)? == NODE.octets();
    let port = packet.get(usize::from(packet[0] & 15) * 4..)?;
    let port = u16::from_be_bytes([*port.first()?, *port.get(1)?]);
    (is_of_node && packet[9] == UDP).then_some(port)
}

/// Now, and the day since 1970.
fn now() -> (Duration, u64) {
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("it is after 1970");
    (now, now.as_secs() / 86_400)
}

#[test]
fn an_allowance_is_not_renewed_by_a_new_sliver() {
    needs_kvm!();
    let world = World::new().expect("namespaces are made (it needs root and ip)");
    let (_, day) = now();
    let allowance = format!("{ALLOWANCE_KIB}K");
    let allowance = ["--net-allowance", &allowance, "--for", "20s"];
    let threshold = ALLOWANCE / 10 * 9;

    // It would send four times as much.
    world.run(ONE, "first", &allowance, 4);
    let used = world.ear.heard(ONE).bytes;
    assert!(used >= threshold * 99 / 100, "{used}");

    let second = world.start(ONE, "second", &allowance);
    let told = world.traffic("second");
    let renewed = told["day"].as_u64() != Some(day);
    assert!(
        renewed || told["used_today"].as_u64() >= Some(used),
        "{told}"
    );
    // Another slice has its own, and while it uses that the second has time to send.
    world.run(OTHER, "third", &allowance, 4);
    let others = world.ear.heard(OTHER).bytes;
    assert!(others >= threshold * 99 / 100, "{others}");
    drop(second);

    let days = now().1 - day + 1;
    for slice in [ONE, OTHER] {
        let heard = world.ear.heard(slice).bytes;
        assert!(
            heard * 1000 <= days * ALLOWANCE * 1005,
            "{heard} of {slice:?}"
        );
    }
}

#[test]
fn a_complaint_leads_to_slice_owner_and_flows() {
    needs_kvm!();
    let world = World::new().expect("namespaces are made (it needs root and ip)");
    for (slice, name) in [(ONE, "one-1"), (OTHER, "other-1")] {
        assert_code(&world.run(slice, name, &[], 1), 0);
    }
    for slice in [ONE, OTHER] {
        let heard = world.ear.heard(slice);
        assert!(heard.frames > 0);
        let at = format!("@{}", heard.last.as_secs());
        let ports: Vec<u16> = { world.ear.heard.borrow() }.keys().copied().collect();
        let range: PortRange = slice.ports.parse().expect("a range");
        for port in ports.into_iter().filter(|port| range.contains(*port)) {
            let (from, to) = (format!("{NODE}:{port}"), OUTSIDE.to_string());
            let about = ["flows", "--dst", &to, "--src", &from, "--at", &at, "--json"];
            let output = world.cli.run(&about);
            assert_code(&output, 0);
            let flows = json(&output);
            let flows = flows.as_array().expect("a list");
            assert!(!flows.is_empty(), "{}", text(&output.stdout));
            for flow in flows {
                assert_eq!(flow["slice"], slice.name);
                assert_eq!(flow["owner"], slice.owner);
                assert_eq!(flow["contact"], slice.contact);
                assert_eq!(flow["outside_port"], port);
                assert_eq!(flow["remote_port"], PORT);
            }
            let packets = flows.iter().filter_map(|flow| flow["tx_packets"].as_u64());
            let heard = world.ear.heard.borrow()[&port].frames;
            assert!(packets.sum::<u64>() >= heard, "{flows:?}");
        }
    }
}

#[test]
fn a_block_holds_from_the_first_packet_and_on_a_sliver_that_runs() {
    needs_kvm!();
    let world = World::new().expect("namespaces are made (it needs root and ip)");
    let prefix = format!("{OUTSIDE}/32");
    let block = |verb: &str| {
        let output = world
            .cli
            .run(&["block", verb, &prefix, "--slice", ONE.name]);
        assert_code(&output, 0);
    };

    block("add");
    world.run(ONE, "one-1", &[], 2);
    assert_eq!(world.ear.heard(ONE), Sum::default());
    block("rm");

    let _one = world.start(ONE, "one-2", &[]);
    let _other = world.start(OTHER, "other-1", &[]);
    world.ear.wait_for_more(ONE);
    world.ear.wait_for_more(OTHER);
    let (began, _) = now();
    block("add");
    let last = until("nothing more is heard", || {
        let before = world.ear.heard(ONE);
        // Each of these is another frame of one that sends as fast.
        for _ in 0..20 {
            world.ear.wait_for_more(OTHER);
        }
        (world.ear.heard(ONE) == before).then_some(before)
    });
    let after = last.last.saturating_sub(began);
    println!("the last frame came {after:?} after the block was asked for");

    block("rm");
    world.ear.wait_for_more(ONE);
    world.ear.wait_for_more(OTHER);
}
