//! For tests: a network namespace that nobody else sees, taps in it, and the host's end of them.
#![allow(unsafe_code, reason = "makes taps and packet sockets")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// EtherType for experiments (IEEE 802): what tests send, so that nothing else is taken for it.
pub(crate) const TEST_ETHERTYPE: u16 = 0x88b5;

/// How long to wait for a frame that is on its way.
const PATIENCE_MS: i32 = 10_000;

/// Runs `test` in a network namespace of its own, which goes with its thread.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        // SAFETY: takes numbers only; a network namespace of its own changes nothing that other
        // threads rely on.
        let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        let error = io::Error::last_os_error();
        assert_eq!(result, 0, "tests of taps need CAP_SYS_ADMIN: {error}");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A descriptor attached to an interface called `name`, which is made if it does not exist.
pub(crate) fn attach(name: &str, flags: i32) -> OwnedFd {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .unwrap();
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = flags as i16;
    ioctl(&file, libc::TUNSETIFF, &mut request);
    file.into()
}

/// Makes a tap that stays, and sets it up.
pub(crate) fn make_tap(name: &str) {
    let fd = attach(name, libc::IFF_TAP | libc::IFF_NO_PI);
    // SAFETY: the argument of TUNSETPERSIST is a number.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETPERSIST, 1) };
    assert_eq!(result, 0);
    set_up(name);
}

/// Sets an interface up.
pub(crate) fn set_up(name: &str) {
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
    ioctl(&datagram_socket(), libc::SIOCSIFFLAGS, &mut request);
}

/// Whether there is an interface called `name`.
pub(crate) fn exists(name: &str) -> bool {
    let mut request = request(name);
    let socket = datagram_socket();
    let (fd, request) = (socket.as_raw_fd(), &raw mut request);
    // SAFETY: SIOCGIFINDEX reads and writes one `ifreq`, which lives through the call.
    let result = unsafe { libc::ioctl(fd, libc::SIOCGIFINDEX, request) };
    result == 0
}

/// Deletes an interface, whoever uses it.
pub(crate) fn delete(name: &str) {
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the descriptor was just opened and is nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // A `nlmsghdr` and an `ifinfomsg` (rtnetlink(7)), 16 bytes each.
    let mut message = [0; 32];
    message[0] = 32;
    message[4..6].copy_from_slice(&libc::RTM_DELLINK.to_ne_bytes());
    message[6] = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u8;
    message[20..24].copy_from_slice(&index_of(name).to_ne_bytes());
    assert_eq!(rustix::io::write(&fd, &message), Ok(32));
    let mut answer = [0; 256];
    rustix::io::read(&fd, &mut answer).unwrap();
    assert_eq!(answer[16..20], [0; 4], "error {:?}", &answer[16..20]);
}

fn index_of(name: &str) -> i32 {
    let mut request = request(name);
    ioctl(&datagram_socket(), libc::SIOCGIFINDEX, &mut request);
    // SAFETY: SIOCGIFINDEX has filled in this member; any bits are a valid number.
    unsafe { request.ifr_ifru.ifru_ifindex }
}

/// The host's end: sends and receives whole frames, each after the virtio header of 10 bytes that
/// packet sockets have (`PACKET_VNET_HDR`).
#[derive(Debug)]
pub(crate) struct HostEnd(OwnedFd);

/// Bytes of a packet socket's virtio header.
pub(crate) const PACKET_HEADER: usize = 10;

impl HostEnd {
    /// Of the interface called `name`, for frames of one EtherType.
    pub(crate) fn open(name: &str, ethertype: u16) -> Self {
        let protocol = ethertype.to_be();
        // SAFETY: takes numbers only.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, protocol.into()) };
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the descriptor was just opened and is nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let on = 1i32;
        // SAFETY: the option is one int, which lives through the call.
        let result = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_VNET_HDR,
                (&raw const on).cast(),
                size_of::<i32>() as u32,
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        // SAFETY: all members are numbers: zeros are valid.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = index_of(name);
        // SAFETY: the address lives through the call, and the length is its size.
        let result = unsafe {
            libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        Self(fd)
    }

    /// Sends a frame through the interface, so that the tap's reader gets it.
    pub(crate) fn send(&self, header: [u8; PACKET_HEADER], frame: &[u8]) {
        let bytes = [&header[..], frame].concat();
        assert_eq!(rustix::io::write(&self.0, &bytes), Ok(bytes.len()));
    }

    /// The next frame that the tap's reader has sent, with its header.
    pub(crate) fn receive(&self) -> Vec<u8> {
        let mut fds = [rustix::event::PollFd::new(
            &self.0,
            rustix::event::PollFlags::IN,
        )];
        let limit = rustix::event::Timespec {
            tv_sec: i64::from(PATIENCE_MS / 1000),
            tv_nsec: 0,
        };
        assert_eq!(rustix::event::poll(&mut fds, Some(&limit)), Ok(1));
        let mut bytes = vec![0; 70_000];
        let len = rustix::io::read(&self.0, &mut bytes).unwrap();
        bytes.truncate(len);
        bytes
    }
}

fn datagram_socket() -> OwnedFd {
    std::net::UdpSocket::bind("0.0.0.0:0").unwrap().into()
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: all members are numbers, or addresses that nobody follows here: zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as i8;
    }
    request
}

fn ioctl(fd: &impl AsRawFd, number: libc::Ioctl, request: &mut libc::ifreq) {
    // SAFETY: every number this is called with takes one `ifreq`, which lives through the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), number, std::ptr::from_mut(request)) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}
