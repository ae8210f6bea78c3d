//! The forwarder in one namespace: what it carries, how it ends, and what it does with guests that
//! come late, refuse or break off.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use crate::network::publish::{Protocol, Publish};
use crate::network::{Network, Wanted};

/// When to give up waiting for what should come at once.
const PATIENCE: Duration = Duration::from_secs(30);

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A port of this host that leads to `guest` of this host.
fn published(guest: u16, protocol: Protocol) -> (Network, u16) {
    let publish = Publish {
        address: Some(HERE.into()),
        host: 0,
        guest,
        protocol,
    };
    let listening = publish.listen().unwrap();
    let port = listening.address.port();
    let mut network = Network::set_up(Wanted {
        cards: Vec::new(),
        listening: vec![listening],
        target: Some(HERE.into()),
        nat: None,
    })
    .unwrap();
    network.begin();
    (network, port)
}

fn client(port: u16) -> TcpStream {
    let stream = TcpStream::connect((HERE, port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A port that nobody listens on, for now.
fn free_port() -> u16 {
    let listener = TcpListener::bind((HERE, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn a_client_that_comes_before_the_guest_is_held_until_it_is_there() {
    let guest = free_port();
    let (_network, port) = published(guest, Protocol::Tcp);
    let mut early = client(port);
    early.write_all(b"hello").unwrap();
    let listener = TcpListener::bind((HERE, guest)).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).unwrap();
    stream.write_all(&heard).unwrap();
    let mut answer = [0; 5];
    early.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

#[test]
fn the_end_of_one_direction_leaves_the_other_open() {
    let listener = TcpListener::bind((HERE, 0)).unwrap();
    let (_network, port) = published(listener.local_addr().unwrap().port(), Protocol::Tcp);
    let guest = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
        all.len()
    });
    // More than all buffers on the way hold: both sides must be able to wait for the other.
    let sent = vec![7; 8 << 20];
    let mut stream = client(port);
    stream.write_all(&sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    assert_eq!(guest.join().unwrap(), sent.len());
    assert!(back == sent);
}

#[test]
fn a_guest_that_breaks_off_is_told_as_a_break_and_not_as_an_end() {
    let listener = TcpListener::bind((HERE, 0)).unwrap();
    let (_network, port) = published(listener.local_addr().unwrap().port(), Protocol::Tcp);
    let mut stream = client(port);
    stream.write_all(b"?").unwrap();
    let (mut guest, _) = listener.accept().unwrap();
    guest.read_exact(&mut [0; 1]).unwrap();
    rustix::net::sockopt::set_socket_linger(&guest, Some(Duration::ZERO)).unwrap();
    drop(guest);
    let broken = stream.read_to_end(&mut Vec::new());
    assert_eq!(
        broken.map_err(|error| error.kind()),
        Err(std::io::ErrorKind::ConnectionReset)
    );
}

#[test]
fn datagrams_of_several_clients_find_their_way_back() {
    let guest = UdpSocket::bind((HERE, 0)).unwrap();
    guest.set_read_timeout(Some(PATIENCE)).unwrap();
    let (_network, port) = published(guest.local_addr().unwrap().port(), Protocol::Udp);
    let clients: Vec<UdpSocket> = (0..8)
        .map(|_| UdpSocket::bind((HERE, 0)).unwrap())
        .collect();
    for (i, client) in clients.iter().enumerate() {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.connect((HERE, port)).unwrap();
        client.send(&[i as u8; 1400]).unwrap();
    }
    let mut datagram = [0; 2000];
    for _ in &clients {
        let (len, from) = guest.recv_from(&mut datagram).unwrap();
        guest.send_to(&datagram[..len], from).unwrap();
    }
    for (i, client) in clients.iter().enumerate() {
        let len = client.recv(&mut datagram).unwrap();
        assert_eq!(datagram[..len], [i as u8; 1400]);
    }
}

#[test]
fn nothing_listens_when_it_is_finished_and_its_time_is_told() {
    let listener = TcpListener::bind((HERE, 0)).unwrap();
    let (network, port) = published(listener.local_addr().unwrap().port(), Protocol::Tcp);
    let mut stream = client(port);
    stream.write_all(b"x").unwrap();
    listener.accept().unwrap();
    assert!(network.finish() > Duration::ZERO);
    assert!(TcpStream::connect((HERE, port)).is_err());
}

#[test]
fn many_short_connections_all_arrive() {
    const CLIENTS: usize = 64;
    const EACH: usize = 50;
    let listener = TcpListener::bind((HERE, 0)).unwrap();
    let (_network, port) = published(listener.local_addr().unwrap().port(), Protocol::Tcp);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(&request).unwrap();
        }
    });
    let clients: Vec<_> = (0..CLIENTS)
        .map(|i| {
            thread::spawn(move || {
                for j in 0..EACH {
                    let request = ((i * EACH + j) as u32).to_le_bytes();
                    let mut stream = client(port);
                    stream.write_all(&request).unwrap();
                    let mut answer = Vec::new();
                    stream.read_to_end(&mut answer).unwrap();
                    assert_eq!(answer, request);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
}
