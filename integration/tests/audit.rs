//! The audit of a node with real slivers on it, between network namespaces: what a slice has used
//! stays used, a block holds, a complaint leads to whom it is about, and a full disk is told of.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use integration::artifacts;
use integration::cli::{Cli, assert_code, json, text};
use integration::needs_kvm;
use integration::receiver::{Heard, Receiver};
use integration::sliver::until;
use integration::way_out::{NODE, OUTSIDE, WayOut, ports_of_node};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use vmm::net::ports::PortRange;

/// Where everything is sent. Nobody listens there: datagrams are heard all the same.
const PORT: u16 = 9000;

/// What a slice may send in a day, where it has an allowance.
const ALLOWANCE_KIB: u64 = 256;
const ALLOWANCE: u64 = ALLOWANCE_KIB << 10;

/// Calls: few flows, which last.
const CALLS: [&str; 4] = ["--profile", "voip", "--rate", "2000"];

/// Connections that are refused, one after the other: nothing but new flows.
const REFUSALS: [&str; 4] = ["--profile", "web", "--rate", "10000000"];

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

/// A node, and what is heard of it outside.
struct World {
    way_out: WayOut,
    ear: Ear,
    cli: Cli,
}

impl World {
    fn new() -> Result<Self> {
        let way_out = WayOut::new()?;
        let receiver = way_out.outside.inside(|| Ok(Receiver::on("eth0")?))?;
        Ok(Self {
            way_out,
            ear: Ear::new(receiver),
            cli: Cli::set_up(),
        })
    }

    /// A sliver of the slice that sends to the outside for so many seconds.
    fn sliver(&self, slice: Slice, name: &str, more: &[&str], load: &[&str]) -> Command {
        let image = artifacts::image("traffic");
        let net = format!("nat,ports={}", slice.ports);
        let to = format!("{OUTSIDE}:{PORT}");
        let flags = ["run", image.to_str().expect("a path is UTF-8")];
        let who = ["--no-build", "--name", name, "--slice", slice.name];
        let owner = ["--owner", slice.owner, "--contact", slice.contact];
        let net = ["--net", &net];
        let to = ["--", "--to", &to];
        self.cli
            .command(&[&flags, &who[..], &owner, &net, more, &to, load].concat())
    }

    /// Runs one that sends calls to its end.
    fn run(&self, slice: Slice, name: &str, more: &[&str], seconds: u32) -> Output {
        let seconds = seconds.to_string();
        let load = [&CALLS, &["--seconds", &seconds][..]].concat();
        let mut command = self.sliver(slice, name, more, &load);
        let output = self.way_out.node.inside(|| Ok(command.output()?));
        output.expect("slicectl starts")
    }

    /// Starts one, and lets it be.
    fn start(&self, slice: Slice, name: &str, more: &[&str], load: &[&str]) -> Sending {
        let load = [load, &["--seconds", "3600"]].concat();
        let mut command = self.sliver(slice, name, more, &load);
        let told = self.cli.place.path().join(format!("{name}.told"));
        let file = File::create(&told).expect("a file is made");
        command.stdout(Stdio::null()).stderr(file);
        let child = self.way_out.node.inside(|| Ok(command.spawn()?));
        let child = child.expect("slicectl starts");
        Sending { child, told }
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
struct Sending {
    child: Child,
    told: PathBuf,
}

impl Sending {
    /// Waits until its `slicectl` has said this.
    fn wait_until_told(&self, what: &str) {
        until(what, || {
            let told = fs::read_to_string(&self.told).ok()?;
            told.contains(what).then_some(())
        });
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.child);
        // Asked to end, so that it stores its last records and removes what it has made.
        let _ = kill_process(pid, Signal::TERM);
        let _ = self.child.wait();
    }
}

/// A small disk, until this is dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(place: PathBuf) -> Result<Self> {
        fs::create_dir(&place)?;
        let size = c"size=16m";
        mount("tmpfs", &place, "tmpfs", MountFlags::empty(), size)?;
        Ok(Self(place))
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Takes all of the room that there is.
    fn fill(&self) {
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(self.filler());
        let mut file = file.expect("a file is opened");
        let error = loop {
            if let Err(error) = file.write_all(&[0; 4096]) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::StorageFull);
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).expect("it was filled");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
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

    /// What was heard from a slice, if nothing more is while so many looks find more of the other,
    /// which sends a thousand datagrams in a second.
    fn silence(&self, slice: Slice, looks: usize) -> Option<Sum> {
        let before = self.heard(slice);
        for _ in 0..looks {
            self.wait_for_more(OTHER);
        }
        (self.heard(slice) == before).then_some(before)
    }

    /// Waits until more is heard from a slice.
    fn wait_for_more(&self, slice: Slice) {
        let before = self.heard(slice);
        until("more is heard", || {
            (self.heard(slice).frames > before.frames).then_some(())
        });
    }
}

/// The source port of a packet of the node, as it was heard.
fn port_of_node(head: &[u8]) -> Option<u16> {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    let (protocol, source, _) = ports_of_node(head)?;
    [TCP, UDP].contains(&protocol).then_some(source)
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

    let second = world.start(ONE, "second", &allowance, &CALLS);
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

    let _one = world.start(ONE, "one-2", &[], &CALLS);
    let _other = world.start(OTHER, "other-1", &[], &CALLS);
    world.ear.wait_for_more(ONE);
    world.ear.wait_for_more(OTHER);
    let (began, _) = now();
    block("add");
    let last = until("nothing more is heard", || world.ear.silence(ONE, 20));
    let after = last.last.saturating_sub(began);
    println!("the last frame came {after:?} after the block was asked for");

    block("rm");
    world.ear.wait_for_more(ONE);
    world.ear.wait_for_more(OTHER);
}

#[test]
fn a_full_disk_stops_a_strict_sliver_and_is_told_by_any() {
    needs_kvm!();
    let world = World::new().expect("namespaces are made (it needs root and ip)");
    let place = world.cli.place.path().join("small");
    let disk = Disk::mount(place).expect("a disk is mounted (it needs root)");
    let audit = disk.0.join("audit.sqlite");
    let audit = audit.to_str().expect("a path is UTF-8");
    let guard = world.cli.place.path().join("guard.json");
    let many = r#"{"flows_per_second": 1000000, "flows_burst": 10000000}"#;
    fs::write(&guard, many).expect("a file is written");
    let guard = guard.to_str().expect("a path is UTF-8");
    let strict = ["--audit", audit, "--guard", guard, "--strict-audit"];
    // A record is kept for each of its flows, and each of these has a port.
    let ports = "22000-32767";
    let one = Slice { ports, ..ONE };

    let other = world.start(OTHER, "other-1", &["--audit", audit], &CALLS);
    world.ear.wait_for_more(OTHER);
    let strict = world.start(one, "one-1", &strict, &REFUSALS);
    world.ear.wait_for_more(one);
    disk.fill();
    strict.wait_until_told("flows of one-1 are not recorded!");
    strict.wait_until_told("--strict-audit: one-1 is cut off");
    other.wait_until_told("flows of other-1 are not recorded!");
    other.wait_until_told("the disk is full");
    until("nothing more of the strict one is heard", || {
        // What SQLite gives back of its log is room, too.
        disk.fill();
        world.ear.silence(one, 500)
    });

    disk.make_room();
    world.ear.wait_for_more(one);
    world.ear.wait_for_more(OTHER);
    let (failed, cut_off) = ("audit_failed", "not_audited");
    for (kind, name) in [(failed, "one-1"), (failed, "other-1"), (cut_off, "one-1")] {
        until("the audit tells of it", || {
            let output = world.cli.run(&["events", "--kind", kind, "--audit", audit]);
            text(&output.stdout).contains(name).then_some(())
        });
    }
}
