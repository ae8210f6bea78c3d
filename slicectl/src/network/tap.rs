//! Taps: making one, and asking whether one that is there can be used.
#![allow(unsafe_code, reason = "the kernel's interface to taps is an ioctl")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::plain;
use crate::problem::Problem;

const DEVICE: &str = "/dev/net/tun";

/// The parts of `struct ifreq` that TUNSETIFF reads and writes.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    /// The kernel copies a whole `struct ifreq`.
    rest: [u8; size_of::<libc::ifreq>() - libc::IFNAMSIZ - 2],
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());

/// Makes tap `name` in the namespace of the calling thread. It is gone when its descriptor is.
pub(super) fn create(name: &str) -> Result<OwnedFd, Problem> {
    let what = "--net tap";
    let device = open().map_err(|error| unopened(what, &error))?;
    attach(&device, name)
        .map_err(|error| Problem::new(what, format!("no tap can be made: {}", plain(&error))))?;
    Ok(device.into())
}

/// Checks that there is a tap called `name` that this process may use and nobody else uses.
pub fn check(name: &str) -> Result<(), Problem> {
    let what = format!("--net tap={name}");
    // To open a name that is not there makes a tap.
    if !exists(name) {
        return Err(
            Problem::new(what, "there is no such interface").mend(format!(
                "ip tuntap add dev {name} mode tap user USER makes it, \
             --net tap without a name needs none"
            )),
        );
    }
    let device = open().map_err(|error| unopened(&what, &error))?;
    let problem = match attach(&device, name) {
        Ok(()) => return Ok(()),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::BUSY) => Problem::new(what, "is in use: another process has it open"),
            Some(Errno::PERM) => Problem::new(what, "is another user's").mend(format!(
                "ip tuntap add dev {name} mode tap user USER makes one that is yours"
            )),
            Some(Errno::INVAL) => Problem::new(what, "is no tap with one queue")
                .mend("ip -details link tells what it is"),
            _ => Problem::new(what, format!("cannot be used: {}", plain(&error))),
        },
    };
    Err(problem)
}

fn exists(name: &str) -> bool {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    );
    socket.is_ok_and(|socket| name_to_index(socket.as_fd(), name).is_ok())
}

fn open() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(DEVICE)
}

fn unopened(what: &str, error: &io::Error) -> Problem {
    let problem = Problem::new(what, format!("{DEVICE} cannot be opened: {}", plain(error)));
    match error.kind() {
        io::ErrorKind::PermissionDenied => problem.mend("run slicectl as root"),
        _ => problem.mend("sudo modprobe tun"),
    }
}

/// Makes `device` the other end of the tap called `name`, which is made if it is not there.
fn attach(device: &File, name: &str) -> io::Result<()> {
    let mut request = Request {
        name: [0; libc::IFNAMSIZ],
        flags: (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short,
        rest: [0; _],
    };
    // The last byte stays the terminator.
    for (to, from) in request.name[..libc::IFNAMSIZ - 1]
        .iter_mut()
        .zip(name.bytes())
    {
        *to = from;
    }
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, whose size `request` has (checked
    // above) and which lives past the call; its fields are plain data of which any value is valid.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
