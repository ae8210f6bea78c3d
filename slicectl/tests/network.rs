//! A sliver's network as the host sees it: the tap in its own namespace, what is carried into it,
//! and that nothing is left of it, whichever process is killed. The monitor is a stand-in here: a
//! program that holds what it was given until its tie ends.
//!
//! Needs to be root. Where it is not, SLICEVISOR_NO_NET=1 leaves these tests out.

mod installed;
mod spaces;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use installed::Installed;
use rustix::net::netdevice::name_to_index;
use slicectl::network::publish::{Protocol, Publish};
use slicectl::network::{Card, Network, Wanted, tap};
use spaces::{PATIENCE, can_run, inside, interfaces, wait_until};
use vmm::spec::{Mac, TapName};

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

fn card() -> Card {
    Card {
        index: 0,
        mac: Mac::parse("02:00:00:00:00:05").unwrap(),
        mtu: 1400,
        guest: vec![GUEST.into()],
        host: vec![(HOST.into(), 24)],
        leads_out: false,
    }
}

fn publish(guest: u16) -> Publish {
    Publish {
        address: Some(HERE.into()),
        host: 0,
        guest,
        protocol: Protocol::Tcp,
    }
}

fn has_tap(namespace: BorrowedFd<'_>) -> bool {
    inside(namespace, || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        name_to_index(socket.as_fd(), "tap0").is_ok()
    })
}

#[test]
fn a_tap_of_its_own_is_in_a_namespace_of_its_own_and_ends_with_its_descriptor() {
    if !can_run() {
        return;
    }
    let before = interfaces();
    let mut network = Network::set_up(Wanted {
        cards: vec![card()],
        ..Wanted::default()
    })
    .unwrap();
    let namespace = network.namespace().unwrap().try_clone_to_owned().unwrap();
    assert_eq!(interfaces(), before);
    assert_eq!(inside(namespace.as_fd(), interfaces), ["lo", "tap0"]);

    // A packet goes out at once, to the right card: nobody has to ask who has the address.
    inside(namespace.as_fd(), || {
        let socket = UdpSocket::bind((HOST, 0)).unwrap();
        socket.send_to(b"hello", (GUEST, 7)).unwrap();
    });
    let tap = network.taps()[0].1.try_clone_to_owned().unwrap();
    let mut frame = [0; 2000];
    // 10 bytes of virtio's header come before the frame.
    let len = File::from(tap).read(&mut frame).unwrap();
    let frame = &frame[10..len];
    assert_eq!(frame[..6], [2, 0, 0, 0, 0, 5]);
    assert_eq!(frame[12..14], [0x08, 0x00], "an IPv4 packet");
    assert!(frame.ends_with(b"hello"));

    network.let_go_of_taps();
    wait_until("the tap is gone", || !has_tap(namespace.as_fd()));
    assert!(network.finish() > Duration::ZERO);
}

#[test]
fn a_tap_in_use_and_what_is_no_tap_are_refused_by_name() {
    if !can_run() {
        return;
    }
    let network = Network::set_up(Wanted {
        cards: vec![card()],
        ..Wanted::default()
    })
    .unwrap();
    inside(network.namespace().unwrap(), || {
        let told = |name| {
            let name = TapName::parse(name).expect("a name");
            tap::check(&name).expect_err("refused").to_string()
        };
        assert!(told("tap0").starts_with("--net tap=tap0: is in use"));
        assert!(told("lo").starts_with("--net tap=lo: is no tap"));
        assert!(told("tap1").starts_with("--net tap=tap1: there is no such interface"));
        assert_eq!(interfaces(), ["lo", "tap0"], "asking has made none");
    });
}

#[test]
fn twenty_thousand_connections_into_the_namespace_all_arrive() {
    const CLIENTS: usize = 64;
    const REQUESTS: usize = 20_000;
    if !can_run() {
        return;
    }
    const PORT: u16 = 80;
    let listening = publish(PORT).listen().unwrap();
    let address = listening.address;
    let mut network = Network::set_up(Wanted {
        cards: vec![card()],
        listening: vec![listening],
        // The host's own address in there: a server in the place of a guest.
        target: Some(HOST.into()),
        nat: None,
    })
    .unwrap();
    network.begin();
    let namespace = network.namespace().unwrap().try_clone_to_owned().unwrap();
    // Clients are there first, as when a guest boots.
    let early = TcpStream::connect(address).unwrap();
    let listener = inside(namespace.as_fd(), || {
        TcpListener::bind((HOST, PORT)).unwrap()
    });
    for _ in 0..4 {
        let listener = listener.try_clone().unwrap();
        thread::spawn(move || serve(&listener));
    }
    ask(early);
    let asked = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while asked.fetch_add(1, Ordering::Relaxed) < REQUESTS {
                    ask(TcpStream::connect(address).unwrap());
                }
            });
        }
    });
    let time = network.finish();
    println!(
        "{} us of processor time for each",
        time.as_micros() / REQUESTS as u128
    );
}

fn serve(listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut request = [0; 4];
        stream.read_exact(&mut request).unwrap();
        stream.write_all(b"answer").unwrap();
    }
}

fn ask(mut stream: TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"ask?").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"answer");
}

/// Starts a sliver with a published port.
fn start(installed: &Installed) -> Running {
    let mut child = installed
        .command(&["--publish", "127.0.0.1:0:80"])
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut line).unwrap();
    let port = line.strip_prefix("slicectl: tcp port ");
    let port = port.and_then(|rest| rest.split(' ').next()?.parse().ok());
    let port = port.unwrap_or_else(|| panic!("no port in {line:?}"));
    let running = Running {
        child,
        port,
        stderr,
    };
    wait_until("the monitor runs", || running.monitor().is_some());
    running
}

/// A running slicectl.
struct Running {
    child: Child,
    port: u16,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Running {
    fn process(&self) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string())
    }

    /// The namespace that its thread is in.
    fn namespace(&self) -> OwnedFd {
        let tasks = fs::read_dir(self.process().join("task")).unwrap();
        let task = tasks.flatten().map(|task| task.path()).find(|task| {
            fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "network\n")
        });
        File::open(task.expect("a thread for the network").join("ns/net"))
            .unwrap()
            .into()
    }

    /// The number of the stand-in, once it is one.
    fn monitor(&self) -> Option<u32> {
        let children = self
            .process()
            .join(format!("task/{}/children", self.child.id()));
        let children = fs::read_to_string(children).ok()?;
        let number = children.split_whitespace().next()?;
        // Until it is one, it looks like its parent.
        let line = fs::read_to_string(format!("/proc/{number}/cmdline")).ok()?;
        line.starts_with("slicevmm\0")
            .then(|| number.parse().unwrap())
    }
}

/// Whether a process runs: one that is dead may wait for its parent to notice.
fn lives(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = status.rsplit(')').next().unwrap_or_default().trim_start();
    !state.is_empty() && !state.starts_with('Z')
}

fn listens(port: u16) -> bool {
    TcpStream::connect(SocketAddr::new(IpAddr::V4(HERE), port)).is_ok()
}

#[test]
fn nothing_is_left_when_slicectl_is_killed() {
    if !can_run() {
        return;
    }
    let before = interfaces();
    let installed = Installed::get();
    let mut running = start(&installed);
    let monitor = running.monitor().unwrap();
    let namespace = running.namespace();
    assert!(has_tap(namespace.as_fd()) && listens(running.port) && lives(monitor));
    assert_eq!(interfaces(), before);

    running.child.kill().unwrap();
    running.child.wait().unwrap();
    wait_until("the monitor is gone", || !lives(monitor));
    wait_until("the tap is gone", || !has_tap(namespace.as_fd()));
    assert!(!listens(running.port));
    assert_eq!(interfaces(), before);
}

#[test]
fn nothing_is_left_when_the_monitor_is_killed() {
    if !can_run() {
        return;
    }
    let installed = Installed::get();
    let mut running = start(&installed);
    let monitor = running.monitor().unwrap();
    let namespace = running.namespace();
    let monitor = rustix::process::Pid::from_raw(monitor as i32).unwrap();
    rustix::process::kill_process(monitor, rustix::process::Signal::KILL).unwrap();
    let status = running.child.wait().unwrap();
    assert_eq!(status.code(), Some(125));
    let mut told = String::new();
    running.stderr.read_to_string(&mut told).unwrap();
    assert!(told.contains("SIGKILL"), "{told}");
    wait_until("the tap is gone", || !has_tap(namespace.as_fd()));
    assert!(!listens(running.port));
}

#[test]
fn a_port_that_is_taken_and_a_tap_that_is_not_there_are_refused_before_boot() {
    if !can_run() {
        return;
    }
    let installed = Installed::get();
    let taken = TcpListener::bind((HERE, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let ports = format!("127.0.0.1:{port}:80");
    for (flags, status, wanted) in [
        (
            ["--publish", &ports],
            125,
            format!("slicectl: --publish {ports}/tcp: tcp port {port} of 127.0.0.1 is taken"),
        ),
        (
            ["--net", "tap=no-such-tap"],
            2,
            "slicectl: --net tap=no-such-tap: there is no such interface".to_owned(),
        ),
    ] {
        let output = installed.command(&flags).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{told}");
        assert!(
            told.starts_with(&wanted) && told.lines().count() == 1,
            "{told}"
        );
    }
}
