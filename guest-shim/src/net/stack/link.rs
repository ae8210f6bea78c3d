//! A card with its `smoltcp` interface and the sockets that live there.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use smoltcp::iface::{
    Config, Interface as SmoltcpInterface, PollIngressSingleResult, PollResult, SocketHandle,
    SocketSet,
};
use smoltcp::phy::DeviceCapabilities;
use smoltcp::socket::{Socket, dhcpv4, tcp};
use smoltcp::wire::{EthernetAddress, IpCidr};

use super::addresses::{Addressing, link_local};
use super::leaving::Leaving;
use super::pool::Pool;
use super::stack_time;
use super::tcp::set_patience;
use crate::net::card::{Card, Port, Properties, capabilities};
use crate::net::interface::Interface;
use crate::time::Instant;

/// Passes over the sockets in one poll: each sends at most one segment a pass.
const PASSES: usize = 64;

/// Connections that are kept after their end to catch what may still be under way.
const TIME_WAITS: usize = 64;

/// How long the other end of a connection that this one has ended may take to see it.
const END_PATIENCE: Duration = Duration::from_secs(60);

/// A connection that this end has ended.
#[derive(Debug)]
struct Ending {
    handle: SocketHandle,
    since: Instant,
    /// Whether somebody holds it still, and may read.
    held: bool,
}

/// A card in use.
pub(super) struct Link {
    name: String,
    card: Box<dyn Card>,
    properties: Properties,
    capabilities: DeviceCapabilities,
    pub(super) interface: SmoltcpInterface,
    pub(super) sockets: SocketSet<'static>,
    addressing: Addressing,
    dhcp: Option<SocketHandle>,
    pub(super) dns: Option<SocketHandle>,
    /// Connections that this end has ended and the other has not.
    endings: Vec<Ending>,
    /// Those of them that have ended but are kept, the oldest first.
    time_waits: VecDeque<SocketHandle>,
    /// Datagram sockets that nobody holds any more.
    leaving: Leaving,
    /// Something could not be sent for want of room.
    cramped: bool,
}

impl Link {
    pub(super) fn new(
        name: &str,
        mut card: Box<dyn Card>,
        addressing: Addressing,
        seed: u64,
        now: Instant,
    ) -> Self {
        let properties = card.properties();
        let capabilities = capabilities(&properties);
        let mut config = Config::new(EthernetAddress(properties.mac).into());
        config.random_seed = seed;
        let mut port = Port::new(&mut *card, &capabilities);
        let interface = SmoltcpInterface::new(config, &mut port, stack_time(now));
        let mut link = Self {
            name: name.to_owned(),
            card,
            properties,
            capabilities,
            interface,
            sockets: SocketSet::new(Vec::new()),
            addressing,
            dhcp: None,
            dns: None,
            endings: Vec::new(),
            time_waits: VecDeque::new(),
            leaving: Leaving::default(),
            cramped: false,
        };
        if link.addressing.dhcp && link.addressing.v4.is_none() {
            link.dhcp = Some(link.sockets.add(dhcpv4::Socket::new()));
        }
        link.apply_addresses();
        link
    }

    /// Sends what sockets want to send. Whether that was all, as far as there was room.
    pub(super) fn send(&mut self, now: Instant) -> bool {
        let mut port = Port::new(&mut *self.card, &self.capabilities);
        for _ in 0..PASSES {
            let passed = self
                .interface
                .poll_egress(stack_time(now), &mut port, &mut self.sockets);
            if passed == PollResult::None {
                self.cramped = !self.card.split().1.has_room();
                return true;
            }
        }
        false
    }

    /// Looks at the oldest frame that has come.
    pub(super) fn look<R>(&mut self, look: impl FnOnce(&[u8], bool) -> R) -> Option<R> {
        let frame = self.card.split().0.front()?;
        Some(look(frame.bytes, frame.verified))
    }

    /// Drops the oldest frame that has come.
    pub(super) fn drop_frame(&mut self) {
        self.card.split().0.drop_front();
    }

    /// Takes in the oldest frame that has come.
    pub(super) fn take_in(&mut self, now: Instant) {
        let mut port = Port::new(&mut *self.card, &self.capabilities);
        let taken =
            self.interface
                .poll_ingress_single(stack_time(now), &mut port, &mut self.sockets);
        if taken == PollIngressSingleResult::None {
            // It would come again and again.
            self.drop_frame();
        }
    }

    /// Gives the device what is for it.
    pub(super) fn publish(&mut self) {
        self.card.publish();
    }

    pub(super) fn ring(&mut self) {
        self.card.ring();
    }

    /// Gets ready for a rest; whether there is something to do instead.
    pub(super) fn rest(&mut self) -> bool {
        self.card.rest(self.cramped)
    }

    /// Whether what could not be sent for want of room can be sent now.
    pub(super) fn has_room_again(&mut self) -> bool {
        self.cramped && self.card.split().1.has_room()
    }

    /// When a socket wants to be looked at.
    pub(super) fn deadline(&mut self, now: Instant) -> Option<Instant> {
        let at = self.interface.poll_at(stack_time(now), &self.sockets);
        let at = at.map(|at| {
            let nanos = (at.total_micros().max(0) as u64).saturating_mul(1000);
            Instant::from_nanos(nanos)
        });
        // Who wants to send now but has no room waits for room, not for a time.
        let at = at.filter(|&at| at > now || !self.cramped);
        let ends = self
            .endings
            .iter()
            .map(|ending| ending.since + END_PATIENCE);
        let all = at.into_iter().chain(ends);
        all.chain(self.leaving.deadline()).min()
    }

    /// Does what is due after sockets may have changed.
    pub(super) fn tend(&mut self, pool: &mut Pool, now: Instant) {
        self.apply_lease();
        for (_, socket) in self.sockets.iter_mut() {
            if let Socket::Tcp(socket) = socket {
                set_patience(socket);
            }
        }
        let Self {
            sockets,
            endings,
            time_waits,
            ..
        } = self;
        endings.retain(|ending| {
            let socket = sockets.get_mut::<tcp::Socket<'_>>(ending.handle);
            let late = now >= ending.since + END_PATIENCE;
            if ending.held {
                let open = is_ending(socket.state());
                if open && late {
                    socket.abort();
                }
                return open && !late;
            }
            // What comes for nobody must not close the window.
            while socket.can_recv() && socket.recv(|bytes| (bytes.len(), ())).is_ok() {}
            match socket.state() {
                tcp::State::TimeWait => time_waits.push_back(ending.handle),
                tcp::State::Closed if late || socket.remote_endpoint().is_none() => {
                    give_back(sockets, pool, ending.handle);
                }
                _ => {
                    if late {
                        socket.abort();
                    }
                    return true;
                }
            }
            false
        });
        while let Some(&oldest) = time_waits.front() {
            let over = sockets.get::<tcp::Socket<'_>>(oldest).state() != tcp::State::TimeWait;
            if !over && time_waits.len() <= TIME_WAITS {
                break;
            }
            time_waits.pop_front();
            give_back(sockets, pool, oldest);
        }
        self.leaving.tend(sockets, now);
    }

    /// Lets go of a datagram socket, once it has sent what it has.
    pub(super) fn leave(&mut self, handle: SocketHandle, now: Instant) {
        self.leaving.add(handle, &mut self.sockets, now);
    }

    /// Makes way for a new datagram socket at a port.
    pub(super) fn clear_port(&mut self, port: u16) {
        self.leaving.forget_port(port, &mut self.sockets);
    }

    /// Takes note that this end of a connection has ended.
    pub(super) fn end(&mut self, handle: SocketHandle, now: Instant, held: bool) {
        self.endings.retain(|ending| ending.handle != handle);
        self.endings.push(Ending {
            handle,
            since: now,
            held,
        });
    }

    /// Ends the wait of a connection that is over. Whether it was waiting.
    pub(super) fn end_wait(&mut self, handle: SocketHandle, pool: &mut Pool) -> bool {
        let Some(index) = self.time_waits.iter().position(|&waits| waits == handle) else {
            return false;
        };
        self.time_waits.remove(index);
        give_back(&mut self.sockets, pool, handle);
        true
    }

    /// Forgets a connection.
    pub(super) fn forget(&mut self, handle: SocketHandle, pool: &mut Pool) {
        give_back(&mut self.sockets, pool, handle);
    }

    /// How well this link leads to an address: by the length of the prefix that they share, 0 for
    /// by way of a gateway.
    pub(super) fn reach(&self, to: IpAddr) -> Option<u8> {
        let addresses = self.interface.ip_addrs();
        let family = addresses
            .iter()
            .filter(|cidr| cidr.address().version() == version(to));
        let everywhere = match to {
            IpAddr::V4(to) => to.is_broadcast() || to.is_multicast(),
            IpAddr::V6(to) => to.is_multicast(),
        };
        let shared = family
            .clone()
            .filter(|cidr| everywhere || cidr.contains_addr(&to.into()))
            .map(|cidr| 1 + cidr.prefix_len())
            .max();
        let routes = self.interface.routes();
        let gateway = match to {
            IpAddr::V4(_) => routes.get_default_ipv4_route(),
            IpAddr::V6(_) => routes.get_default_ipv6_route(),
        };
        shared.or(gateway.filter(|_| family.count() > 0).map(|_| 0))
    }

    pub(super) fn has_address(&self, address: IpAddr) -> bool {
        self.interface.has_ip_addr(address)
    }

    /// The longest packet.
    pub(super) fn mtu(&self) -> usize {
        self.properties.mtu
    }

    pub(super) fn name_servers(&self) -> &[IpAddr] {
        &self.addressing.dns
    }

    /// Whether it has an IPv6 address that others than its neighbours know.
    pub(super) fn has_global_v6(&self) -> bool {
        self.addressing.v6.is_some()
    }

    /// Whether it has an IPv4 address.
    pub(super) fn has_v4(&self) -> bool {
        self.addressing.v4.is_some()
    }

    pub(super) fn is_configured(&self) -> bool {
        self.dhcp.is_none() || self.has_v4()
    }

    pub(super) fn describe(&self) -> Interface {
        let addresses = self.interface.ip_addrs().iter();
        Interface {
            name: self.name.clone(),
            mac: self.properties.mac,
            mtu: self.properties.mtu,
            addresses: addresses
                .map(|cidr| (cidr.address().into(), cidr.prefix_len()))
                .collect(),
        }
    }

    /// Takes over what DHCP says.
    fn apply_lease(&mut self) {
        let Some(handle) = self.dhcp else { return };
        match self.sockets.get_mut::<dhcpv4::Socket<'_>>(handle).poll() {
            None => return,
            Some(dhcpv4::Event::Configured(lease)) => {
                let cidr = lease.address;
                self.addressing.v4 = Some((cidr.address(), cidr.prefix_len()));
                self.addressing.gateway4 = lease.router;
                self.addressing.dns.retain(IpAddr::is_ipv6);
                let servers = lease.dns_servers.iter().map(|&server| IpAddr::V4(server));
                self.addressing.dns.extend(servers);
            }
            Some(dhcpv4::Event::Deconfigured) => {
                self.addressing.v4 = None;
                self.addressing.gateway4 = None;
            }
        }
        self.apply_addresses();
    }

    fn apply_addresses(&mut self) {
        let addressing = &self.addressing;
        let local = (link_local(self.properties.mac), 64);
        let v4 = addressing
            .v4
            .map(|(address, prefix)| IpCidr::new(address.into(), prefix));
        let v6 = addressing
            .v6
            .map(|(address, prefix)| IpCidr::new(address.into(), prefix));
        let local = IpCidr::new(local.0.into(), local.1);
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            for address in v4.into_iter().chain(v6).chain([local]) {
                // There is room for more than these three.
                let _ = addresses.push(address);
            }
        });
        let routes = self.interface.routes_mut();
        routes.update(|all| all.clear());
        if let Some(gateway) = addressing.gateway4 {
            let _ = routes.add_default_ipv4_route(gateway);
        }
        if let Some(gateway) = addressing.gateway6 {
            let _ = routes.add_default_ipv6_route(gateway);
        }
    }
}

fn version(address: IpAddr) -> smoltcp::wire::IpVersion {
    smoltcp::wire::IpAddress::from(address).version()
}

/// Whether this end of a connection has ended and the other has not seen it.
fn is_ending(state: tcp::State) -> bool {
    matches!(
        state,
        tcp::State::FinWait1 | tcp::State::Closing | tcp::State::LastAck
    )
}

fn give_back(sockets: &mut SocketSet<'static>, pool: &mut Pool, handle: SocketHandle) {
    if let Socket::Tcp(socket) = sockets.remove(handle) {
        pool.give_back(socket);
    }
}
