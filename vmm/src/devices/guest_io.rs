//! Moves bytes between descriptors and guest memory without copying them: vectors for readv(2),
//! writev(2) and their like, made of the buffers of chains.
//!
//! Each buffer is looked up again, whatever was checked before: what comes out points into memory
//! that devices may reach in that direction. The memory cannot go away while the vectors are
//! borrowed. Who gives them to the kernel for longer than a call, as with io_uring, keeps the
//! [`GuestRam`] itself until the kernel is done.
#![allow(unsafe_code, reason = "hands addresses of guest memory to the kernel")]

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::{GuestAddress, GuestMemory, Permissions};

use super::virtio::chain::Buffer;
use crate::kvm::memory::GuestRam;

/// Which way the bytes go.
pub trait Way: fmt::Debug {
    /// What is done with guest memory.
    const ACCESS: Permissions;
}

/// From a descriptor into guest memory.
#[derive(Debug)]
pub enum ToGuest {}

/// From guest memory into a descriptor.
#[derive(Debug)]
pub enum FromGuest {}

impl Way for ToGuest {
    const ACCESS: Permissions = Permissions::Write;
}

impl Way for FromGuest {
    const ACCESS: Permissions = Permissions::Read;
}

/// A buffer that does not lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at {address:#x} are not memory that the device can reach")]
pub struct Unreachable {
    address: u64,
    len: u64,
}

/// Room for vectors, used again and again.
#[derive(Default)]
pub struct VectorRoom(Vec<libc::iovec>);

// SAFETY: the addresses in it are used only through `Iovecs`, which begins by forgetting those that
// are left from before; what it borrows to make new ones may be used on any thread.
unsafe impl Send for VectorRoom {}

impl VectorRoom {
    /// Begins a list of vectors into `ram`.
    pub fn begin<'a, W: Way>(&'a mut self, ram: &'a GuestRam) -> Iovecs<'a, W> {
        self.0.clear();
        Iovecs {
            entries: &mut self.0,
            ram,
            bytes: 0,
            way: PhantomData,
        }
    }
}

impl fmt::Debug for VectorRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VectorRoom({})", self.0.capacity())
    }
}

/// A list of vectors.
#[derive(Debug)]
pub struct Iovecs<'a, W> {
    entries: &'a mut Vec<libc::iovec>,
    ram: &'a GuestRam,
    bytes: u64,
    way: PhantomData<W>,
}

impl<'a, W: Way> Iovecs<'a, W> {
    /// Adds what `buffers` hold after their first `skip` bytes, at most `limit` bytes. Gives the
    /// number of bytes added.
    pub fn add(
        &mut self,
        buffers: &[Buffer],
        mut skip: u64,
        limit: u64,
    ) -> Result<u64, Unreachable> {
        let mut left = limit;
        for buffer in buffers {
            let len = u64::from(buffer.len);
            if skip >= len {
                skip -= len;
                continue;
            }
            let part = (len - skip).min(left);
            if part == 0 {
                break;
            }
            self.add_range(buffer, skip, part)?;
            (skip, left) = (0, left - part);
        }
        self.bytes += limit - left;
        Ok(limit - left)
    }

    fn add_range(&mut self, buffer: &Buffer, offset: u64, len: u64) -> Result<(), Unreachable> {
        let unreachable = Unreachable {
            address: buffer.address.0,
            len: u64::from(buffer.len),
        };
        let address = buffer.address.0.checked_add(offset).ok_or(unreachable)?;
        let slices = self
            .ram
            .get_slices(GuestAddress(address), len as usize, W::ACCESS)
            .map_err(|_| unreachable)?;
        for slice in slices {
            let slice = slice.map_err(|_| unreachable)?;
            self.entries.push(libc::iovec {
                iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                iov_len: slice.len(),
            });
        }
        Ok(())
    }

    /// The vectors, for a call that takes them: [`Iovecs::count`] of them. The array moves when
    /// more are added.
    pub fn as_ptr(&self) -> *const libc::iovec {
        self.entries.as_ptr()
    }

    /// Number of vectors.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Bytes that they hold together.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes one call, again if a signal came first.
    fn call(&self, mut call: impl FnMut(*const libc::iovec, i32) -> isize) -> io::Result<usize> {
        let count = i32::try_from(self.count()).map_err(io::Error::other)?;
        loop {
            match usize::try_from(call(self.as_ptr(), count)) {
                Ok(bytes) => return Ok(bytes),
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
    }
}

impl<'a> Iovecs<'a, ToGuest> {
    /// Adds memory of our own.
    pub fn add_own(&mut self, bytes: &'a mut [u8]) {
        self.bytes += bytes.len() as u64;
        self.entries.push(libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        });
    }

    /// readv(2).
    pub fn read(&self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        let fd = fd.as_raw_fd();
        // SAFETY: each vector names memory of the guest that devices may write (checked when it was
        // added), or our own, borrowed mutably for `'a`; neither goes away before `self`. Nothing
        // else in this process holds references into guest memory.
        self.call(|vectors, count| unsafe { libc::readv(fd, vectors, count) })
    }

    /// preadv(2).
    pub fn read_at(&self, fd: BorrowedFd<'_>, offset: i64) -> io::Result<usize> {
        let fd = fd.as_raw_fd();
        // SAFETY: as in `read`.
        self.call(|vectors, count| unsafe { libc::preadv(fd, vectors, count, offset) })
    }
}

impl<'a> Iovecs<'a, FromGuest> {
    /// Adds memory of our own.
    pub fn add_own(&mut self, bytes: &'a [u8]) {
        self.bytes += bytes.len() as u64;
        self.entries.push(libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        });
    }

    /// writev(2).
    pub fn write(&self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        let fd = fd.as_raw_fd();
        // SAFETY: each vector names memory of the guest (checked when it was added), or our own,
        // borrowed for `'a`; neither goes away before `self`, and the kernel only reads it.
        self.call(|vectors, count| unsafe { libc::writev(fd, vectors, count) })
    }

    /// pwritev(2).
    pub fn write_at(&self, fd: BorrowedFd<'_>, offset: i64) -> io::Result<usize> {
        let fd = fd.as_raw_fd();
        // SAFETY: as in `write`.
        self.call(|vectors, count| unsafe { libc::pwritev(fd, vectors, count, offset) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slice_abi::info::Range;
    use slice_abi::layout::RAM_BASE;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use vm_memory::Bytes;

    fn ram() -> GuestRam {
        let range = Range {
            start: RAM_BASE,
            len: 1 << 20,
        };
        GuestRam::new(&[range], &[], RAM_BASE + 0x1000).unwrap()
    }

    fn buffer(offset: u64, len: u32) -> Buffer {
        Buffer {
            address: GuestAddress(RAM_BASE + offset),
            len,
        }
    }

    #[test]
    fn bytes_go_from_several_buffers_without_the_skipped_and_up_to_the_limit() {
        let (ram, mut room) = (ram(), VectorRoom::default());
        ram.write_any(b"abcd", RAM_BASE).unwrap();
        ram.write_any(b"efgh", RAM_BASE + 0x2000).unwrap();
        let buffers = [buffer(0, 4), buffer(0x2000, 4)];
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        for (skip, limit, expected) in [(0, u64::MAX, "abcdefgh"), (3, 3, "def"), (4, 9, "efgh")] {
            let mut vectors = room.begin::<FromGuest>(&ram);
            vectors.add_own(b"<");
            let added = vectors.add(&buffers, skip, limit).unwrap();
            assert_eq!(added, expected.len() as u64);
            assert_eq!(vectors.bytes(), added + 1);
            assert_eq!(vectors.write(ours.as_fd()).unwrap() as u64, added + 1);
            let mut got = vec![0; expected.len() + 1];
            theirs.read_exact(&mut got).unwrap();
            assert_eq!(got, format!("<{expected}").as_bytes());
        }
        assert_eq!(room.begin::<FromGuest>(&ram).add(&buffers, 8, 1), Ok(0));
    }

    #[test]
    fn bytes_come_into_guest_memory_and_our_own() {
        let (ram, mut room) = (ram(), VectorRoom::default());
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"abcdef").unwrap();
        let mut rest = [0; 8];
        let mut vectors = room.begin::<ToGuest>(&ram);
        vectors
            .add(&[buffer(0x1000, 1), buffer(0x3000, 3)], 0, 64)
            .unwrap();
        vectors.add_own(&mut rest);
        assert_eq!((vectors.count(), vectors.bytes()), (3, 12));
        assert_eq!(vectors.read(ours.as_fd()).unwrap(), 6);
        let mut got = [0; 3];
        ram.read_slice(&mut got, GuestAddress(RAM_BASE + 0x3000))
            .unwrap();
        assert_eq!((&got, &rest[..2]), (b"bcd", &b"ef"[..]));
    }

    #[test]
    fn files_are_read_and_written_at_a_place() {
        let (ram, mut room) = (ram(), VectorRoom::default());
        let file = tempfile::tempfile().unwrap();
        ram.write_any(b"data", RAM_BASE + 0x5000).unwrap();
        let mut vectors = room.begin::<FromGuest>(&ram);
        vectors.add(&[buffer(0x5000, 4)], 0, 4).unwrap();
        assert_eq!(vectors.write_at(file.as_fd(), 100).unwrap(), 4);
        let mut vectors = room.begin::<ToGuest>(&ram);
        vectors.add(&[buffer(0x6000, 8)], 0, 8).unwrap();
        assert_eq!(vectors.read_at(file.as_fd(), 102).unwrap(), 2);
        let mut got = [0; 2];
        ram.read_slice(&mut got, GuestAddress(RAM_BASE + 0x6000))
            .unwrap();
        assert_eq!(&got, b"ta");
    }

    #[test]
    fn what_devices_may_not_reach_is_refused() {
        let (ram, mut room) = (ram(), VectorRoom::default());
        let text = [buffer(0xfff, 2)];
        assert!(room.begin::<ToGuest>(&ram).add(&text, 0, 2).is_err());
        assert!(room.begin::<FromGuest>(&ram).add(&text, 0, 2).is_ok());
        let outside = [
            buffer(0xf_ffff, 2),
            Buffer {
                address: GuestAddress(u64::MAX),
                len: 2,
            },
        ];
        for bad in outside {
            assert!(room.begin::<FromGuest>(&ram).add(&[bad], 0, 2).is_err());
            assert!(room.begin::<FromGuest>(&ram).add(&[bad], 1, 2).is_err());
        }
    }
}
