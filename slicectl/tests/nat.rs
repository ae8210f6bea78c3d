//! The way out of a sliver, between network namespaces: the ports that the monitor chooses are those
//! that the outside sees, no two slivers have one in common, nothing leads in, and nothing is left.
//!
//! Needs to be root, and the programs ip and nft. Where they are not, SLICEVISOR_NO_NET=1 leaves
//! these tests out.

mod guest;
mod installed;
mod spaces;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command};
use std::thread;

use guest::{Guest, echo, tcp, udp};
use installed::Installed;
use rustix::process::{Pid, Signal, kill_process};
use slicectl::network::publish::{Protocol, Publish};
use slicectl::network::{Card, Network, Wanted, nat};
use spaces::{PATIENCE, can_run, inside, interfaces, wait_until};
use vmm::net::packet::Transport;
use vmm::net::packet::protocol::{ICMP, TCP, UDP};
use vmm::net::ports::PortRange;
use vmm::spec::Mac;

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// A node and the world, each in a namespace, with a cable between them.
struct World {
    node: OwnedFd,
    outside: OwnedFd,
}

impl World {
    fn new() -> Self {
        let world = Self {
            node: spaces::new(),
            outside: spaces::new(),
        };
        let far = format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            world.outside.as_raw_fd()
        );
        inside(world.node.as_fd(), || {
            ip("link set lo up");
            ip(&format!(
                "link add eth0 type veth peer name eth0 netns {far}"
            ));
            ip(&format!("addr add {NODE}/24 dev eth0"));
            ip("link set eth0 up");
            ip(&format!("route add default via {OUTSIDE}"));
            fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        });
        inside(world.outside.as_fd(), || {
            ip("link set lo up");
            ip(&format!("addr add {OUTSIDE}/24 dev eth0"));
            ip("link set eth0 up");
        });
        world
    }

    /// A sliver's network on the node.
    fn network(&self, sliver: &str, ports: Option<&str>) -> Network {
        let wanted = wanted(sliver, ports, Vec::new());
        inside(self.node.as_fd(), || Network::set_up(wanted)).unwrap()
    }

    /// Ends a network where it was made.
    fn end(&self, network: Network) {
        inside(self.node.as_fd(), || drop(network));
    }

    /// Interfaces of slivers on the node.
    fn links(&self) -> Vec<String> {
        let mut names = inside(self.node.as_fd(), interfaces);
        names.retain(|name| name.starts_with("slv"));
        names
    }

    /// Tables of the node's packet filter.
    fn tables(&self) -> Vec<String> {
        let listed = inside(self.node.as_fd(), || {
            Command::new("nft").args(["list", "tables"]).output()
        });
        let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
        listed.lines().map(str::to_owned).collect()
    }
}

fn ip(line: &str) {
    let status = Command::new("ip").args(line.split(' ')).status();
    assert!(status.expect("ip runs").success(), "ip {line}");
}

fn card() -> Card {
    Card {
        index: 0,
        mac: Mac::parse("02:00:00:00:00:05").unwrap(),
        mtu: 1500,
        guest: vec![GUEST.into()],
        host: vec![(GATEWAY.into(), 24)],
        leads_out: true,
    }
}

fn wanted(
    sliver: &str,
    ports: Option<&str>,
    listening: Vec<slicectl::network::publish::Listening>,
) -> Wanted {
    Wanted {
        cards: vec![card()],
        listening,
        target: Some(GUEST.into()),
        nat: Some(nat::Wanted {
            sliver: sliver.to_owned(),
            ports: ports.map(|ports| ports.parse().unwrap()),
            avoid: Vec::new(),
        }),
    }
}

/// A guest in a sliver's network.
fn guest(network: &Network) -> Guest {
    let tap = network.taps()[0].1.try_clone_to_owned().unwrap();
    let listed = inside(network.namespace().unwrap(), || {
        let command = Command::new("ip")
            .args(["-br", "link", "show", "tap0"])
            .output();
        String::from_utf8(command.unwrap().stdout).unwrap()
    });
    let gateway = Mac::parse(listed.split_whitespace().nth(2).unwrap()).unwrap();
    let ports = network.public().unwrap().ports;
    Guest::new(tap, MAC, gateway.bytes(), GUEST, ports)
}

#[test]
fn the_outside_sees_the_ports_that_the_monitor_has_chosen_and_its_answers_come_back() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let network = world.network("web-1", None);
    let public = network.public().unwrap();
    assert_eq!(public.address, Some(NODE));
    let mut guest = guest(&network);

    // Ports on both sides of all that kernels treat apart.
    for to in [53, 1500, 40_000] {
        let server = inside(world.outside.as_fd(), || {
            UdpSocket::bind((OUTSIDE, to)).unwrap()
        });
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        for from in (1024..1024 + 200).chain(public.ports.first()..public.ports.first() + 200) {
            let port = guest
                .send(OUTSIDE, UDP, &udp(from, to, b"question"))
                .unwrap();
            assert!(public.ports.contains(port));
            let mut datagram = [0; 100];
            let (len, source) = server.recv_from(&mut datagram).unwrap();
            assert_eq!(source, (NODE, port).into(), "from {from} to {to}");
            server.send_to(&datagram[..len], source).unwrap();
            let heard = guest.hear(|heard| match heard.transport {
                Transport::Udp {
                    source,
                    destination,
                } => Some((source, destination)),
                _ => None,
            });
            assert_eq!(heard, (to, from));
        }
    }

    let listener = inside(world.outside.as_fd(), || {
        TcpListener::bind((OUTSIDE, 80)).unwrap()
    });
    for from in [1025, 17_000, 40_000] {
        let port = guest.send(OUTSIDE, TCP, &tcp(from, 80, 1, 0, SYN)).unwrap();
        let (sequence, flags) = guest.hear(|heard| match heard.transport {
            Transport::Tcp {
                source: 80,
                destination,
                flags,
            } if destination == from => {
                let sequence = heard.bytes[4..8].try_into().unwrap();
                Some((u32::from_be_bytes(sequence), flags))
            }
            _ => None,
        });
        assert_eq!(flags, SYN | ACK);
        guest.send(
            OUTSIDE,
            TCP,
            &tcp(from, 80, 2, sequence.wrapping_add(1), ACK),
        );
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer, (NODE, port).into());
    }

    guest.send(OUTSIDE, ICMP, &echo(7)).unwrap();
    let id = guest.hear(|heard| match heard.transport {
        Transport::Icmp { kind: 0, id, .. } if heard.from == OUTSIDE => Some(id),
        _ => None,
    });
    assert_eq!(id, 7);

    // Nobody listens there: the error quotes what the guest has sent.
    guest.send(OUTSIDE, UDP, &udp(5000, 9, b"?")).unwrap();
    let quoted = guest.hear(|heard| match heard.transport {
        Transport::Icmp {
            kind: 3, code: 3, ..
        } => Some(heard.bytes[8 + 20..8 + 24].to_vec()),
        _ => None,
    });
    assert_eq!(
        quoted,
        [5000_u16.to_be_bytes(), 9_u16.to_be_bytes()].concat()
    );
}

#[test]
fn slivers_that_begin_at_once_have_no_port_in_common_and_a_name_keeps_its_range() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let network = world.network("web-1", None);
    let before = network.public().unwrap();
    world.end(network);
    wait_until("the link is gone", || world.links().is_empty());
    assert!(world.tables().is_empty());

    let networks: Vec<Network> = thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|i| {
                let world = &world;
                // All look for the same range first, and two for the same one only.
                let ports = (i >= 4).then_some("16400-16499");
                scope.spawn(move || {
                    let wanted = wanted("web-1", ports, Vec::new());
                    inside(world.node.as_fd(), || Network::set_up(wanted)).ok()
                })
            })
            .collect();
        let made = threads.into_iter().map(|thread| thread.join().unwrap());
        made.flatten().collect()
    });
    let ranges: Vec<PortRange> = networks
        .iter()
        .map(|network| network.public().unwrap().ports)
        .collect();
    assert_eq!(ranges.len(), 5, "{ranges:?}");
    for (i, range) in ranges.iter().enumerate() {
        assert!(ranges[..i].iter().all(|other| !range.overlaps(*other)));
    }
    assert!(ranges.contains(&before.ports));
    assert_eq!(world.links().len(), 5);

    // Part of another's range is as bad as all of it.
    let taken = before.ports.first() + 990;
    let over = format!("{taken}-{}", taken + 30);
    let wanted = wanted("x", Some(&over), Vec::new());
    let refused = inside(world.node.as_fd(), || Network::set_up(wanted));
    let told = refused.expect_err("taken").to_string();
    assert!(
        told.contains(&over) && told.contains("another sliver's"),
        "{told}"
    );

    networks.into_iter().for_each(|network| world.end(network));
    wait_until("the links are gone", || world.links().is_empty());
    assert!(world.tables().is_empty());
    assert_eq!(world.network("web-1", None).public(), Some(before));
}

#[test]
fn neither_the_node_nor_its_other_slivers_are_reached_and_nobody_reaches_in() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let network = world.network("web-1", None);
    let other = world.network("web-2", None);
    let listener = inside(world.node.as_fd(), || {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, 22)).unwrap()
    });
    listener.set_nonblocking(true).unwrap();
    let mut guest = guest(&network);
    // The other's link has the addresses that begin at twice its first port.
    let first = u32::from(other.public().unwrap().ports.first());
    let link = Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + first * 2);
    let sliver = Ipv4Addr::from_bits(link.to_bits() + 1);
    for (from, to) in [(1025, NODE), (1026, link), (1027, sliver)] {
        guest.send(to, TCP, &tcp(from, 22, 1, 0, SYN));
        let why = guest.hear(|heard| match heard.transport {
            Transport::Icmp { kind: 3, code, .. } => Some(code),
            Transport::Tcp { .. } => panic!("{to} answers"),
            _ => None,
        });
        assert_eq!(why, 13, "administratively prohibited");
    }
    assert!(listener.accept().is_err());

    // What nobody has asked for does not come in: neither at a port of the sliver's, nor by a
    // route to its link.
    let port = guest.send(OUTSIDE, UDP, &udp(1025, 9, b"?")).unwrap();
    let first = u32::from(network.public().unwrap().ports.first());
    let sliver = Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 1).to_bits() + first * 2);
    inside(world.outside.as_fd(), || {
        ip(&format!("route add {sliver} via {NODE}"));
        ip(&format!("route add {GUEST} via {NODE}"));
        let socket = UdpSocket::bind((OUTSIDE, 10)).unwrap();
        for to in [(NODE, port), (sliver, port), (GUEST, 1025)] {
            // A refusal of the one before is told here.
            let _ = socket.send_to(b"intruder", to);
        }
    });
    guest.send(OUTSIDE, ICMP, &echo(7)).unwrap();
    guest.hear(|heard| match heard.transport {
        Transport::Udp { .. } => panic!("something came in"),
        Transport::Icmp { kind: 0, .. } => Some(()),
        _ => None,
    });
}

#[test]
fn published_ports_lead_in_beside_the_way_out() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let publish = Publish {
        address: Some(IpAddr::V4(NODE)),
        host: 0,
        guest: 80,
        protocol: Protocol::Tcp,
    };
    let listening = inside(world.node.as_fd(), || publish.listen()).unwrap();
    let address = listening.address;
    let wanted = wanted("web-1", None, vec![listening]);
    let mut network = inside(world.node.as_fd(), || Network::set_up(wanted)).unwrap();
    network.begin();
    let mut guest = guest(&network);
    let mut client = inside(world.outside.as_fd(), || {
        TcpStream::connect(address).unwrap()
    });
    client.write_all(b"?").unwrap();
    let (port, sequence) = guest.hear(|heard| match heard.transport {
        Transport::Tcp {
            source,
            destination: 80,
            flags: SYN..,
        } if heard.from == GATEWAY => {
            let sequence = heard.bytes[4..8].try_into().unwrap();
            Some((source, u32::from_be_bytes(sequence)))
        }
        _ => None,
    });
    let outside = guest.send(
        GATEWAY,
        TCP,
        &tcp(80, port, 1, sequence.wrapping_add(1), SYN | ACK),
    );
    assert_eq!(outside, None, "it never leaves the node");
    guest.hear(|heard| heard.bytes.ends_with(b"?").then_some(()));
    guest.send(GATEWAY, TCP, &tcp(80, port, 2, 0, RST));
    let end = client.read_to_end(&mut Vec::new());
    assert!(end.is_err(), "a break is told as one");
}

/// A slicectl on the node.
struct Running {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
    ports: String,
}

fn start(world: &World, installed: &Installed, flags: &[&str]) -> Running {
    let mut command = installed.command(flags);
    let mut child = inside(world.node.as_fd(), || command.spawn()).unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    let ports = line
        .strip_prefix("slicectl: ports ")
        .and_then(|rest| rest.split(' ').next());
    let ports = ports.unwrap_or_else(|| panic!("no ports in {line:?}"));
    Running {
        child,
        stderr,
        ports: ports.to_owned(),
    }
}

fn signal(running: &Running, signal: Signal) {
    kill_process(Pid::from_child(&running.child), signal).unwrap();
}

#[test]
fn what_a_killed_slicectl_leaves_is_swept_by_the_next_and_a_stopped_one_leaves_nothing() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let installed = Installed::get();
    let mut killed = start(&world, &installed, &["--net", "nat", "--name", "killed-1"]);
    assert_eq!(world.links(), [format!("slv{}", killed.ports)]);
    assert_eq!(world.tables().len(), 1);
    signal(&killed, Signal::KILL);
    killed.child.wait().unwrap();
    wait_until("the link is gone", || world.links().is_empty());

    let mut stopped = start(&world, &installed, &["--net", "nat", "--name", "killed-1"]);
    assert_eq!(stopped.ports, killed.ports, "the same name, the same ports");
    assert_eq!(world.tables().len(), 1, "{:?}", world.tables());
    signal(&stopped, Signal::TERM);
    let status = stopped.child.wait().unwrap();
    let mut told = String::new();
    stopped.stderr.read_to_string(&mut told).unwrap();
    assert_eq!(status.code(), Some(143), "{told}");
    wait_until("the link is gone", || world.links().is_empty());
    assert!(world.tables().is_empty());
}

#[test]
fn a_node_that_does_not_forward_and_ports_that_it_uses_itself_are_refused_before_boot() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let installed = Installed::get();
    let refused = |flags: &[&str], status: i32, wanted: &str| {
        let mut command = installed.command(flags);
        let output = inside(world.node.as_fd(), || command.output()).unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{told}");
        assert!(told.contains(wanted), "{told}");
    };
    refused(
        &["--net", "nat,ports=40000-40099"],
        125,
        "--net nat,ports=40000-40099: this host's own connections begin at ports 32768-60999",
    );
    inside(world.node.as_fd(), || {
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    });
    refused(
        &["--net", "nat"],
        2,
        "--net nat: this host does not forward packets; sudo sysctl -w net.ipv4.ip_forward=1",
    );
    assert!(world.links().is_empty() && world.tables().is_empty());
}
