//! Listeners with a backlog.
//!
//! A `smoltcp` socket accepts one connection and answers everybody else's SYN with a reset. So
//! each SYN is looked at before `smoltcp` sees it, and if somebody listens on its port a socket is
//! made just for it. When too many connections wait to be accepted, or there is no memory, the SYN
//! is dropped without a word: the client tries again.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::task::{Context, Poll, Waker};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::Socket;
use smoltcp::socket::tcp::{self, State};

use super::link::Link;
use super::pool::Pool;
use super::tcp::door;
use super::{SocketId, Stack, canonical};
use crate::net::wire::Layout;
use crate::net::{Error, Result, TcpOptions};
use crate::task::crowd::add_waker;
use crate::time::Instant;

/// Frames that are taken in at a time, before tasks have a look at what came of it.
const BATCH: usize = 256;

/// Names a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListenerId(usize);

/// All listeners.
#[derive(Debug, Default)]
pub(super) struct Listeners(Vec<Option<Listener>>);

#[derive(Debug)]
struct Listener {
    address: SocketAddr,
    options: TcpOptions,
    /// Connections that have begun and have not been accepted, in the order of their SYNs.
    pending: VecDeque<SocketId>,
    wakers: Vec<Waker>,
}

/// What becomes of a frame.
enum Verdict {
    Drop,
    Pass,
    /// It begins a connection.
    Syn {
        from: SocketAddr,
        to: SocketAddr,
    },
}

impl Stack {
    /// Listens on `address`; port 0 stands for any that is free.
    pub(crate) fn listen(
        &mut self,
        address: SocketAddr,
        options: TcpOptions,
    ) -> Result<ListenerId> {
        let mut address = canonical(address);
        if !self.has_address(address.ip()) {
            return Err(Error::AddressNotAvailable);
        }
        if address.port() == 0 {
            let port = self.free_port(|stack, port| stack.listeners.has_port(port));
            address.set_port(port.ok_or(Error::AddressInUse)?);
        } else if self
            .listeners
            .all()
            .any(|other| overlap(other.address, address))
        {
            return Err(Error::AddressInUse);
        }
        let listener = Listener {
            address,
            options,
            pending: VecDeque::new(),
            wakers: Vec::new(),
        };
        Ok(ListenerId(place(&mut self.listeners.0, listener)))
    }

    /// Where a listener listens.
    pub(crate) fn listener_address(&self, id: ListenerId) -> Option<SocketAddr> {
        Some(self.listeners.0[id.0].as_ref()?.address)
    }

    /// Waits for a connection.
    pub(crate) fn poll_accept(
        &mut self,
        id: ListenerId,
        context: &mut Context<'_>,
    ) -> Poll<Result<(SocketId, SocketAddr)>> {
        let Some(listener) = &mut self.listeners.0[id.0] else {
            return Poll::Ready(Err(Error::Closed));
        };
        let links = &self.links;
        let accepted = listener
            .pending
            .iter()
            .enumerate()
            .find_map(|(index, &id)| {
                let socket = tcp(links, id);
                is_established(socket).then_some((index, id, socket.remote_endpoint()?))
            });
        let Some((index, id, remote)) = accepted else {
            add_waker(&mut listener.wakers, context);
            return Poll::Pending;
        };
        listener.pending.remove(index);
        Poll::Ready(Ok((id, remote.into())))
    }

    /// Ends a listener. Connections that were not accepted are reset.
    pub(crate) fn end_listener(&mut self, id: ListenerId, now: Instant) {
        let Some(listener) = self.listeners.0[id.0].take() else {
            return;
        };
        for id in listener.pending {
            self.abort(id);
            self.release(id, now);
        }
    }

    /// Takes in frames. Whether there were any.
    pub(super) fn take_in(&mut self, index: usize, now: Instant) -> bool {
        for taken in 0..BATCH {
            let Some(verdict) = self.links[index].look(judge) else {
                return taken > 0;
            };
            let opened = match verdict {
                Verdict::Drop => Err(()),
                Verdict::Pass => Ok(None),
                Verdict::Syn { from, to } => self.open(index, from, to),
            };
            let link = &mut self.links[index];
            match opened {
                Err(()) => link.drop_frame(),
                Ok(None) => link.take_in(now),
                Ok(Some(listener)) => {
                    link.take_in(now);
                    self.listeners
                        .tend_one(listener, &mut self.links, &mut self.pool);
                }
            }
        }
        true
    }

    /// Makes a socket for a SYN if somebody listens there; `Err` if the SYN is to be dropped.
    fn open(
        &mut self,
        link: usize,
        from: SocketAddr,
        to: SocketAddr,
    ) -> core::result::Result<Option<usize>, ()> {
        let Self {
            links,
            listeners,
            pool,
            ..
        } = self;
        if !links[link].has_address(to.ip()) {
            return Ok(None);
        }
        let Some(index) = listeners.at(to) else {
            return Ok(None);
        };
        let Some(listener) = &mut listeners.0[index] else {
            return Ok(None);
        };
        if let Some(handle) = connection(&links[link], from, to)
            && !links[link].end_wait(handle, pool)
        {
            // A SYN that comes again. One after the end of an earlier connection is a new one; while
            // that is still to be reset it comes too early.
            let closed =
                links[link].sockets.get::<tcp::Socket<'_>>(handle).state() == State::Closed;
            return if closed { Err(()) } else { Ok(None) };
        }
        if listener.pending.len() >= listener.options.backlog {
            return Err(());
        }
        let mut socket = pool.take(&listener.options).ok_or(())?;
        if socket.listen(door(to)).is_err() {
            pool.give_back(socket);
            return Err(());
        }
        let handle = links[link].sockets.add(socket);
        listener.pending.push_back(SocketId { link, handle });
        Ok(Some(index))
    }
}

impl Listeners {
    /// Wakes who waits for connections that have become complete, and forgets those that have
    /// come to nothing.
    pub(super) fn tend(&mut self, links: &mut [Link], pool: &mut Pool) {
        for index in 0..self.0.len() {
            self.tend_one(index, links, pool);
        }
    }

    fn tend_one(&mut self, index: usize, links: &mut [Link], pool: &mut Pool) {
        let Some(listener) = &mut self.0[index] else {
            return;
        };
        let mut complete = false;
        listener.pending.retain(|&id| {
            let socket = tcp(links, id);
            complete |= is_established(socket);
            // A reset makes one listen again; one whose SYN was refused has never begun.
            let in_vain = matches!(socket.state(), State::Listen)
                || socket.state() == State::Closed && socket.remote_endpoint().is_none();
            if in_vain && let Socket::Tcp(socket) = links[id.link].sockets.remove(id.handle) {
                pool.give_back(socket);
            }
            !in_vain
        });
        if complete {
            listener.wakers.drain(..).for_each(Waker::wake);
        }
    }

    /// Whether somebody listens on a port.
    pub(super) fn has_port(&self, port: u16) -> bool {
        self.all().any(|listener| listener.address.port() == port)
    }

    fn all(&self) -> impl Iterator<Item = &Listener> {
        self.0.iter().flatten()
    }

    /// Who listens there: whoever named the address, else whoever listens on all.
    fn at(&self, to: SocketAddr) -> Option<usize> {
        let listens = |listener: &&Option<Listener>| {
            let address = listener.as_ref().map(|listener| listener.address);
            address.is_some_and(|address| overlap(address, to))
        };
        self.0.iter().position(|listener| listens(&listener))
    }
}

/// What becomes of a frame, `verified` or not.
fn judge(frame: &[u8], verified: bool) -> Verdict {
    match Layout::of(frame) {
        Some(layout) if !verified && !layout.checksum_is_right(frame) => Verdict::Drop,
        Some(layout) if layout.is_syn(frame) => {
            let (from, to) = layout.ends(frame);
            Verdict::Syn { from, to }
        }
        _ => Verdict::Pass,
    }
}

/// The socket of a connection.
fn connection(link: &Link, from: SocketAddr, to: SocketAddr) -> Option<SocketHandle> {
    let mut sockets = link.sockets.iter();
    sockets.find_map(|(handle, socket)| {
        let Socket::Tcp(socket) = socket else {
            return None;
        };
        let ends = (socket.remote_endpoint()?, socket.local_endpoint()?);
        (ends == (from.into(), to.into())).then_some(handle)
    })
}

fn tcp(links: &[Link], id: SocketId) -> &tcp::Socket<'static> {
    links[id.link].sockets.get(id.handle)
}

/// Whether a connection can be accepted: it has begun, and not ended without a trace.
fn is_established(socket: &tcp::Socket<'_>) -> bool {
    !matches!(
        socket.state(),
        State::Closed | State::Listen | State::SynSent | State::SynReceived
    )
}

/// Whether two addresses cannot both be bound: `[::]` stands for all, `0.0.0.0` for all of IPv4.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |wide: IpAddr, address: IpAddr| match wide {
        IpAddr::V6(wide) if wide.is_unspecified() => true,
        IpAddr::V4(wide) if wide.is_unspecified() => address.is_ipv4(),
        _ => wide == address,
    };
    let (a, b) = (one.ip(), other.ip());
    one.port() == other.port() && (covers(a, b) || covers(b, a))
}

/// Puts something into the first free place.
pub(super) fn place<T>(places: &mut Vec<Option<T>>, thing: T) -> usize {
    let index = places
        .iter()
        .position(Option::is_none)
        .unwrap_or(places.len());
    if index == places.len() {
        places.push(None);
    }
    places[index] = Some(thing);
    index
}
