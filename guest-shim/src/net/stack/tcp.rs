//! Connections.

use core::net::SocketAddr;
use core::task::{Context, Poll};

use smoltcp::socket::Socket;
use smoltcp::socket::tcp::{self, RecvError, State};
use smoltcp::time::Duration;
use smoltcp::wire::{IpEndpoint, IpListenEndpoint};

use super::pool::micros;
use super::{SocketId, Stack, canonical};
use crate::net::{Error, Result, TcpOptions};
use crate::time::Instant;

/// How long somebody who connects waits for an answer.
const CONNECT_PATIENCE: core::time::Duration = core::time::Duration::from_secs(30);

/// Who has waited for so long has not been refused. Clocks are not read at the same moment.
const GIVEN_UP: core::time::Duration = core::time::Duration::from_secs(29);

/// How long whoever has sent a SYN has for the rest of it.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(6);

/// How long what has been sent may stay without an answer.
const SEND_PATIENCE: Duration = Duration::from_secs(120);

/// Sets how long the other end may be silent, by what is expected of it. A connection on which
/// nothing is under way may be silent for ever.
///
/// `smoltcp` counts from the last packet that came, or from the first byte written after all before
/// it were acknowledged. So this is not for the end of a connection, which may come after a long
/// silence.
pub(super) fn set_patience(socket: &mut tcp::Socket<'_>) {
    let limit = match socket.state() {
        State::SynSent => Some(micros(CONNECT_PATIENCE)),
        State::SynReceived => Some(HANDSHAKE_PATIENCE),
        State::Established | State::CloseWait if socket.send_queue() > 0 => Some(SEND_PATIENCE),
        State::Established | State::CloseWait => socket.keep_alive().map(|often| often * 4),
        _ => None,
    };
    socket.set_timeout(limit);
}

impl Stack {
    /// Begins a connection to `to`.
    pub(crate) fn connect(&mut self, to: SocketAddr, options: &TcpOptions) -> Result<SocketId> {
        let to = canonical(to);
        if to.port() == 0 || to.ip().is_unspecified() || to.ip().is_multicast() {
            return Err(Error::InvalidInput);
        }
        let link = self.route(to).ok_or(Error::Unreachable)?;
        let port = self
            .free_port(|stack, port| stack.is_tcp_port_taken(link, port))
            .ok_or(Error::AddressInUse)?;
        let mut socket = self.pool.take(options).ok_or(Error::NoMemory)?;
        let context = self.links[link].interface.context();
        if socket.connect(context, IpEndpoint::from(to), port).is_err() {
            self.pool.give_back(socket);
            return Err(Error::Unreachable);
        }
        set_patience(&mut socket);
        let handle = self.links[link].sockets.add(socket);
        self.touch();
        Ok(SocketId { link, handle })
    }

    /// Waits for the other end to accept. Who has waited for `waited` is told why in vain.
    pub(crate) fn poll_connected(
        &mut self,
        id: SocketId,
        waited: core::time::Duration,
        context: &mut Context<'_>,
    ) -> Poll<Result<()>> {
        let socket = self.tcp(id);
        match socket.state() {
            State::SynSent | State::SynReceived => {
                socket.register_send_waker(context.waker());
                Poll::Pending
            }
            State::Closed if waited >= GIVEN_UP => Poll::Ready(Err(Error::TimedOut)),
            State::Closed => Poll::Ready(Err(Error::ConnectionRefused)),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Reads what has come. 0 at the end, or if `buffer` is empty.
    pub(crate) fn poll_read(
        &mut self,
        id: SocketId,
        buffer: &mut [u8],
        context: &mut Context<'_>,
    ) -> Poll<Result<usize>> {
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let socket = self.tcp(id);
        match socket.recv_slice(buffer) {
            Ok(0) => {
                socket.register_recv_waker(context.waker());
                Poll::Pending
            }
            Ok(read) => {
                // The window may have grown by enough to tell.
                self.touch();
                Poll::Ready(Ok(read))
            }
            Err(RecvError::Finished) => Poll::Ready(Ok(0)),
            Err(RecvError::InvalidState) => Poll::Ready(Err(Error::ConnectionReset)),
        }
    }

    /// Takes as much of `bytes` as there is room for.
    pub(crate) fn poll_write(
        &mut self,
        id: SocketId,
        bytes: &[u8],
        context: &mut Context<'_>,
    ) -> Poll<Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let socket = self.tcp(id);
        match socket.send_slice(bytes) {
            Ok(0) => {
                socket.register_send_waker(context.waker());
                Poll::Pending
            }
            Ok(written) => {
                self.touch();
                Poll::Ready(Ok(written))
            }
            Err(_) if socket.state() == State::Closed => Poll::Ready(Err(Error::ConnectionReset)),
            Err(_) => Poll::Ready(Err(Error::Closed)),
        }
    }

    /// Ends what this side sends: after what is queued, the other end sees the end.
    pub(crate) fn shut_down(&mut self, id: SocketId, now: Instant) {
        self.tcp(id).close();
        self.links[id.link].end(id.handle, now, true);
        self.touch();
    }

    /// Ends the connection at once; the other end is told that it was not completed.
    pub(crate) fn abort(&mut self, id: SocketId) {
        self.tcp(id).abort();
        self.touch();
    }

    /// Lets go of a connection. It goes on until what is queued has been sent.
    pub(crate) fn release(&mut self, id: SocketId, now: Instant) {
        self.tcp(id).close();
        self.links[id.link].end(id.handle, now, false);
        self.touch();
    }

    /// Lets go of a connection that nobody waits for to become complete. One that has not is
    /// forgotten at once: nobody has to be told, and its memory is for others.
    pub(crate) fn give_up(&mut self, id: SocketId, now: Instant) {
        if matches!(self.tcp(id).state(), State::SynSent | State::Closed) {
            self.links[id.link].forget(id.handle, &mut self.pool);
        } else {
            self.release(id, now);
        }
    }

    /// Whether small segments leave at once.
    pub(crate) fn set_nodelay(&mut self, id: SocketId, nodelay: bool) {
        self.tcp(id).set_nagle_enabled(!nodelay);
        self.touch();
    }

    /// The address of this end and that of the other, while there is a connection.
    pub(crate) fn ends(&mut self, id: SocketId) -> Option<(SocketAddr, SocketAddr)> {
        let socket = self.tcp(id);
        let (local, remote) = (socket.local_endpoint()?, socket.remote_endpoint()?);
        Some((local.into(), remote.into()))
    }

    fn tcp(&mut self, id: SocketId) -> &mut tcp::Socket<'static> {
        self.links[id.link].sockets.get_mut(id.handle)
    }

    /// Whether a connection or a listener has the port.
    fn is_tcp_port_taken(&self, link: usize, port: u16) -> bool {
        let of = |socket: &Socket<'_>| match socket {
            Socket::Tcp(socket) => socket.local_endpoint().map(|end| end.port),
            _ => None,
        };
        let mut sockets = self.links[link].sockets.iter();
        self.listeners.has_port(port) || sockets.any(|(_, socket)| of(socket) == Some(port))
    }
}

/// Where a socket listens that is for one connection, to `to`.
pub(super) fn door(to: SocketAddr) -> IpListenEndpoint {
    IpListenEndpoint::from(to)
}
