//! Ports of the host that lead to a sliver: what is asked for, and the sockets that are claimed
//! for it before anything else is created.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

use super::plain;
use crate::problem::Problem;

/// Connections that wait to be accepted; the kernel has a limit of its own, 4096 mostly.
const BACKLOG: i32 = 4096;

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port of the host that shall lead to a port of the sliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish {
    /// The host's address; without one, all of them.
    pub address: Option<IpAddr>,
    /// The host's port; 0 for any that is free.
    pub host: u16,
    /// The sliver's port.
    pub guest: u16,
    /// What they speak.
    pub protocol: Protocol,
}

/// A socket of the host at which something is published.
#[derive(Debug)]
pub enum Socket {
    /// For streams.
    Tcp(TcpListener),
    /// For datagrams.
    Udp(UdpSocket),
}

/// A published port whose socket is there.
#[derive(Debug)]
pub struct Listening {
    /// The socket.
    pub socket: Socket,
    /// Its address.
    pub address: SocketAddr,
    /// The sliver's port.
    pub guest: u16,
}

impl Publish {
    /// Whether both cannot be had at once.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        let overlap = match (self.address, other.address) {
            (Some(one), Some(two)) => {
                one == two
                    || one.is_ipv4() == two.is_ipv4()
                        && (one.is_unspecified() || two.is_unspecified())
            }
            _ => true,
        };
        overlap && self.host != 0 && self.host == other.host && self.protocol == other.protocol
    }

    /// Claims the host's port.
    pub fn listen(&self) -> Result<Listening, Problem> {
        let bound = match self.address {
            Some(address) => self.bind(address, true),
            // One socket for both kinds of addresses, if this host has both.
            None => self
                .bind(Ipv6Addr::UNSPECIFIED.into(), false)
                .or_else(|error| match Errno::from_io_error(&error) {
                    Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {
                        self.bind(Ipv4Addr::UNSPECIFIED.into(), true)
                    }
                    _ => Err(error),
                }),
        };
        let listening = bound.and_then(|socket| {
            let (socket, address) = match self.protocol {
                Protocol::Tcp => {
                    let socket = TcpListener::from(socket);
                    let address = socket.local_addr()?;
                    (Socket::Tcp(socket), address)
                }
                Protocol::Udp => {
                    let socket = UdpSocket::from(socket);
                    let address = socket.local_addr()?;
                    (Socket::Udp(socket), address)
                }
            };
            Ok(Listening {
                socket,
                address,
                guest: self.guest,
            })
        });
        listening.map_err(|error| self.refused(&error))
    }

    fn bind(&self, address: IpAddr, only_its_kind: bool) -> io::Result<OwnedFd> {
        let family = match address {
            IpAddr::V4(_) => AddressFamily::INET,
            IpAddr::V6(_) => AddressFamily::INET6,
        };
        let kind = match self.protocol {
            Protocol::Tcp => SocketType::STREAM,
            Protocol::Udp => SocketType::DGRAM,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, kind, flags, None)?;
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, only_its_kind)?;
        }
        if self.protocol == Protocol::Tcp {
            // Connections of the run before that have not quite ended are nobody's.
            sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        bind(&socket, &SocketAddr::new(address, self.host))?;
        if self.protocol == Protocol::Tcp {
            listen(&socket, BACKLOG)?;
        }
        Ok(socket)
    }

    fn refused(&self, error: &io::Error) -> Problem {
        let Self { host, protocol, .. } = self;
        let address = self.address.map(|address| address.to_string());
        let of = address.map_or(String::new(), |address| format!(" of {address}"));
        let what = format!("--publish {self}");
        match Errno::from_io_error(error) {
            Some(Errno::ADDRINUSE) => Problem::new(
                what,
                format!("{protocol} port {host}{of} is taken on this host"),
            )
            .mend(format!(
                "choose another, or 0 for any that is free; ss -lnp{} sport = :{host} tells who \
                 has it",
                match protocol {
                    Protocol::Tcp => "t",
                    Protocol::Udp => "u",
                }
            )),
            Some(Errno::ADDRNOTAVAIL) => {
                Problem::new(what, format!("this host has no address{of}"))
                    .mend("leave it out to publish on all addresses")
            }
            Some(Errno::ACCESS) => Problem::new(what, format!("port {host} is for root only"))
                .mend("choose one from 1024, or 0 for any that is free"),
            _ => Problem::new(what, format!("cannot listen: {}", plain(error))),
        }
    }
}

impl fmt::Display for Publish {
    /// As it is written on the command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(IpAddr::V4(address)) => write!(f, "{address}:")?,
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            None => {}
        }
        write!(f, "{}:{}/{}", self.host, self.guest, self.protocol)
    }
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (port, protocol) = match &self.socket {
            Socket::Tcp(_) => (self.address.port(), Protocol::Tcp),
            Socket::Udp(_) => (self.address.port(), Protocol::Udp),
        };
        write!(
            f,
            "{protocol} port {port} of this host is port {} of the sliver",
            self.guest
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(address: Option<&str>, host: u16, protocol: Protocol) -> Publish {
        Publish {
            address: address.map(|address| address.parse().unwrap()),
            host,
            guest: 80,
            protocol,
        }
    }

    #[test]
    fn one_port_is_had_once_for_each_protocol_and_address() {
        let at = |address| publish(address, 8080, Protocol::Tcp);
        assert!(at(None).conflicts_with(&at(Some("127.0.0.1"))));
        assert!(at(Some("0.0.0.0")).conflicts_with(&at(Some("127.0.0.1"))));
        assert!(at(Some("127.0.0.1")).conflicts_with(&at(Some("127.0.0.1"))));
        assert!(!at(Some("127.0.0.2")).conflicts_with(&at(Some("127.0.0.1"))));
        assert!(!at(Some("::")).conflicts_with(&at(Some("127.0.0.1"))));
        assert!(!at(None).conflicts_with(&publish(None, 8080, Protocol::Udp)));
        assert!(!at(None).conflicts_with(&publish(None, 8081, Protocol::Tcp)));
        let any = publish(None, 0, Protocol::Tcp);
        assert!(!any.conflicts_with(&any));
    }

    #[test]
    fn a_port_that_is_taken_is_refused_with_its_number() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let first = publish(Some("127.0.0.1"), 0, protocol).listen().unwrap();
            let port = first.address.port();
            let problem = publish(Some("127.0.0.1"), port, protocol)
                .listen()
                .expect_err("taken");
            let told = problem.to_string();
            assert!(
                told.starts_with(&format!(
                    "--publish 127.0.0.1:{port}:80/{protocol}: {protocol} port {port} of \
                     127.0.0.1 is taken"
                )),
                "{told}"
            );
            drop(first);
        }
    }

    #[test]
    fn an_address_of_another_host_is_refused() {
        let problem = publish(Some("192.0.2.1"), 0, Protocol::Tcp).listen();
        let told = problem.expect_err("not ours").to_string();
        assert!(told.contains("no address of 192.0.2.1"), "{told}");
    }

    #[test]
    fn without_an_address_every_one_of_the_host_is_meant() {
        let listening = publish(None, 0, Protocol::Tcp).listen().unwrap();
        let port = listening.address.port();
        std::net::TcpStream::connect(("127.0.0.1", port)).expect("listens");
        if listening.address.is_ipv6() {
            std::net::TcpStream::connect(("::1", port)).expect("listens");
        }
    }
}
