//! Taps in network namespaces that nobody else sees: each by itself with the host's end of it, or
//! all on a bridge with one uplink.
#![allow(unsafe_code, reason = "taps and packet sockets are made by raw calls")]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::receiver::Receiver;

/// EtherType for experiments (IEEE 802): nothing else is taken for a test's frames.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// A tap that nobody reads yet, and the host's side of it.
#[derive(Debug)]
pub struct Tap {
    /// To hand to a monitor.
    pub fd: OwnedFd,
    /// Where the host sends.
    pub host: HostEnd,
}

/// The host's side of a tap.
#[derive(Debug)]
pub struct HostEnd(OwnedFd);

impl HostEnd {
    /// Sends a frame of this many bytes to everybody. A tap that is full drops it.
    pub fn send(&self, len: usize) {
        let mut frame = vec![0; len.max(14)];
        frame[..6].fill(0xff);
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        frame[12..14].copy_from_slice(&ETHERTYPE);
        // A dropped frame, too, is a frame sent.
        let _ = rustix::io::write(&self.0, &frame);
    }
}

/// Makes taps in one new namespace, which lives as long as they do.
///
/// # Panics
/// If that cannot be done: it needs CAP_SYS_ADMIN and `/dev/net/tun`.
pub fn make(count: usize) -> Vec<Tap> {
    make_all(count, make_one)
}

/// The same, each with all that comes out of it.
///
/// # Panics
/// If that cannot be done.
pub fn watched(count: usize) -> Vec<(Tap, Receiver)> {
    make_all(count, |name| Ok((make_one(name)?, Receiver::on(name)?)))
}

/// Makes taps on a bridge, as a node has them, and hears what arrives at the far end of its uplink,
/// in another namespace. The node itself sends nothing.
///
/// # Panics
/// If that cannot be done; it needs `ip`, too.
pub fn behind_uplink(count: usize) -> (Vec<Tap>, Receiver) {
    apart(move || {
        enter_new()?;
        let outside = File::open("/proc/thread-self/ns/net")?;
        silence()?;
        enter_new()?;
        silence()?;
        let node = File::open("/proc/thread-self/ns/net")?;
        let far = format!("/proc/{}/fd/{}", std::process::id(), outside.as_raw_fd());
        ip("link add bridge0 type bridge mcast_snooping 0")?;
        ip("link set bridge0 up")?;
        ip(&format!("link add up0 type veth peer name up1 netns {far}"))?;
        ip("link set up0 master bridge0 up")?;
        let mut taps = Vec::new();
        for name in (0..count).map(|index| format!("t{index}")) {
            taps.push(make_one(&name)?);
            ip(&format!("link set {name} master bridge0"))?;
        }
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(outside.as_fd(), network)?;
        ip("link set up1 up")?;
        let receiver = Receiver::on("up1")?;
        move_into_link_name_space(node.as_fd(), network)?;
        Ok((taps, receiver))
    })
}

/// Interfaces of this thread's namespace will have no addresses of IPv6 and send nothing by
/// themselves.
fn silence() -> io::Result<()> {
    fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")
}

fn ip(words: &str) -> io::Result<()> {
    let output = Command::new("ip").args(words.split(' ')).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "ip {words}: {}",
            String::from_utf8_lossy(&output.stderr)
        ))),
    }
}

fn make_all<T: Send + 'static>(
    count: usize,
    make: impl Fn(&str) -> io::Result<T> + Send + 'static,
) -> Vec<T> {
    apart(move || {
        enter_new()?;
        (0..count).map(|index| make(&format!("t{index}"))).collect()
    })
}

/// Does something on a thread of its own, which may leave the namespaces of the process.
fn apart<T: Send + 'static>(make: impl FnOnce() -> io::Result<T> + Send + 'static) -> T {
    let made = std::thread::spawn(make);
    let made = made.join().expect("the maker of taps does not panic");
    made.expect("taps are made (it needs root and /dev/net/tun)")
}

/// Moves this thread into a new network namespace.
fn enter_new() -> io::Result<()> {
    // SAFETY: takes a number; a network namespace of this thread's own is nothing that other
    // threads rely on.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

fn make_one(name: &str) -> io::Result<Tap> {
    let tun = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let mut wanted = request(name);
    wanted.ifr_ifru.ifru_flags = flags as libc::c_short;
    ioctl(&tun, libc::TUNSETIFF, &mut wanted)?;
    let host = packet_socket(name, 0)?;
    let mut up = request(name);
    up.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    ioctl(&host, libc::SIOCSIFFLAGS, &mut up)?;
    Ok(Tap {
        fd: tun.into(),
        host: HostEnd(host),
    })
}

/// A socket that sends whole frames through the interface, and receives those of this EtherType, in
/// the network's byte order; 0: none.
///
/// # Errors
/// If there is no such interface in this thread's namespace, or this process may not.
pub fn packet_socket(name: &str, ethertype: u16) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes numbers only.
    let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    // SAFETY: the descriptor was just opened and is nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut found = request(name);
    ioctl(&socket, libc::SIOCGIFINDEX, &mut found)?;
    // SAFETY: all members are numbers, of which zero is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_protocol = ethertype;
    // SAFETY: SIOCGIFINDEX has filled in this member; any bits are a valid number.
    address.sll_ifindex = unsafe { found.ifr_ifru.ifru_ifindex };
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address lives through the call, and `len` is its size.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    Ok(socket)
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: all members are numbers, or addresses that nobody follows here: zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

fn ioctl(fd: &impl AsRawFd, number: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: every number this is called with takes one `ifreq`, which lives through the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), number, std::ptr::from_mut(request)) }).map(drop)
}

pub(crate) fn check(result: i32) -> io::Result<i32> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}
