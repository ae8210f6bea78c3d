//! The way out of a real slice, between network namespaces: the outside sees no ports but those that
//! are the sliver's, its answers arrive, and the node can tell whose each of them was.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use integration::artifacts;
use integration::cli::{Cli, assert_code, json, text};
use integration::needs_kvm;
use integration::receiver::Receiver;
use integration::sliver::until;
use integration::way_out::{NODE, OUTSIDE, WayOut, ports_of_node};
use serde_json::Value;
use vmm::net::ports::PortRange;

/// Where somebody outside listens.
const PORT: u16 = 9000;

/// The sliver's ports.
const PORTS: &str = "20000-20099";

/// Numbers of protocols.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A program outside that answers, until it is dropped.
struct Server(Child);

impl Server {
    fn start(world: &WayOut) -> Result<Self> {
        let program = artifacts::desktop("blast");
        let child = world.outside.inside(|| {
            let mut command = Command::new(program);
            command.args(["--listen", &PORT.to_string()]);
            Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?)
        })?;
        until("somebody listens", || {
            let listening = world.outside.inside(|| {
                let sockets = std::fs::read_to_string("/proc/thread-self/net/tcp6")?;
                let any = std::fs::read_to_string("/proc/thread-self/net/tcp")?;
                Ok([sockets, any].concat())
            });
            let port = format!(":{PORT:04X} ");
            listening.ok()?.contains(&port).then_some(())
        });
        Ok(Self(child))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_outside_sees_a_slice_s_own_ports_only_and_each_of_them_leads_to_it() {
    needs_kvm!();
    let world = WayOut::new().expect("namespaces are made (it needs root and ip)");
    let server = Server::start(&world).expect("somebody listens");
    let cli = Cli::set_up();
    let image = artifacts::image("blast").to_str().expect("a path is UTF-8");
    let to = format!("{OUTSIDE}:{PORT}");
    let net = format!("nat,ports={PORTS}");
    let run = |more: &[&str]| {
        let flags = ["run", image, "--no-build", "--net", &net, "--", "--connect"];
        let arguments = [&flags, &[&to, "--seconds", "0.5"][..], more].concat();
        let mut command = cli.command(&arguments);
        let output = world.node.inside(|| Ok(command.output()?));
        let output = output.expect("slicectl starts");
        assert_code(&output, 0);
        text(&output.stdout)
    };
    let ear = world.outside.inside(|| Ok(Receiver::on("eth0")?));
    let ear = ear.expect("somebody hears");
    // Datagrams come to it, once it has asked for them by one of its own and over a connection.
    let told = run(&["--udp", "--direction", "receive", "--rate", "1000000"]);
    let told: Value = serde_json::from_str(&told).expect("it tells what came");
    assert!(told["bytes"].as_u64() > Some(0), "{told}");
    drop(server);

    let range: PortRange = PORTS.parse().expect("a range");
    let mut seen = BTreeSet::new();
    while ear.take(Duration::ZERO, |heard| {
        seen.extend(ports_of_node(heard.head))
    }) > 0
    {}
    assert_eq!(ear.missed(), 0);
    let protocols: BTreeSet<u8> = seen.iter().map(|(protocol, ..)| *protocol).collect();
    assert_eq!(protocols, BTreeSet::from([TCP, UDP]));
    for (protocol, source, destination) in &seen {
        assert!(range.contains(*source), "{source} of protocol {protocol}");
        assert_eq!(*destination, PORT);
    }

    // Each port that was seen leads to the slice, and to the port that it used inside.
    let node = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    for (protocol, source, _) in &seen {
        for from in [&node, &NODE.to_string()] {
            let from = format!("{from}:{source}");
            let output = cli.run(&["flows", "--src", &from, "--json"]);
            assert_code(&output, 0);
            let flows = json(&output);
            let flows = flows.as_array().expect("a list").iter();
            let found: Vec<&Value> = flows
                .filter(|flow| flow["protocol"] == *protocol && flow["outside_port"] == *source)
                .collect();
            let [flow] = found[..] else {
                panic!("{from} was {found:?}")
            };
            assert_eq!(flow["public"], NODE.to_string());
            assert_eq!(flow["remote"], OUTSIDE.to_string());
            assert_eq!(flow["remote_port"], PORT);
            assert_eq!(flow["inside"], "10.0.2.15");
            assert_ne!(flow["inside_port"], *source);
            let packets = |which: &str| flow[which].as_u64().unwrap_or(0);
            assert!(packets("tx_packets") > 0 && packets("rx_packets") > 0);
            assert!(!flow["slice"].as_str().unwrap_or_default().is_empty());
            assert!(!flow["contact"].as_str().unwrap_or_default().is_empty());
        }
    }
    // A port of the range that it never had leads to nobody.
    let unused =
        { range.first()..=range.last() }.find(|port| seen.iter().all(|(_, seen, _)| seen != port));
    let unused = format!("{NODE}:{}", unused.expect("some are left"));
    assert_code(&cli.run(&["flows", "--src", &unused]), 1);
}
