//! The link between a sliver's namespace and the host's: a claim on a range of ports by its name on
//! the host, with an address at each end.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::Ipv4Addr;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netdevice::{index_to_name, name_to_index};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use vmm::net::ports::PortRange;

use super::super::netlink::Netlink;
use super::super::plain;
use super::{Wanted, ranges};
use crate::problem::Problem;

/// What the host's ends are called, before the range.
pub(super) const PREFIX: &str = "slv";

/// What the sliver's end is called.
pub(super) const UPLINK: &str = "uplink";

/// The first of the addresses of links, set aside for tests between machines (RFC 2544): they are
/// nobody's, and never seen outside. Each range has the two that begin at twice its first port.
const ADDRESSES: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

/// A prefix of two addresses (RFC 3021).
const PREFIX_BITS: u8 = 31;

/// Ports that the host's own connections begin at.
const OWN_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// The host's namespace, held by a thread that is about to leave it.
#[derive(Debug)]
pub(in super::super) struct Outside {
    netlink: Netlink,
    socket: OwnedFd,
    /// The interfaces, as /proc lists them.
    interfaces: File,
    own_ports: (u16, u16),
}

/// A link, of which the host's end is not yet up.
#[derive(Debug)]
pub(in super::super) struct Link {
    outside: Outside,
    pub(super) ports: PortRange,
    /// Number of the host's end.
    pub(super) index: u32,
}

/// Name of the host's end of the link for a range.
pub(super) fn link_name(ports: PortRange) -> String {
    format!("{PREFIX}{ports}")
}

/// The addresses of the host's end and of the sliver's.
fn addresses(ports: PortRange) -> (Ipv4Addr, Ipv4Addr) {
    let host = ADDRESSES.to_bits() | u32::from(ports.first()) << 1;
    (Ipv4Addr::from_bits(host), Ipv4Addr::from_bits(host | 1))
}

/// Whether the calling thread's namespace has an interface of this number.
pub(super) fn exists(index: u32) -> bool {
    match socket() {
        Ok(socket) => !matches!(
            index_to_name(&socket, index),
            Err(Errno::NODEV | Errno::NXIO)
        ),
        // Not to know is no reason to take it for gone.
        Err(_) => true,
    }
}

impl Outside {
    /// That of the calling thread.
    pub(in super::super) fn here() -> Result<Self, Problem> {
        let open = || -> io::Result<Self> {
            let own_ports = std::fs::read_to_string(OWN_PORTS)?;
            let mut ends = own_ports.split_whitespace().map(str::parse);
            let own_ports = match (ends.next(), ends.next()) {
                (Some(Ok(first)), Some(Ok(last))) => (first, last),
                _ => return Err(io::Error::other(format!("{OWN_PORTS} holds no range"))),
            };
            Ok(Self {
                netlink: Netlink::open()?,
                socket: socket()?,
                interfaces: File::open("/proc/thread-self/net/dev")?,
                own_ports,
            })
        };
        open().map_err(|error| failed("the host's network cannot be asked", &error))
    }

    /// Makes a link from `namespace`, which the calling thread is in, that claims a range.
    pub(super) fn claim(
        mut self,
        wanted: &Wanted,
        namespace: BorrowedFd<'_>,
    ) -> Result<Link, Problem> {
        let candidates = match wanted.ports {
            Some(ports) => vec![self.allowed(ports)?],
            None => ranges::candidates(&wanted.sliver, self.own_ports, &wanted.avoid),
        };
        for ports in &candidates {
            if let Some(index) = self.try_claim(*ports, &wanted.sliver, namespace)? {
                return Ok(Link {
                    outside: self,
                    ports: *ports,
                    index,
                });
            }
        }
        let (first, last) = self.own_ports;
        Err(match wanted.ports {
            Some(ports) => {
                let why = "some of these ports are another sliver's";
                Problem::new(format!("--net nat,ports={ports}"), why)
                    .mend("ip -brief link tells the ranges that are taken: slvFIRST-LAST")
            }
            None if candidates.is_empty() => {
                let why = format!("this host's own connections begin at all ports, {first}-{last}");
                Problem::new("--net nat", why)
                    .mend("leave some: sudo sysctl -w net.ipv4.ip_local_port_range='32768 60999'")
            }
            None => {
                let why = format!("all {} ranges of 1000 ports are taken", candidates.len());
                Problem::new("--net nat", why)
                    .mend("end a sliver, or name a smaller range: --net nat,ports=16400-16499")
            }
        })
    }

    /// Refuses a range of which the host uses some ports for itself.
    fn allowed(&self, ports: PortRange) -> Result<PortRange, Problem> {
        let (first, last) = self.own_ports;
        match ports.last() < first || last < ports.first() {
            true => Ok(ports),
            false => {
                let why = format!("this host's own connections begin at ports {first}-{last}");
                Err(Problem::new(format!("--net nat,ports={ports}"), why)
                    .mend("choose others, or change net.ipv4.ip_local_port_range"))
            }
        }
    }

    /// Claims a range, if none of its ports is another's; the number of the link.
    fn try_claim(
        &mut self,
        ports: PortRange,
        sliver: &str,
        namespace: BorrowedFd<'_>,
    ) -> Result<Option<u32>, Problem> {
        if !self.claims_over(ports)?.is_empty() {
            return Ok(None);
        }
        let name = link_name(ports);
        match self.netlink.add_veth(&name, sliver, UPLINK, namespace) {
            Ok(()) => {}
            Err(error) if Errno::from_io_error(&error) == Some(Errno::EXIST) => return Ok(None),
            Err(error) => return Err(failed("a link to the host cannot be made", &error)),
        }
        let index = name_to_index(&self.socket, &name)
            .map_err(|error| failed("the link is lost", &error.into()))?;
        // Others look at the names before they make one, and so may have missed this one, but not
        // both: who came later gives way.
        let others = self.claims_over(ports)?;
        let first = others.iter().filter(|other| **other != name);
        let first = first.filter_map(|other| name_to_index(&self.socket, other).ok());
        if first.min().is_some_and(|other| other < index) {
            let _ = self.netlink.remove_link(index);
            return Ok(None);
        }
        Ok(Some(index))
    }

    /// Names of the links that claim some of these ports.
    fn claims_over(&mut self, ports: PortRange) -> Result<Vec<String>, Problem> {
        let mut table = String::new();
        self.interfaces
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.interfaces.read_to_string(&mut table))
            .map_err(|error| failed("the host's links cannot be listed", &error))?;
        let names = table.lines().filter_map(|line| line.split_once(':'));
        let names = names.map(|(name, _)| name.trim());
        let claims = names.filter(|name| {
            let range = name.strip_prefix(PREFIX).and_then(|text| text.parse().ok());
            range.is_some_and(|range: PortRange| range.overlaps(ports))
        });
        Ok(claims.map(str::to_owned).collect())
    }
}

impl Link {
    /// Removes both ends.
    pub(super) fn remove(&self) {
        let _ = self.outside.netlink.remove_link(self.index);
    }

    /// Gives both ends their addresses. The calling thread is in the sliver's namespace.
    pub(super) fn set_up(&self) -> Result<(), Problem> {
        let (host, sliver) = addresses(self.ports);
        let both = || -> io::Result<()> {
            let outside = &self.outside.netlink;
            let _ = outside.take_no_address_by_itself(self.index);
            outside.add_address(self.index, host.into(), PREFIX_BITS)?;
            outside.bring_up(self.index, None)?;
            let inside = Netlink::open()?;
            let uplink = name_to_index(socket()?, UPLINK)?;
            let _ = inside.take_no_address_by_itself(uplink);
            inside.add_address(uplink, sliver.into(), PREFIX_BITS)?;
            inside.bring_up(uplink, None)?;
            inside.add_default_route(host)
        };
        both().map_err(|error| failed("the link to the host cannot be set up", &error))
    }
}

fn socket() -> io::Result<OwnedFd> {
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

fn failed(what: &str, error: &io::Error) -> Problem {
    let problem = Problem::new("--net nat", format!("{what}: {}", plain(error)));
    match Errno::from_io_error(error) {
        Some(Errno::PERM) => problem.mend("run slicectl as root"),
        Some(Errno::OPNOTSUPP) => problem.mend("sudo modprobe veth"),
        _ => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_is_one_and_links_of_disjoint_ranges_share_no_address() {
        let last = PortRange::new(65_000, 65_535).unwrap();
        assert!(link_name(last).len() < 16);
        let (host, sliver) = addresses(last);
        assert_eq!(
            (host, sliver),
            ([198, 19, 251, 208].into(), [198, 19, 251, 209].into())
        );
        let next = PortRange::new(17_016, 17_999).unwrap();
        let first = PortRange::new(17_000, 17_015).unwrap();
        assert_ne!(addresses(first).0, addresses(next).0);
    }
}
