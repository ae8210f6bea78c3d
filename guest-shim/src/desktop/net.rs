//! The network of an ordinary process: the host's sockets, waited for in `async-io`.

mod interfaces;
mod ping;

use std::io::{Read, Write};
use std::net::{
    IpAddr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV6, TcpListener, TcpStream, ToSocketAddrs,
    UdpSocket,
};

use async_io::Async;
use rustix::net::sockopt;

use crate::net::{Error, Result, TcpOptions};

pub(crate) use interfaces::interfaces;
pub(crate) use ping::ping;

/// Port that a name is looked up with, for want of one.
const ANY_PORT: u16 = 0;

#[derive(Debug)]
pub(crate) struct Listener {
    socket: Async<TcpListener>,
    nodelay: bool,
}

impl Listener {
    pub(crate) fn bind(address: SocketAddr, options: TcpOptions) -> Result<Self> {
        let socket = Async::<TcpListener>::bind(address)?;
        let nodelay = options.nodelay;
        Ok(Self { socket, nodelay })
    }

    pub(crate) async fn accept(&self) -> Result<(Stream, SocketAddr)> {
        let (socket, from) = self.socket.accept().await?;
        socket.get_ref().set_nodelay(self.nodelay)?;
        Ok((Stream(socket), canonical(from)))
    }

    pub(crate) fn local_addr(&self) -> Result<SocketAddr> {
        Ok(self.socket.get_ref().local_addr()?)
    }
}

#[derive(Debug)]
pub(crate) struct Stream(Async<TcpStream>);

impl Stream {
    pub(crate) async fn connect(to: SocketAddr, options: TcpOptions) -> Result<Self> {
        let stream = Self(Async::<TcpStream>::connect(to).await?);
        stream.set_nodelay(options.nodelay)?;
        Ok(stream)
    }

    pub(crate) async fn read(&self, buffer: &mut [u8]) -> Result<usize> {
        Ok(self.0.read_with(|mut socket| socket.read(buffer)).await?)
    }

    pub(crate) async fn write(&self, bytes: &[u8]) -> Result<usize> {
        Ok(self.0.write_with(|mut socket| socket.write(bytes)).await?)
    }

    pub(crate) fn shutdown(&self) -> Result<()> {
        Ok(self.0.get_ref().shutdown(Shutdown::Write)?)
    }

    pub(crate) fn abort(&self) {
        // Closing it then resets the connection; one that has ended already needs no reset.
        let _ = sockopt::set_socket_linger(&self.0, Some(std::time::Duration::ZERO));
    }

    pub(crate) fn set_nodelay(&self, nodelay: bool) -> Result<()> {
        Ok(self.0.get_ref().set_nodelay(nodelay)?)
    }

    pub(crate) fn peer_addr(&self) -> Result<SocketAddr> {
        Ok(canonical(self.0.get_ref().peer_addr()?))
    }

    pub(crate) fn local_addr(&self) -> Result<SocketAddr> {
        Ok(canonical(self.0.get_ref().local_addr()?))
    }
}

#[derive(Debug)]
pub(crate) struct Udp {
    socket: Async<UdpSocket>,
    v6: bool,
}

impl Udp {
    pub(crate) fn bind(address: SocketAddr) -> Result<Self> {
        let socket = Async::<UdpSocket>::bind(address)?;
        // As in a slice, where nobody asks for leave to send to everybody.
        socket.get_ref().set_broadcast(true)?;
        let v6 = address.is_ipv6();
        Ok(Self { socket, v6 })
    }

    pub(crate) async fn send_to(&self, datagram: &[u8], to: SocketAddr) -> Result<()> {
        let to = if self.v6 { mapped(to) } else { to };
        self.socket.send_to(datagram, to).await?;
        Ok(())
    }

    pub(crate) async fn recv_from(&self, buffer: &mut [u8]) -> Result<(usize, SocketAddr)> {
        let (length, from) = self.socket.recv_from(buffer).await?;
        Ok((length, canonical(from)))
    }

    pub(crate) fn local_addr(&self) -> Result<SocketAddr> {
        Ok(self.socket.get_ref().local_addr()?)
    }
}

pub(crate) async fn lookup(host: &str) -> Result<Vec<IpAddr>> {
    let host = host.to_owned();
    let found = blocking::unblock(move || {
        (host.as_str(), ANY_PORT)
            .to_socket_addrs()
            .map(|found| found.map(|address| address.ip()).collect::<Vec<_>>())
    });
    // The standard library does not tell why a name has no address.
    let mut found = found.await.map_err(|_| Error::NameNotFound)?;
    found.dedup();
    if found.is_empty() {
        return Err(Error::NameNotFound);
    }
    Ok(found)
}

/// The host's addresses are there.
pub(crate) async fn wait_configured() {}

/// An IPv4 address that the host has mapped into IPv6, as itself.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(v4.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// An address that a socket of IPv6 can send to.
fn mapped(address: SocketAddr) -> SocketAddr {
    let v6 = |ip: Ipv6Addr| SocketAddrV6::new(ip, address.port(), 0, 0).into();
    match address.ip() {
        IpAddr::V4(v4) => v6(v4.to_ipv6_mapped()),
        IpAddr::V6(_) => address,
    }
}
