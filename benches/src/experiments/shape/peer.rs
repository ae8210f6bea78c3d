//! The peers: two namespaces with a veth pair between them, a queueing discipline of the kernel's on
//! one end, and a program there that sends all it can.
#![allow(unsafe_code, reason = "packet sockets are set up by raw calls")]

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use integration::receiver::Receiver;
use integration::taps::packet_socket;

use super::{Case, Frame};
use integration::netns::Namespace;

/// Bytes of the header before a packet that is to be cut (virtio 1.2, 5.1.6, without the last member).
const HEADER: usize = 10;

/// A queueing discipline of the kernel's.
#[derive(Debug, Clone, Copy)]
pub(super) enum Discipline {
    Tbf,
    Htb,
}

impl Discipline {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tbf => "tc tbf",
            Self::Htb => "tc htb",
        }
    }
}

/// Two namespaces, and what connects them.
pub(super) struct Link {
    here: Namespace,
    there: Namespace,
}

/// A program that sends.
pub(super) struct Sending {
    enough: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<()>>,
}

impl Link {
    pub(super) fn new() -> Result<Self> {
        let (here, there) = (Namespace::new()?, Namespace::new()?);
        let path = there.path();
        here.ip(&format!(
            "link add veth0 type veth peer name veth1 netns {path}"
        ))?;
        here.ip("link set veth0 up")?;
        there.ip("link set veth1 up")?;
        Ok(Self { here, there })
    }

    pub(super) fn shape(&self, discipline: Discipline, case: Case) -> Result<()> {
        let (rate, burst) = (case.kbit, case.burst_kib() * 1024);
        let tc = |words: &str| self.here.tool("tc", words);
        match discipline {
            Discipline::Tbf => tc(&format!(
                "qdisc add dev veth0 root tbf rate {rate}kbit burst {burst} limit 16mb"
            )),
            Discipline::Htb => {
                tc("qdisc add dev veth0 root handle 1: htb default 1")?;
                tc(&format!(
                    "class add dev veth0 parent 1: classid 1:1 htb rate {rate}kbit burst {burst} \
                     cburst {burst}"
                ))
            }
        }
    }

    /// Hears what arrives at the far end.
    pub(super) fn ear(&self) -> Result<Receiver> {
        self.there.inside(|| Ok(Receiver::on("veth1")?))
    }

    /// Sends such frames at the near end until told to end.
    pub(super) fn flood(&self, frame: Frame) -> Result<Sending> {
        let socket = self.here.inside(|| socket().context("a packet socket"))?;
        let packet = packet(frame);
        let enough = Arc::new(AtomicBool::new(false));
        let enough_there = Arc::clone(&enough);
        let thread = thread::spawn(move || {
            while !enough_there.load(Ordering::Relaxed) {
                match rustix::io::write(&socket, &packet).map_err(io::Error::from) {
                    Ok(_) => {}
                    // A full queue drops it, or there is no room for now.
                    Err(error)
                        if error.kind() == ErrorKind::WouldBlock
                            || error.raw_os_error() == Some(libc::ENOBUFS) =>
                    {
                        thread::yield_now();
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        Ok(Sending { enough, thread })
    }
}

impl Sending {
    pub(super) fn end(self) -> Result<()> {
        self.enough.store(true, Ordering::Relaxed);
        let ended = self.thread.join().expect("the sender does not panic");
        ended.context("sending")
    }
}

/// A socket that takes packets with the header that says how to cut them, and waits when its queue
/// is full.
fn socket() -> io::Result<OwnedFd> {
    let socket = packet_socket("veth0", 0)?;
    let one: libc::c_int = 1;
    let len = size_of_val(&one) as libc::socklen_t;
    // SAFETY: reads `len` bytes of the number, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_VNET_HDR,
            (&raw const one).cast(),
            len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    rustix::io::ioctl_fionbio(&socket, false)?;
    Ok(socket)
}

/// The same frame as the slice sends.
fn packet(frame: Frame) -> Vec<u8> {
    let mut packet = vec![0; HEADER + frame.bytes()];
    let (header, bytes) = packet.split_at_mut(HEADER);
    bytes[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    bytes[12] = 8;
    let len = (frame.bytes() - 14) as u16;
    bytes[14] = 0x45;
    bytes[16..18].copy_from_slice(&len.to_be_bytes());
    bytes[22] = 64;
    bytes[26..30].copy_from_slice(&[10, 0, 0, 2]);
    bytes[30..34].copy_from_slice(&[10, 0, 0, 1]);
    bytes[34..38].copy_from_slice(&[0x0f, 0xa0, 0x23, 0x28]);
    if frame == Frame::Bundle {
        bytes[23] = 6;
        bytes[46..48].copy_from_slice(&[0x50, 0x10]);
        // To be summed, from the header of TCP on; to be cut into segments of 1448 bytes.
        (header[0], header[1]) = (1, 1);
        for (at, word) in [(2, 54u16), (4, 1448), (6, 34), (8, 16)] {
            header[at..at + 2].copy_from_slice(&word.to_le_bytes());
        }
    } else {
        bytes[23] = 17;
        bytes[38..40].copy_from_slice(&(len - 20).to_be_bytes());
    }
    let sum = checksum(&bytes[14..34]);
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The Internet's checksum (RFC 1071) of a header.
fn checksum(header: &[u8]) -> u16 {
    let words = header
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    !((sum & 0xffff) + (sum >> 16)) as u16
}
