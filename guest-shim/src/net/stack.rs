//! The TCP/IP stack of a slice: `smoltcp` made into what a server needs.
//!
//! A [`Stack`] has [links](link::Link), one per card, each with its own `smoltcp` interface and
//! sockets, and knows which link leads where. On top of `smoltcp` it adds a backlog for listeners,
//! an end for connections that nobody holds any more, limits on memory, and time-outs.
//!
//! # When what is done
//!
//! [`Stack::poll`] first sends what sockets want to send and then takes in what has come. What
//! comes in may wake tasks; what they answer is sent by the next poll, and acknowledgements travel
//! with it. So there are no delayed acknowledgements and no timers for them, and a program that
//! answers at once pays for no extra packet. Nothing is done when nothing has changed.
//!
//! Nothing here waits, and time is an argument: functions named `poll_*` are for futures.

mod addresses;
pub(crate) mod dns;
mod leaving;
mod link;
pub(crate) mod listen;
pub(crate) mod ping;
mod pool;
mod tcp;
#[cfg(test)]
mod tests;
pub(crate) mod udp;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::task::{Context, Poll, Waker};

use smoltcp::iface::SocketHandle;

use super::card::Card;
use super::interface::Interface;
use crate::task::crowd::add_waker;
use crate::time::Instant;

pub(crate) use addresses::Addressing;
use link::Link;
use listen::Listeners;
use pool::Pool;
use udp::Datagrams;

/// First of the ports that are given to those who do not ask for one (RFC 6335, 6).
const FIRST_FREE_PORT: u16 = 49152;

/// A socket: on which link, and its handle there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketId {
    link: usize,
    handle: SocketHandle,
}

/// The whole of it.
pub(crate) struct Stack {
    links: Vec<Link>,
    listeners: Listeners,
    datagrams: Datagrams,
    pool: Pool,
    random: Random,
    /// Those who wait for addresses.
    unconfigured: Vec<Waker>,
    /// Sockets may want to send.
    touched: bool,
    /// When a socket wants to be looked at, if that is known.
    deadline: Option<Option<Instant>>,
}

impl Stack {
    /// Without cards. Buffers of TCP sockets take at most `memory` bytes; `seed` should be another
    /// each time.
    pub(crate) fn new(memory: usize, seed: u64) -> Self {
        Self {
            links: Vec::new(),
            listeners: Listeners::default(),
            datagrams: Datagrams::default(),
            pool: Pool::new(memory),
            random: Random(seed | 1),
            unconfigured: Vec::new(),
            touched: false,
            deadline: None,
        }
    }

    /// Takes a card into use.
    pub(crate) fn add(
        &mut self,
        name: &str,
        card: Box<dyn Card>,
        addressing: Addressing,
        now: Instant,
    ) {
        let seed = self.random.next();
        self.links
            .push(Link::new(name, card, addressing, seed, now));
        self.touch();
    }

    /// Does all there is to do.
    pub(crate) fn poll(&mut self, now: Instant) {
        let mut due = self.touched || matches!(self.deadline, Some(Some(at)) if at <= now);
        for link in &mut self.links {
            due |= link.has_room_again();
        }
        self.touched = false;
        let mut active = due;
        for index in 0..self.links.len() {
            if due {
                let finished = self.links[index].send(now);
                self.touched |= !finished;
            }
            if self.take_in(index, now) {
                self.touched = true;
                active = true;
            }
            self.links[index].publish();
        }
        if active {
            self.deadline = None;
            self.listeners.tend(&mut self.links, &mut self.pool);
            for link in &mut self.links {
                link.tend(&mut self.pool, now);
            }
            if self.is_configured() {
                self.unconfigured.drain(..).for_each(Waker::wake);
            }
        }
    }

    /// When to poll at the latest, for who is about to rest until then or until a card has
    /// something new.
    pub(crate) fn deadline(&mut self, now: Instant) -> Option<Instant> {
        let mut busy = self.touched;
        for link in &mut self.links {
            busy |= link.rest();
        }
        if busy {
            return Some(now);
        }
        let links = &mut self.links;
        *self
            .deadline
            .get_or_insert_with(|| links.iter_mut().filter_map(|link| link.deadline(now)).min())
    }

    /// Tells devices what they have been given, for who goes on computing.
    pub(crate) fn ring(&mut self) {
        for link in &mut self.links {
            link.ring();
        }
    }

    /// The cards and their addresses.
    pub(crate) fn interfaces(&self) -> Vec<Interface> {
        self.links.iter().map(Link::describe).collect()
    }

    /// Waits until each card has the addresses it should have.
    pub(crate) fn poll_configured(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.is_configured() {
            return Poll::Ready(());
        }
        add_waker(&mut self.unconfigured, context);
        Poll::Pending
    }

    fn is_configured(&self) -> bool {
        self.links.iter().all(Link::is_configured)
    }

    /// Makes the next poll look at all sockets.
    fn touch(&mut self) {
        self.touched = true;
    }

    /// The link that leads to `to`: the one whose network it is in, else one with a gateway.
    fn route(&self, to: SocketAddr) -> Option<usize> {
        if let SocketAddr::V6(v6) = to
            && v6.scope_id() != 0
        {
            let index = v6.scope_id() as usize - 1;
            return (index < self.links.len()).then_some(index);
        }
        let reach = |link: &Link| link.reach(to.ip());
        let best = self.links.iter().enumerate().filter_map(|(index, link)| {
            let reach = reach(link)?;
            // Of equals the first.
            Some((reach, core::cmp::Reverse(index)))
        });
        best.max().map(|(_, core::cmp::Reverse(index))| index)
    }

    /// Whether a socket can be bound to `address`.
    fn has_address(&self, address: IpAddr) -> bool {
        address.is_unspecified() || self.links.iter().any(|link| link.has_address(address))
    }

    /// A port that `is_taken` does not know, of those for everybody.
    fn free_port(&mut self, is_taken: impl Fn(&Self, u16) -> bool) -> Option<u16> {
        let ports = u32::from(u16::MAX - FIRST_FREE_PORT) + 1;
        let start = self.random.next() as u32 % ports;
        (0..ports)
            .map(|step| FIRST_FREE_PORT + ((start + step) % ports) as u16)
            .find(|&port| !is_taken(self, port))
    }
}

/// Numbers that are hard to foresee without the seed (xorshift*); nothing secret depends on them.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}

/// An IPv4 address that is mapped into IPv6, as itself.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(v4.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// The stack's time as `smoltcp` counts it.
fn stack_time(now: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros(now.since_start().as_micros() as i64)
}
