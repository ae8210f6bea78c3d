//! A tap: the end of a network interface of the host that carries a sliver's frames.
//!
//! Whoever gives the sliver its network makes the interface; here it is only opened, or taken over
//! as an open descriptor, and never made. Each frame has a virtio header of 12 bytes before it.
//! Reading and writing never wait.
#![allow(
    unsafe_code,
    reason = "the ioctls of taps (tun(4)) take raw structures"
)]

mod host;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};

use crate::spec::TapName;

/// Bytes of the virtio header before each frame (virtio 1.2, 5.1.6: with `num_buffers`).
pub const HEADER_BYTES: usize = 12;

/// Where taps are opened.
const TUN_DEVICE: &str = "/dev/net/tun";

/// What the tap has to be: Ethernet frames, each after a virtio header and nothing else.
const FLAGS: i32 = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// A tap cannot be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub enum TapError {
    #[error("cannot open {TUN_DEVICE}, which tap {name} needs: {source}")]
    Device { name: String, source: io::Error },
    #[error("there is no network interface {name}: make the tap first")]
    Missing { name: String },
    #[error("network interface {name} is not a tap, or one with several queues")]
    NotATap { name: String },
    #[error("tap {name} is in use")]
    Busy { name: String },
    #[error("tap {name} belongs to another user")]
    NotOurs { name: String },
    #[error("the descriptor handed in as a tap is not one: {source}")]
    NotATapDescriptor { source: io::Error },
    #[error(
        "tap {name}, handed in as a descriptor, must be opened with IFF_TAP, IFF_NO_PI and \
         IFF_VNET_HDR"
    )]
    WrongMode { name: String },
    #[error("cannot set up tap {name}: {source}")]
    SetUp { name: String, source: io::Error },
}

/// Work on frames that the reader of a tap takes over from the host's network stack.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TapOffloads {
    /// Checksums may be missing.
    pub checksum: bool,
    /// TCP over IPv4 may come in segments larger than the MTU; needs `checksum`.
    pub tso4: bool,
    /// TCP over IPv6 may.
    pub tso6: bool,
}

/// An open tap.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    name: String,
    /// What the host counts, if it tells.
    figures: Option<File>,
}

impl Tap {
    /// Opens the tap called `name`, which must exist.
    pub fn open(name: &TapName) -> Result<Self, TapError> {
        let name = name.as_str().to_owned();
        // Attaching to a name that is not there makes an interface: look first, and again after.
        let Some(index) = index_of(&name) else {
            return Err(TapError::Missing { name });
        };
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = match open(TUN_DEVICE, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(error) => {
                let source = error.into();
                return Err(TapError::Device { name, source });
            }
        };
        let mut request = request(&name);
        // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives through the call.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        if let Err(source) = check(result) {
            return Err(match source.raw_os_error() {
                Some(libc::EINVAL) => TapError::NotATap { name },
                Some(libc::EBUSY) => TapError::Busy { name },
                Some(libc::EPERM) => TapError::NotOurs { name },
                _ => TapError::SetUp { name, source },
            });
        }
        if index_of(&name) != Some(index) {
            return Err(TapError::Missing { name });
        }
        Self::of(fd, name).set_up()
    }

    /// Takes over the tap that `fd` is attached to.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, TapError> {
        let mut request = request("");
        // SAFETY: TUNGETIFF writes one `ifreq`, which lives through the call. What else answers to
        // this number (it is a tun's own) answers with an error.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, &raw mut request) };
        check(result).map_err(|source| TapError::NotATapDescriptor { source })?;
        let name = name_in(&request);
        // SAFETY: TUNGETIFF has filled in this member; any bits are a valid number.
        let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
        if flags & FLAGS != FLAGS {
            return Err(TapError::WrongMode { name });
        }
        let set_nonblocking = fcntl_getfl(&fd).and_then(|f| fcntl_setfl(&fd, f | OFlags::NONBLOCK));
        if let Err(error) = set_nonblocking {
            let source = error.into();
            return Err(TapError::SetUp { name, source });
        }
        Self::of(fd, name).set_up()
    }

    fn of(fd: OwnedFd, name: String) -> Self {
        Self {
            fd,
            name,
            figures: None,
        }
    }

    /// Frames as this monitor wants them, whatever a reader before it has asked for.
    fn set_up(self) -> Result<Self, TapError> {
        let size = HEADER_BYTES as i32;
        // SAFETY: TUNSETVNETHDRSZ reads one int, which lives through the call.
        let result = unsafe { libc::ioctl(self.raw(), libc::TUNSETVNETHDRSZ, &raw const size) };
        match check(result).and_then(|()| self.set_offloads(TapOffloads::default())) {
            Ok(()) => Ok(self),
            Err(source) => Err(TapError::SetUp {
                name: self.name,
                source,
            }),
        }
    }

    /// Says what work the reader takes over, for frames from now on: those that wait in the tap
    /// stay as they are.
    pub fn set_offloads(&self, offloads: TapOffloads) -> io::Result<()> {
        let bits = [
            (offloads.checksum, libc::TUN_F_CSUM),
            (offloads.checksum && offloads.tso4, libc::TUN_F_TSO4),
            (offloads.checksum && offloads.tso6, libc::TUN_F_TSO6),
        ];
        let set = bits.into_iter().filter(|(wanted, _)| *wanted);
        let flags = set.fold(0, |flags, (_, bit)| flags | bit);
        let argument = libc::c_ulong::from(flags);
        // SAFETY: the argument of TUNSETOFFLOAD is a number, not an address.
        check(unsafe { libc::ioctl(self.raw(), libc::TUNSETOFFLOAD, argument) })
    }

    /// Name of the interface when it was opened.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Frames that came for the sliver while the tap was full, since its interface was made; `None`
    /// if the host does not tell.
    pub fn dropped(&self) -> Option<u64> {
        host::dropped(self.figures.as_ref()?, &self.name)
    }

    /// The tap itself, for another process that [takes it over](Self::from_fd).
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Opens what the host counts of it. Takes privileges if the tap is another user's.
    pub fn open_figures(&self) -> io::Result<File> {
        host::figures(self.as_fd())
    }

    /// With these figures, from [`Self::open_figures`].
    #[must_use]
    pub fn with_figures(self, figures: Option<File>) -> Self {
        Self { figures, ..self }
    }

    fn raw(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Something that keeps the borders of frames, as a tap does.
    #[cfg(test)]
    pub(crate) fn stand_in(fd: OwnedFd) -> Self {
        Self::of(fd, "stand-in".to_owned())
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Index of the interface called `name` in this thread's network namespace.
fn index_of(name: &str) -> Option<u32> {
    let any = socket(AddressFamily::UNIX, SocketType::DGRAM, None).ok()?;
    name_to_index(any, name).ok()
}

/// A request about the interface called `name`, at most [`TapName::MAX_BYTES`].
fn request(name: &str) -> libc::ifreq {
    // SAFETY: all members are numbers, or addresses that nobody follows here: zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = FLAGS as libc::c_short;
    request
}

fn name_in(request: &libc::ifreq) -> String {
    let bytes = request.ifr_name.iter().map(|&c| c as u8);
    let name: Vec<u8> = bytes.take_while(|&byte| byte != 0).collect();
    String::from_utf8_lossy(&name).into_owned()
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
