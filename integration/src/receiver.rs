//! Hears every frame that arrives at an interface, whatever it is and wherever it is addressed to,
//! with the moment at which the kernel took it in. It says how many it missed.
#![allow(unsafe_code, reason = "packet sockets are read by raw calls")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::taps::{check, packet_socket};

/// Frames that are taken in a call.
const BATCH: usize = 64;

/// The first bytes of each that are kept.
pub const HEAD: usize = 256;

/// Room for frames that have not been taken, in bytes of the kernel's memory.
const ROOM: libc::c_int = 256 << 20;

/// Room for the moment of a frame, as a control message.
const CONTROL: usize = 64;

/// An open ear.
#[derive(Debug)]
pub struct Receiver(OwnedFd);

/// A frame that was heard.
#[derive(Debug, Clone, Copy)]
pub struct Heard<'a> {
    /// When the kernel took it in, since 1970.
    pub at: Duration,
    /// Its length: the whole of it, also if it is to be cut into segments.
    pub len: usize,
    /// Its first [`HEAD`] bytes, or all.
    pub head: &'a [u8],
}

impl Receiver {
    /// Hears what arrives at `interface` of this thread's namespace from now on.
    ///
    /// # Errors
    /// If there is no such interface, or this process may not.
    pub fn on(interface: &str) -> io::Result<Self> {
        let socket = packet_socket(interface, (libc::ETH_P_ALL as u16).to_be())?;
        option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        option(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
        option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, ROOM)?;
        Ok(Self(socket))
    }

    /// Hands over what has arrived, waiting at most so long for the first; how many there were.
    ///
    /// # Panics
    /// If the socket fails, which it does when its interface goes.
    pub fn take(&self, patience: Duration, mut each: impl FnMut(Heard<'_>)) -> usize {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let patience = Timespec {
            tv_sec: patience.as_secs() as i64,
            tv_nsec: patience.subsec_nanos().into(),
        };
        match poll(&mut fds, Some(&patience)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return 0,
            Ok(_) => {}
            Err(error) => panic!("waiting for frames: {error}"),
        }
        let mut taken = 0;
        loop {
            let count = self.take_batch(&mut each);
            taken += count;
            if count < BATCH {
                return taken;
            }
        }
    }

    fn take_batch(&self, each: &mut impl FnMut(Heard<'_>)) -> usize {
        let mut heads = [[0u8; HEAD]; BATCH];
        let mut controls = [[0u64; CONTROL / 8]; BATCH];
        let mut parts: [libc::iovec; BATCH] = std::array::from_fn(|index| libc::iovec {
            iov_base: heads[index].as_mut_ptr().cast(),
            iov_len: HEAD,
        });
        // SAFETY: all members are numbers or addresses, of which zero is a valid value.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        for ((message, part), control) in messages.iter_mut().zip(&mut parts).zip(&mut controls) {
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_control = control.as_mut_ptr().cast();
            message.msg_hdr.msg_controllen = CONTROL as _;
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        // SAFETY: each message names one buffer and one of control messages, with their sizes; all
        // of them outlive the call, and nothing else refers to them meanwhile.
        let count = unsafe {
            libc::recvmmsg(
                self.0.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH as libc::c_uint,
                flags as _,
                std::ptr::null_mut(),
            )
        };
        let count = match check(count) {
            Ok(count) => count as usize,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => panic!("taking frames: {error}"),
        };
        for (message, head) in messages[..count].iter().zip(&heads) {
            let len = message.msg_len as usize;
            each(Heard {
                at: moment(&message.msg_hdr),
                len,
                head: &head[..len.min(HEAD)],
            });
        }
        count
    }

    /// Frames for which there was no room since this was asked last.
    ///
    /// # Panics
    /// If the socket does not tell.
    pub fn missed(&self) -> u32 {
        let mut told = [0u32; 2];
        let mut len = size_of_val(&told) as libc::socklen_t;
        // SAFETY: writes at most `len` bytes there: two numbers, `tpacket_stats`.
        let result = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                told.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        check(result).expect("a packet socket counts");
        told[1]
    }
}

/// The moment that comes with a message.
fn moment(message: &libc::msghdr) -> Duration {
    // SAFETY: the kernel has filled in the control messages, whose buffer is still there.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !control.is_null() {
        // SAFETY: not null: it lies whole in that buffer.
        let header = unsafe { *control };
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) {
            // SAFETY: a message of this type holds a `timespec`, aligned or not.
            let at = unsafe {
                std::ptr::read_unaligned(libc::CMSG_DATA(control).cast::<libc::timespec>())
            };
            return Duration::new(at.tv_sec as u64, at.tv_nsec as u32);
        }
        // SAFETY: as for the first.
        control = unsafe { libc::CMSG_NXTHDR(message, control) };
    }
    panic!("a frame came without its moment");
}

fn option(
    socket: &OwnedFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    let value = (&raw const value).cast();
    // SAFETY: reads `len` bytes of the number, which lives through the call.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value, len) }).map(drop)
}
