//! Taps: making one, and asking whether one that is there can be used.
#![allow(unsafe_code, reason = "the kernel's interface to taps is an ioctl")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use vmm::net::tap::{Tap, TapError};
use vmm::spec::TapName;

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
pub fn check(name: &TapName) -> Result<(), Problem> {
    let what = format!("--net tap={name}");
    let make = format!("ip tuntap add dev {name} mode tap user USER makes");
    Err(match Tap::open(name) {
        Ok(_) => return Ok(()),
        Err(TapError::Device { source, .. }) => unopened(&what, &source),
        Err(TapError::Missing { .. }) => Problem::new(what, "there is no such interface")
            .mend(format!("{make} it, --net tap without a name needs none")),
        Err(TapError::Busy { .. }) => Problem::new(what, "is in use: another process has it open"),
        Err(TapError::NotOurs { .. }) => {
            Problem::new(what, "is another user's").mend(format!("{make} one that is yours"))
        }
        Err(TapError::NotATap { .. }) => {
            Problem::new(what, "is no tap with one queue").mend("ip -details link tells what it is")
        }
        Err(TapError::SetUp { source, .. }) => {
            Problem::new(what, format!("cannot be used: {}", plain(&source)))
        }
        Err(other) => Problem::new(what, format!("cannot be used: {other}")),
    })
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
