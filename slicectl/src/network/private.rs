//! A network namespace of a sliver's own, with a tap for each of its cards.
#![allow(
    unsafe_code,
    reason = "a thread leaves its process's network namespace"
)]

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use vmm::spec::Mac;

use super::netlink::Netlink;
use super::{plain, tap};
use crate::problem::Problem;

/// The loopback interface is the first of every namespace.
const LOOPBACK: u32 = 1;

/// A card of a sliver that gets a tap of its own, and the host's side of it.
#[derive(Debug, Clone)]
pub struct Card {
    /// Its place among the sliver's cards.
    pub index: usize,
    /// Its hardware address.
    pub mac: Mac,
    /// Its largest packet.
    pub mtu: u16,
    /// Its own addresses.
    pub guest: Vec<IpAddr>,
    /// The host's addresses, with their prefixes.
    pub host: Vec<(IpAddr, u8)>,
    /// Whether it leads out of the namespace, by the [way out](super::nat) that is made.
    pub leads_out: bool,
}

/// Moves the calling thread, and nothing else of the process, into a new network namespace.
pub(super) fn enter_new_namespace() -> Result<(), Problem> {
    // SAFETY: the thread parts with the others' network only. Descriptors, memory and all else that
    // code of this process could count on stay shared.
    let made = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
    made.map_err(|error| {
        let why = plain(&error.into());
        let problem = Problem::new(
            "--net tap",
            format!("a network namespace cannot be made: {why}"),
        );
        match error {
            rustix::io::Errno::PERM => problem.mend(
                "run slicectl as root, or have a tap made that is yours and name it: \
                 --net tap=NAME",
            ),
            _ => problem,
        }
    })?;
    // Connections to the sliver all begin at one address: without these, so many of them end in a
    // minute that no port is left to begin the next from. A host that refuses has fewer ports.
    let _ = std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535");
    let _ = std::fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "8192");
    let up = Netlink::open().and_then(|netlink| netlink.bring_up(LOOPBACK, None));
    up.map_err(|error| failed("loopback cannot be brought up", &error))
}

/// A descriptor of the calling thread's network namespace.
pub(super) fn current_namespace() -> io::Result<OwnedFd> {
    Ok(std::fs::File::open("/proc/thread-self/ns/net")?.into())
}

impl Card {
    /// Name of its tap.
    pub(super) fn tap_name(&self) -> String {
        format!("tap{}", self.index)
    }

    /// Makes the tap in the calling thread's namespace and gives it the host's addresses.
    pub(super) fn make_tap(&self) -> Result<OwnedFd, Problem> {
        let name = self.tap_name();
        let tap = tap::create(&name)?;
        self.set_up(&name).map(|()| tap)
    }

    fn set_up(&self, name: &str) -> Result<(), Problem> {
        let open = || -> io::Result<(Netlink, u32)> {
            let socket = socket_with(
                AddressFamily::UNIX,
                SocketType::DGRAM,
                SocketFlags::CLOEXEC,
                None,
            )?;
            Ok((Netlink::open()?, name_to_index(socket.as_fd(), name)?))
        };
        let (netlink, link) = open().map_err(|error| failed("the tap is lost", &error))?;
        // A kernel without IPv6 knows no such addresses.
        let _ = netlink.take_no_address_by_itself(link);
        netlink
            .bring_up(link, Some(self.mtu))
            .map_err(|error| failed("the tap cannot be brought up", &error))?;
        for (address, prefix) in &self.host {
            netlink
                .add_address(link, *address, *prefix)
                .map_err(|error| {
                    let what = format!("the host's side cannot have {address}/{prefix}");
                    failed(&what, &error)
                })?;
        }
        for address in &self.guest {
            netlink
                .add_neighbour(link, *address, self.mac)
                .map_err(|error| failed(&format!("{address} cannot be a neighbour"), &error))?;
        }
        Ok(())
    }
}

fn failed(what: &str, error: &io::Error) -> Problem {
    Problem::new("--net tap", format!("{what}: {}", plain(error)))
}
