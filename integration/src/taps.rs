//! Taps in a network namespace that nobody else sees, and the host's end of each.
#![allow(unsafe_code, reason = "taps and packet sockets are made by raw calls")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

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

fn make_all<T: Send + 'static>(
    count: usize,
    make: impl Fn(&str) -> io::Result<T> + Send + 'static,
) -> Vec<T> {
    let maker = std::thread::spawn(move || -> io::Result<Vec<T>> {
        // SAFETY: takes a number; a network namespace of this thread's own is nothing that other
        // threads rely on.
        check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
        (0..count).map(|index| make(&format!("t{index}"))).collect()
    });
    let taps = maker.join().expect("the maker of taps does not panic");
    taps.expect("taps are made (it needs root and /dev/net/tun)")
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
