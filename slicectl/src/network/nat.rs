//! A way out for a sliver: a link from its namespace into the host's, which is masqueraded there.
//!
//! The sliver's ports outside are a range that no other sliver of this host has. The link's name is
//! the claim on it: the kernel gives a name once, to whoever comes first, and takes it back with the
//! sliver's namespace, however that ended. Addresses and routes go with the link. What does not is
//! a table of the host's packet filter. It outlives the link, so that nothing ever leaves without
//! it, and is removed at the end, or by the next that makes one.
//!
//! Both masquerades, out of the namespace and out of the host, keep the ports that the monitor has
//! chosen, and give no other than the range's. IPv4 only.

mod link;
mod ranges;
mod rules;

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::BorrowedFd;

use vmm::net::ports::PortRange;

use super::Card;
use crate::problem::Problem;
pub(super) use link::{Link, Outside};

/// Whether the host forwards packets.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// An address of the Internet, to ask for the way there; nothing is sent (RFC 5737).
const FAR: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// What a sliver's way out shall be.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The sliver's name: the same gets the same range as long as nobody else has it.
    pub sliver: String,
    /// The range, if it is to be a certain one.
    pub ports: Option<PortRange>,
    /// Ports of the host that lead to somebody, as published ones do.
    pub avoid: Vec<u16>,
}

/// What the outside sees of a sliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Public {
    /// The sliver's ports.
    pub ports: PortRange,
    /// The host's address, if it has a way to the Internet.
    pub address: Option<Ipv4Addr>,
}

/// A way out, until it is dropped.
#[derive(Debug)]
pub(super) struct WayOut {
    pub(super) public: Public,
    table: String,
    link: Link,
}

/// What this host lacks for `--net nat`.
pub fn objections() -> Vec<Problem> {
    let mut problems = Vec::new();
    if !rules::program_is_there() {
        problems.push(rules::no_program());
    }
    if !forwards() {
        problems.push(
            Problem::new("--net nat", "this host does not forward packets")
                .mend("sudo sysctl -w net.ipv4.ip_forward=1"),
        );
    }
    problems
}

/// Whether the host, as the calling thread sees it, forwards packets.
pub fn forwards() -> bool {
    std::fs::read_to_string(FORWARDING).is_ok_and(|text| text.trim() == "1")
}

/// Whether the program is there that makes rules for the packet filter.
pub fn can_make_rules() -> bool {
    rules::program_is_there()
}

/// Connects the calling thread's namespace, of which `namespace` is a descriptor, with the host's
/// network: those of the cards that lead out.
pub(super) fn connect(
    outside: Outside,
    namespace: BorrowedFd<'_>,
    wanted: &Wanted,
    cards: &[Card],
) -> Result<Link, Problem> {
    let link = outside.claim(wanted, namespace)?;
    link.set_up()?;
    std::fs::write(FORWARDING, "1").map_err(|error| {
        let why = format!("the sliver's namespace cannot forward: {error}");
        Problem::new("--net nat", why)
    })?;
    let leading_out = cards.iter().filter(|card| card.leads_out);
    let taps: Vec<String> = leading_out.map(Card::tap_name).collect();
    rules::load(&rules::inside(link.ports, &taps))?;
    Ok(link)
}

impl WayOut {
    /// Lets what comes out of `link` go further. The calling thread is in the host's namespace.
    pub(super) fn open(link: Link) -> Result<Self, Problem> {
        rules::sweep(link::exists);
        let table = rules::table_name(link.ports, link.index);
        rules::load(&rules::outside(&table, link.ports))?;
        Ok(Self {
            public: Public {
                ports: link.ports,
                address: host_address(),
            },
            table,
            link,
        })
    }
}

impl Drop for WayOut {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next.
        let _ = rules::remove(&self.table);
        // It would go with the sliver's namespace, too, but the kernel takes its time for that, and
        // the next sliver of these ports would find them taken.
        self.link.remove();
    }
}

/// The address that this host has for the Internet.
fn host_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(FAR).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) if !address.is_unspecified() => Some(address),
        _ => None,
    }
}

/// Name servers of the host that a guest behind it can ask: not the host itself.
pub fn name_servers() -> Vec<Ipv4Addr> {
    // A resolver on the host, as systemd's, keeps the servers that it asks itself in the second.
    ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .map(|text| servers_in(&text))
        .find(|servers| !servers.is_empty())
        .unwrap_or_default()
}

fn servers_in(text: &str) -> Vec<Ipv4Addr> {
    let words = text.lines().map(str::split_whitespace);
    let servers = words.filter_map(|mut words| {
        let is_server = words.next() == Some("nameserver");
        words.next().filter(|_| is_server)?.parse().ok()
    });
    let servers =
        servers.filter(|server: &Ipv4Addr| !server.is_loopback() && !server.is_unspecified());
    servers.take(vmm::spec::MAX_DNS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_those_that_a_guest_can_reach() {
        let text = "# nameserver 192.0.2.9\nsearch example.org\nnameserver 127.0.0.53\n\
                    nameserver fd00::1\nnameserver 192.0.2.1\n nameserver\t192.0.2.2\n\
                    nameserver 192.0.2.3\n";
        let wanted: Vec<Ipv4Addr> = vec![[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
        assert_eq!(servers_in(text), wanted);
        assert!(servers_in("nameserver 127.0.0.53\n").is_empty());
    }
}
