//! TCP, UDP, ICMP echo and names, over IPv4 and IPv6.
//!
//! In a slice this is a TCP/IP stack of the slice's own (`smoltcp`) on its virtio network cards,
//! with the addresses that its owner has configured or DHCP gives; on a desktop it is the host's.
//! Everything that waits is `async`; [`task`] runs it.
//!
//! ```
//! use guest_shim::net::{Result, TcpListener, TcpStream};
//! use guest_shim::task;
//!
//! task::block_on(async {
//!     let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).await?;
//!     let address = listener.local_addr()?;
//!     let server = task::spawn(async move {
//!         let (mut client, _) = listener.accept().await?;
//!         client.write_all(b"hello").await
//!     });
//!     let mut stream = TcpStream::connect(address).await?;
//!     let mut greeting = [0; 5];
//!     stream.read_exact(&mut greeting).await?;
//!     assert_eq!(&greeting, b"hello");
//!     server.await?;
//!     Result::Ok(())
//! })
//! .unwrap();
//! ```
//!
//! # Addresses
//!
//! `0.0.0.0` stands for all IPv4 addresses of the sliver, `::` for all of both families. The
//! address of another end is never an IPv4 address mapped into IPv6: who connects to a listener on
//! `::` from `192.0.2.1` is told as that.
//!
//! # What a slice's stack does
//!
//! - A listener holds up to [`TcpOptions::backlog`] connections that were not accepted yet. Above
//!   that, and when there is no memory for more, a client is not refused: its request is dropped,
//!   and it asks again.
//! - Small segments leave at once ([`TcpOptions::nodelay`]); what a task writes between two waits
//!   leaves together.
//! - An acknowledgement leaves after the tasks that what has come wakes have run once, so that it
//!   travels with what they answer.
//! - A stream that is dropped sends what was written to it, and then ends; a datagram that was sent
//!   leaves, whatever becomes of its socket. That takes a vCPU inside
//!   [`block_on`](crate::task::block_on), and what has not left when the program ends is lost: who
//!   must be sure shuts a stream down and reads until the other end has ended, too.
//! - Datagrams and echo requests are at most one packet long: packets are not taken apart.

mod error;
mod interface;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

#[cfg(any(test, not(feature = "desktop")))]
mod card;
#[cfg(any(test, not(feature = "desktop")))]
pub(crate) mod driver;
#[cfg(any(test, not(feature = "desktop")))]
mod inbox;
#[cfg(any(test, not(feature = "desktop")))]
mod merge;
#[cfg(any(test, not(feature = "desktop")))]
mod outbox;
#[cfg(any(test, not(feature = "desktop")))]
pub(crate) mod stack;
#[cfg(any(test, not(feature = "desktop")))]
mod vnet;
#[cfg(any(test, not(feature = "desktop")))]
mod wire;

use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

pub use error::{Error, Result};
pub use interface::Interface;
pub use tcp::{
    OwnedReadHalf, OwnedWriteHalf, ReadHalf, TcpListener, TcpOptions, TcpStream, WriteHalf,
};
pub use udp::UdpSocket;

use crate::backend::net as backend;
use crate::task;

/// Sends an ICMP echo request and waits for the answer, for `patience` at most. The time between
/// the two.
///
/// A desktop needs the kernel's leave for it: an unprivileged ICMP socket (`ping_group_range`), or
/// root.
///
/// ```no_run
/// use core::time::Duration;
/// use guest_shim::{net, task};
///
/// let time = task::block_on(net::ping("192.0.2.1".parse().unwrap(), Duration::from_secs(1)));
/// match time {
///     Ok(time) => guest_shim::println!("it is {time:?} away"),
///     Err(error) => guest_shim::println!("no answer: {error}"),
/// }
/// ```
pub async fn ping(to: IpAddr, patience: Duration) -> Result<Duration> {
    let answer = task::timeout(patience, backend::ping(to.to_canonical()));
    answer.await.unwrap_or(Err(Error::TimedOut))
}

/// The addresses of a name, or the one that it is. At least one.
///
/// ```
/// use guest_shim::{net, task};
///
/// let addresses = task::block_on(net::lookup("192.0.2.1")).unwrap();
/// assert_eq!(addresses, ["192.0.2.1".parse::<core::net::IpAddr>().unwrap()]);
/// ```
pub async fn lookup(host: &str) -> Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    backend::lookup(host).await
}

/// The network cards and their addresses, as they are now.
///
/// ```
/// for interface in guest_shim::net::interfaces() {
///     guest_shim::println!("{}: {:?}", interface.name, interface.addresses);
/// }
/// ```
pub fn interfaces() -> Vec<Interface> {
    backend::interfaces()
}

/// Waits until each card has the addresses it should have: only DHCP takes time.
///
/// ```
/// guest_shim::task::block_on(guest_shim::net::wait_configured());
/// ```
pub async fn wait_configured() {
    backend::wait_configured().await;
}
