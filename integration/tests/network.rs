//! A slice's network as `slicectl run` makes it: what is published is reached, what cannot be had
//! is refused, and nothing is left of it, whichever process is killed.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use integration::ended::assert_refused;
use integration::needs_kvm;
use integration::service::{GUEST, GUEST_V6, Kind, PORT, Running, Service};
use integration::sliver::until;
use rustix::process::{Pid, Signal, kill_process};

/// Asserts that streams to `to` come back.
#[track_caller]
fn assert_streams_come_back(to: SocketAddr) {
    let mut stream = TcpStream::connect(to).unwrap_or_else(|error| panic!("{to}: {error}"));
    let patience = Some(Duration::from_secs(30));
    stream
        .set_read_timeout(patience)
        .expect("a socket has options");
    stream.write_all(b"hello").expect("it is taken");
    let mut back = [0; 5];
    stream.read_exact(&mut back).expect("it comes back");
    assert_eq!(&back, b"hello");
}

/// Asserts that datagrams to `to` come back, if one in a few gets lost.
#[track_caller]
fn assert_datagrams_come_back(to: SocketAddr) {
    let here: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((here, 0)).expect("a port is free");
    let patience = Some(Duration::from_millis(200));
    socket
        .set_read_timeout(patience)
        .expect("a socket has options");
    until("a datagram comes back", || {
        socket.send_to(b"hello", to).expect("it leaves");
        let mut buffer = [0; 100];
        let (length, from) = socket.recv_from(&mut buffer).ok()?;
        (buffer[..length] == *b"hello" && from == to).then_some(())
    });
}

#[test]
fn streams_and_datagrams_reach_a_published_port() {
    needs_kvm!();
    let echo = Service::new("echo").start(Kind::Slice);
    assert_streams_come_back(echo.tcp());
    assert_datagrams_come_back(echo.udp());
}

#[test]
fn a_port_may_be_published_on_ipv6_for_a_slice_that_has_ipv4_and_the_other_way_round() {
    needs_kvm!();
    for (host, card) in [
        (Ipv6Addr::LOCALHOST.into(), "tap,addr=10.9.0.2/24"),
        (Ipv4Addr::LOCALHOST.into(), "tap,addr=fd09::2/64"),
        (IpAddr::from(Ipv6Addr::LOCALHOST), "tap,addr=fd09::2/64"),
    ] {
        let published = ["tcp", "udp"].map(|protocol| match host {
            IpAddr::V4(host) => format!("{host}:0:{PORT}/{protocol}"),
            IpAddr::V6(host) => format!("[{host}]:0:{PORT}/{protocol}"),
        });
        let echo = Service::new("echo").cards(&[card]);
        let echo = echo
            .publish(&published.each_ref().map(String::as_str))
            .start(Kind::Slice);
        assert_streams_come_back(SocketAddr::new(host, echo.tcp().port()));
        assert_datagrams_come_back(SocketAddr::new(host, echo.udp().port()));
    }
}

#[test]
fn a_slice_is_reached_at_all_addresses_of_all_its_cards() {
    needs_kvm!();
    let cards = [
        "tap,addr=10.9.0.2/24,addr=fd09::2/64",
        "tap,addr=10.8.0.2/24,mac=02:00:00:00:00:08",
    ];
    let echo = Service::new("echo").cards(&cards).start(Kind::Slice);
    assert_streams_come_back(echo.tcp());
    echo.inside(|| {
        for address in [GUEST.into(), GUEST_V6.into(), IpAddr::from([10, 8, 0, 2])] {
            assert_streams_come_back(SocketAddr::new(address, PORT));
            assert_datagrams_come_back(SocketAddr::new(address, PORT));
        }
    });
}

#[test]
fn a_port_that_is_taken_is_refused_by_its_number() {
    needs_kvm!();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("it is bound").port();
    let published = format!("127.0.0.1:{port}:7");
    let output = Service::program("echo")
        .publish(&[&published])
        .run(Kind::Slice);
    assert_refused(&output, 125, &[&published, "taken"]);
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("it is bound").port();
    let published = format!("127.0.0.1:{port}:7/udp");
    let output = Service::program("echo")
        .publish(&[&published])
        .run(Kind::Slice);
    assert_refused(&output, 125, &[&published, "taken"]);
}

#[test]
fn taps_and_addresses_that_cannot_be_had_are_refused_by_their_names() {
    needs_kvm!();
    let refused = |card: &str, words: &[&str]| {
        let output = Service::program("echo").cards(&[card]).run(Kind::Slice);
        assert_refused(&output, 2, words);
    };
    refused("tap=nonesuch,addr=10.9.0.2/24", &["nonesuch"]);
    refused(
        "tap,addr=10.9.0.2/24,gw=10.8.0.1",
        &["10.8.0.1", "10.9.0.2/24"],
    );
    refused("tap,addr=10.9.0.0/24", &["10.9.0.0"]);
    refused(
        "tap,addr=10.9.0.2/24,mac=01:00:00:00:00:00",
        &["01:00:00:00:00:00"],
    );
}

/// The network namespaces that some thread is in.
fn namespaces() -> BTreeSet<PathBuf> {
    let processes = fs::read_dir("/proc").expect("proc is mounted").flatten();
    let tasks = processes.filter_map(|process| fs::read_dir(process.path().join("task")).ok());
    let namespaces = tasks
        .flatten()
        .flatten()
        .map(|task| task.path().join("ns/net"));
    namespaces
        .filter_map(|path| fs::read_link(path).ok())
        .collect()
}

/// Asserts that nothing is left of a service whose process was killed.
fn assert_no_trace(mut echo: Running, kill: impl FnOnce(&Running), status: Option<i32>) {
    let namespace = echo
        .inside(|| fs::read_link("/proc/thread-self/ns/net"))
        .expect("it is there");
    let (tcp, udp) = (echo.tcp(), echo.udp());
    assert_streams_come_back(tcp);
    assert!(namespaces().contains(&namespace));
    kill(&echo);
    assert_eq!(echo.wait().code(), status, "{}", echo.errors());
    until("the monitor is gone", || {
        echo.monitors().is_empty().then_some(())
    });
    until("the namespace is gone", || {
        (!namespaces().contains(&namespace)).then_some(())
    });
    TcpListener::bind(tcp).expect("the port is free again");
    UdpSocket::bind(udp).expect("the port is free again");
}

#[test]
fn a_kill_of_slicectl_leaves_nothing() {
    needs_kvm!();
    let echo = Service::new("echo").start(Kind::Slice);
    let kill = |echo: &Running| {
        let pid = Pid::from_raw(echo.pid() as i32).expect("a process has an id");
        kill_process(pid, Signal::KILL).expect("it is there");
    };
    assert_no_trace(echo, kill, None);
}

#[test]
fn a_kill_of_the_monitor_leaves_nothing() {
    needs_kvm!();
    let echo = Service::new("echo").start(Kind::Slice);
    let kill = |echo: &Running| {
        let monitors = echo.monitors();
        kill_process(monitors[0], Signal::KILL).expect("it is there");
    };
    assert_no_trace(echo, kill, Some(125));
}
