//! Links, addresses, routes and neighbours of the calling thread's network namespace, through netlink.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::net::{RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
use vmm::spec::Mac;

/// An answer to a request that lists nothing: an acknowledgement or an error, with the request.
const MAX_ANSWER: usize = 4096;

/// A conversation with the kernel about one network namespace: that in which it was begun.
#[derive(Debug)]
pub(super) struct Netlink(OwnedFd);

impl Netlink {
    /// Begins one about the calling thread's namespace.
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket_with(
            rustix::net::AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // The first of its protocols, which is about routes, links and addresses.
            None,
        )?;
        Ok(Self(socket))
    }

    /// Sets a link going, with packets of at most `mtu` bytes if that is said.
    pub(super) fn bring_up(&self, link: u32, mtu: Option<u16>) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        let mtu = mtu.map(|mtu| LinkAttribute::Mtu(u32::from(mtu)));
        message.attributes.extend(mtu);
        self.ask(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Has a link take no IPv6 address but those it is given. It then has nothing to say to its
    /// neighbours by itself, and wakes none of them.
    pub(super) fn take_no_address_by_itself(&self, link: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.attributes = vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
            vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)],
        )])];
        self.ask(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Gives a link an address, for use at once: nobody else can have it.
    pub(super) fn add_address(&self, link: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        message.header.prefix_len = prefix;
        message.header.index = link;
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes = vec![
            AddressAttribute::Local(address),
            AddressAttribute::Address(address),
        ];
        let request = RouteNetlinkMessage::NewAddress(message);
        self.ask(request, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Notes who a neighbour is, so that nobody needs to ask.
    pub(super) fn add_neighbour(&self, link: u32, address: IpAddr, mac: Mac) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = link;
        message.header.state = NeighbourState::Permanent;
        message.attributes = vec![
            NeighbourAttribute::Destination(match address {
                IpAddr::V4(address) => NeighbourAddress::Inet(address),
                IpAddr::V6(address) => NeighbourAddress::Inet6(address),
            }),
            NeighbourAttribute::LinkLayerAddress(mac.bytes().to_vec()),
        ];
        let request = RouteNetlinkMessage::NewNeighbour(message);
        self.ask(request, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Makes a pair of links: `name`, with a remark, and `peer` in another namespace. Both are gone
    /// when one of them is, or its namespace.
    pub(super) fn add_veth(
        &self,
        name: &str,
        remark: &str,
        peer: &str,
        namespace: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let mut far = LinkMessage::default();
        far.attributes = vec![
            LinkAttribute::IfName(peer.to_owned()),
            LinkAttribute::NetNsFd(namespace.as_raw_fd()),
        ];
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
            ]),
        ];
        let request = RouteNetlinkMessage::NewLink(message);
        self.ask(request, NLM_F_CREATE | NLM_F_EXCL)?;
        // A kernel that takes no remark has a link all the same.
        let _ = self.remark(name, remark);
        Ok(())
    }

    fn remark(&self, name: &str, remark: &str) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::IfAlias(remark.to_owned()),
        ];
        self.ask(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Removes a link.
    pub(super) fn remove_link(&self, link: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        self.ask(RouteNetlinkMessage::DelLink(message), 0)
    }

    /// Has all that is for nobody near go to `gateway`.
    pub(super) fn add_default_route(&self, gateway: Ipv4Addr) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway))];
        let request = RouteNetlinkMessage::NewRoute(message);
        self.ask(request, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Sends a request and waits for the kernel's word on it.
    fn ask(&self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        send(&self.0, &bytes, SendFlags::empty())?;

        let mut answer = [0; MAX_ANSWER];
        let (len, _) = recv(&self.0, &mut answer[..], RecvFlags::empty())?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer[..len])
            .map_err(|error| io::Error::other(error.to_string()))?;
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
            _ => Ok(()),
        }
    }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
