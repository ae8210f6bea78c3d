//! Datagrams.

use core::net::SocketAddr;

use super::{Result, backend};

/// Sends and receives datagrams.
///
/// ```
/// use guest_shim::net::{Result, UdpSocket};
/// use guest_shim::task;
///
/// task::block_on(async {
///     let here = "127.0.0.1:0".parse().unwrap();
///     let one = UdpSocket::bind(here).await?;
///     let other = UdpSocket::bind(here).await?;
///     one.send_to(b"hello", other.local_addr()?).await?;
///     let mut buffer = [0; 1500];
///     let (length, from) = other.recv_from(&mut buffer).await?;
///     assert_eq!(&buffer[..length], b"hello");
///     assert_eq!(from, one.local_addr()?);
///     Result::Ok(())
/// })
/// .unwrap();
/// ```
#[derive(Debug)]
pub struct UdpSocket(backend::Udp);

impl UdpSocket {
    /// Binds a socket to `address`; port 0 stands for any that is free.
    pub async fn bind(address: SocketAddr) -> Result<Self> {
        backend::Udp::bind(address).map(Self)
    }

    /// Sends a datagram to `to`, as soon as there is room for it.
    pub async fn send_to(&self, datagram: &[u8], to: SocketAddr) -> Result<()> {
        self.0.send_to(datagram, to).await
    }

    /// Waits for a datagram. Its length and who sent it; what does not fit into `buffer` is lost.
    pub async fn recv_from(&self, buffer: &mut [u8]) -> Result<(usize, SocketAddr)> {
        self.0.recv_from(buffer).await
    }

    /// Where it is bound.
    pub fn local_addr(&self) -> Result<SocketAddr> {
        self.0.local_addr()
    }
}
