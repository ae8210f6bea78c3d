//! ICMP echo: one request, one answer.

use alloc::vec;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::task::{Context, Poll};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::icmp;
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr};

use super::{SocketId, Stack};
use crate::net::{Error, Result};

/// What a request carries, so that its packet is as long as other people's.
const PAYLOAD: [u8; 56] = [0x53; 56];

/// Room for a few answers that may come to one request.
const BUFFER: usize = 1024;

/// A request on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PingId {
    socket: SocketId,
    to: IpAddr,
}

impl Stack {
    /// Sends a request.
    pub(crate) fn ping(&mut self, to: SocketAddr) -> Result<PingId> {
        if to.ip().is_unspecified() {
            return Err(Error::InvalidInput);
        }
        let link = self.route(to).ok_or(Error::Unreachable)?;
        let identity = self.random.next() as u16;
        let buffer =
            || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; BUFFER]);
        let mut socket = icmp::Socket::new(buffer(), buffer());
        socket
            .bind(icmp::Endpoint::Ident(identity))
            .map_err(|_| Error::InvalidInput)?;
        let sent = match to.ip() {
            IpAddr::V4(_) => request4(&mut socket, to.ip(), identity),
            IpAddr::V6(to) => request6(&mut socket, to, identity),
        };
        sent.map_err(|_| Error::Unreachable)?;
        let handle = self.links[link].sockets.add(socket);
        self.touch();
        Ok(PingId {
            socket: SocketId { link, handle },
            to: to.ip(),
        })
    }

    /// Waits for the answer.
    pub(crate) fn poll_pong(&mut self, id: PingId, context: &mut Context<'_>) -> Poll<()> {
        let sockets = &mut self.links[id.socket.link].sockets;
        let socket = sockets.get_mut::<icmp::Socket<'_>>(id.socket.handle);
        while let Ok((packet, from)) = socket.recv() {
            if IpAddr::from(from) == id.to && is_reply(packet, id.to) {
                return Poll::Ready(());
            }
        }
        socket.register_recv_waker(context.waker());
        Poll::Pending
    }

    /// Forgets a request.
    pub(crate) fn end_ping(&mut self, id: PingId) {
        self.links[id.socket.link].sockets.remove(id.socket.handle);
    }
}

fn request4(
    socket: &mut icmp::Socket<'_>,
    to: IpAddr,
    ident: u16,
) -> core::result::Result<(), icmp::SendError> {
    let request = Icmpv4Repr::EchoRequest {
        ident,
        seq_no: 1,
        data: &PAYLOAD,
    };
    let packet = socket.send(request.buffer_len(), to.into())?;
    // The checksum is made when it leaves.
    let checksum = ChecksumCapabilities::ignored();
    request.emit(&mut Icmpv4Packet::new_unchecked(packet), &checksum);
    Ok(())
}

fn request6(
    socket: &mut icmp::Socket<'_>,
    to: Ipv6Addr,
    ident: u16,
) -> core::result::Result<(), icmp::SendError> {
    let request = Icmpv6Repr::EchoRequest {
        ident,
        seq_no: 1,
        data: &PAYLOAD,
    };
    let packet = socket.send(request.buffer_len(), to.into())?;
    let mut packet = Icmpv6Packet::new_unchecked(packet);
    let checksum = ChecksumCapabilities::ignored();
    request.emit(&Ipv6Addr::UNSPECIFIED, &to, &mut packet, &checksum);
    Ok(())
}

/// Whether a packet answers a request. Whose it is tells the socket it came to.
fn is_reply(packet: &[u8], family: IpAddr) -> bool {
    const REPLY4: u8 = 0;
    const REPLY6: u8 = 129;
    let reply = if family.is_ipv4() { REPLY4 } else { REPLY6 };
    packet.first() == Some(&reply)
}
