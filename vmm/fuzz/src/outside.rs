//! What devices of a fuzzed guest are connected to.
#![allow(unsafe_code, reason = "taps are made, and signals set, by raw calls")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use serde_json::{Value, json};
use vmm::spec::SliverSpec;

/// A spec with these fields beside the ones that every spec has.
///
/// # Panics
/// If that is not a spec.
pub fn spec(fields: &Value) -> SliverSpec {
    let mut spec = json!({
        "version": 1,
        "name": "fuzz",
        "slice": "test_fuzz",
        "owner": "Fuzz Test",
        "contact": "fuzz@example.org",
        "image": "/absent/image",
    });
    for (name, value) in fields.as_object().expect("fields are an object") {
        spec[name] = value.clone();
    }
    SliverSpec::parse(spec.to_string().as_bytes()).expect("it is a spec")
}

/// Lets a write to what nobody reads any more be an error, as in every Rust program: this one's
/// `main` is libFuzzer's.
pub fn ignore_closed_pipes() {
    // SAFETY: sets how a signal is taken; there is no handler to be wrong.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// A tap in a network namespace of this process's own, and a socket by which its host sends frames.
///
/// # Panics
/// If they cannot be had: that needs `/dev/net/tun`, and root or user namespaces.
pub fn taps() -> (OwnedFd, OwnedFd) {
    // SAFETY: takes numbers only; no other thread relies on this process's namespaces.
    let alone = unsafe {
        libc::unshare(libc::CLONE_NEWNET) == 0
            || libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) == 0
    };
    assert!(alone, "no namespace: {}", io::Error::last_os_error());
    let tun = File::options().read(true).write(true).open("/dev/net/tun");
    let tun = tun.expect("there is /dev/net/tun");
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let mut made = request();
    made.ifr_ifru.ifru_flags = flags as libc::c_short;
    ioctl(&tun, libc::TUNSETIFF, &mut made);
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: takes numbers only.
    let socket = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    assert!(socket >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the descriptor was just opened and is nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let mut found = request();
    ioctl(&socket, libc::SIOCGIFINDEX, &mut found);
    // SAFETY: all members are numbers, of which zero is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    // SAFETY: SIOCGIFINDEX has filled in this member; any bits are a valid number.
    address.sll_ifindex = unsafe { found.ifr_ifru.ifru_ifindex };
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address lives through the call, and `len` is its size.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    assert_eq!(bound, 0, "{}", io::Error::last_os_error());
    let mut up = request();
    up.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    ioctl(&socket, libc::SIOCSIFFLAGS, &mut up);
    (tun.into(), socket)
}

fn request() -> libc::ifreq {
    // SAFETY: all members are numbers, or addresses that nobody follows here: zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"fuzz") {
        *to = *from as libc::c_char;
    }
    request
}

fn ioctl(fd: &impl AsRawFd, number: libc::Ioctl, request: &mut libc::ifreq) {
    // SAFETY: every number this is called with takes one `ifreq`, which lives through the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), number, std::ptr::from_mut(request)) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// Whether a text can be shown to people as it is: one line that does nothing to a terminal.
pub fn shown_in_one_line(text: &str) -> bool {
    !text.chars().any(|c| {
        c.is_control()
            || matches!(
                c,
                '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            )
    })
}
