//! Datagrams. A bound address may be that of several links, so there is a `smoltcp` socket on each.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::task::{Context, Poll};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::udp::{self, SendError, UdpMetadata};
use smoltcp::wire::{IpEndpoint, IpListenEndpoint};

use super::listen::{overlap, place};
use super::{Stack, canonical};
use crate::net::wire::{IPV4, IPV6, UDP};
use crate::net::{Error, Result};
use crate::task::crowd::Crowd;
use crate::time::Instant;

/// Datagrams that can wait in each direction.
const DATAGRAMS: usize = 128;

/// Bytes of datagrams that can wait in each direction.
const BUFFER: usize = 64 << 10;

/// Names a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UdpId(usize);

/// All sockets.
#[derive(Debug, Default)]
pub(super) struct Datagrams(Vec<Option<Bound>>);

#[derive(Debug)]
struct Bound {
    address: SocketAddr,
    /// One for each link, or none where the address is not the link's.
    sockets: Vec<Option<SocketHandle>>,
    /// Tasks that wait for a datagram, and those that wait for room for one.
    receivers: Arc<Crowd>,
    senders: Arc<Crowd>,
}

impl Stack {
    /// Binds a socket; port 0 stands for any that is free.
    pub(crate) fn bind_udp(&mut self, address: SocketAddr) -> Result<UdpId> {
        let mut address = canonical(address);
        if !self.has_address(address.ip()) {
            return Err(Error::AddressNotAvailable);
        }
        if address.port() == 0 {
            let port = self.free_port(|stack, port| stack.datagrams.has_port(port));
            address.set_port(port.ok_or(Error::AddressInUse)?);
        } else if self
            .datagrams
            .all()
            .any(|other| overlap(other.address, address))
        {
            return Err(Error::AddressInUse);
        }
        let own = (!address.ip().is_unspecified()).then_some(address.ip());
        let mut sockets = Vec::with_capacity(self.links.len());
        for link in &mut self.links {
            link.clear_port(address.port());
            if own.is_some_and(|own| !link.has_address(own)) {
                sockets.push(None);
                continue;
            }
            let buffer = || {
                udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; DATAGRAMS], vec![0; BUFFER])
            };
            let mut socket = udp::Socket::new(buffer(), buffer());
            let endpoint = IpListenEndpoint {
                addr: own.map(Into::into),
                port: address.port(),
            };
            socket.bind(endpoint).map_err(|_| Error::InvalidInput)?;
            sockets.push(Some(link.sockets.add(socket)));
        }
        let bound = Bound {
            address,
            sockets,
            receivers: Arc::default(),
            senders: Arc::default(),
        };
        Ok(UdpId(place(&mut self.datagrams.0, bound)))
    }

    /// Where a socket is bound.
    pub(crate) fn udp_address(&self, id: UdpId) -> Option<SocketAddr> {
        Some(self.datagrams.0[id.0].as_ref()?.address)
    }

    /// Receives a datagram. What does not fit into `buffer` is lost.
    pub(crate) fn poll_receive(
        &mut self,
        id: UdpId,
        buffer: &mut [u8],
        context: &mut Context<'_>,
    ) -> Poll<Result<(usize, SocketAddr)>> {
        let Some(bound) = &self.datagrams.0[id.0] else {
            return Poll::Ready(Err(Error::Closed));
        };
        let v4_only = bound.address.is_ipv4();
        for (link, handle) in self.links.iter_mut().zip(&bound.sockets) {
            let Some(handle) = *handle else { continue };
            let socket = link.sockets.get_mut::<udp::Socket<'_>>(handle);
            while let Ok((datagram, from)) = socket.recv() {
                let from = SocketAddr::from(from.endpoint);
                if v4_only && !from.is_ipv4() {
                    continue;
                }
                let length = datagram.len().min(buffer.len());
                buffer[..length].copy_from_slice(&datagram[..length]);
                return Poll::Ready(Ok((length, from)));
            }
            socket.register_recv_waker(&bound.receivers.join(context));
        }
        Poll::Pending
    }

    /// Sends a datagram, as soon as there is room for it.
    pub(crate) fn poll_send(
        &mut self,
        id: UdpId,
        datagram: &[u8],
        to: SocketAddr,
        context: &mut Context<'_>,
    ) -> Poll<Result<()>> {
        let Some(bound) = &self.datagrams.0[id.0] else {
            return Poll::Ready(Err(Error::Closed));
        };
        let own = bound.address.ip();
        let to = canonical(to);
        if to.port() == 0 || to.ip().is_unspecified() || own.is_ipv4() && to.is_ipv6() {
            return Poll::Ready(Err(Error::InvalidInput));
        }
        let by_route = self.route(to);
        let handle_on = |link: usize| Some((link, *bound.sockets.get(link)?.as_ref()?));
        let first = || (0..bound.sockets.len()).find_map(handle_on);
        // One that is bound to an address of another link sends from there.
        let Some((link, handle)) = by_route.and_then(|link| handle_on(link).or_else(first)) else {
            return Poll::Ready(Err(Error::Unreachable));
        };
        let link = &mut self.links[link];
        let headers = if to.is_ipv4() { IPV4 } else { IPV6 } + UDP;
        if datagram.len() + headers > link.mtu() {
            return Poll::Ready(Err(Error::MessageTooLong));
        }
        let socket = link.sockets.get_mut::<udp::Socket<'_>>(handle);
        match socket.send_slice(datagram, UdpMetadata::from(IpEndpoint::from(to))) {
            Ok(()) => {
                self.touch();
                Poll::Ready(Ok(()))
            }
            Err(SendError::BufferFull) => {
                socket.register_send_waker(&bound.senders.join(context));
                Poll::Pending
            }
            Err(SendError::Unaddressable) => Poll::Ready(Err(Error::InvalidInput)),
        }
    }

    /// Lets go of a socket. What was sent leaves all the same.
    pub(crate) fn end_udp(&mut self, id: UdpId, now: Instant) {
        let Some(bound) = self.datagrams.0[id.0].take() else {
            return;
        };
        for (link, handle) in self.links.iter_mut().zip(bound.sockets) {
            if let Some(handle) = handle {
                link.leave(handle, now);
            }
        }
        self.touch();
    }
}

impl Datagrams {
    fn has_port(&self, port: u16) -> bool {
        self.all().any(|bound| bound.address.port() == port)
    }

    fn all(&self) -> impl Iterator<Item = &Bound> {
        self.0.iter().flatten()
    }
}
