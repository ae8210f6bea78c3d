//! The host's side of a vsock: a directory with a unix socket for each port.
//!
//! A program that serves port 80 of the host listens on `80.sock`; one that wants a port of the
//! guest connects to `guest.sock`, which this makes, and says which. All sockets are watched by one
//! epoll instance, whose descriptor is all that the outside needs to watch.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, recv, socket_with,
};

use super::handshake::{self, Ask, LONGEST_LINE};
use super::streams::Id;
use crate::say::shown_path;

/// Name of the socket by which programs on the host reach the guest.
pub const GUEST_SOCKET: &str = "guest.sock";
/// Stands for the listening socket among ids.
const LISTENER: Id = 0;
/// Events taken at once.
const EVENTS: usize = 64;
/// Programs that have connected and not said to which port. One more takes the place of the first.
const MAX_CALLERS: usize = 64;
/// Connections that wait to be taken in.
const BACKLOG: i32 = 128;

/// The host's side of a vsock cannot be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub enum VsockError {
    #[error("{}: another program is listening there already", shown_path(.0))]
    InUse(PathBuf),
    #[error("{}: something else than a socket is there", shown_path(.0))]
    NoSocket(PathBuf),
    #[error("{}: too long for a unix socket, choose a shorter directory", shown_path(.0))]
    TooLong(PathBuf),
    #[error("cannot {what} {}: {source}", shown_path(path))]
    File {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("cannot create an epoll instance: {0}")]
    Epoll(io::Error),
}

/// A program that has said which port of the guest it wants.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: Id,
    pub(super) socket: OwnedFd,
    pub(super) port: u32,
}

/// The sockets of the host.
#[derive(Debug)]
pub(super) struct Host {
    dir: PathBuf,
    epoll: OwnedFd,
    listener: OwnedFd,
    /// Somebody may wait to be taken in.
    pub(super) accepting: bool,
    callers: VecDeque<(Id, OwnedFd)>,
    last_id: Id,
}

/// The socket by which programs on the host reach the guest. Dropped, its file is removed.
#[derive(Debug)]
pub struct GuestSocket {
    path: PathBuf,
    listener: OwnedFd,
    /// Device and inode of its file.
    file: (u64, u64),
}

impl GuestSocket {
    /// Listens in `dir`.
    pub fn open(dir: &Path) -> Result<Self, VsockError> {
        let longest = port_path(dir, u32::MAX);
        if SocketAddrUnix::new(&longest).is_err() {
            return Err(VsockError::TooLong(longest));
        }
        let path = dir.join(GUEST_SOCKET);
        remove_stale(&path)?;
        let error = |source: io::Error| VsockError::File {
            what: "listen on",
            path: path.clone(),
            source,
        };
        let listener = listen_on(&path).map_err(|e| error(e.into()))?;
        let file = file_of(&path).map_err(error)?;
        Ok(Self {
            path,
            listener,
            file,
        })
    }
}

impl AsFd for GuestSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for GuestSocket {
    fn drop(&mut self) {
        if file_of(&self.path).is_ok_and(|file| file == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Host {
    /// The host's side with this [listening socket](GuestSocket), and those of the host's ports in
    /// `dir`.
    pub(super) fn new(dir: &Path, listener: OwnedFd) -> Result<Self, VsockError> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|e| VsockError::Epoll(e.into()))?;
        let host = Self {
            dir: dir.to_owned(),
            epoll,
            listener,
            accepting: true,
            callers: VecDeque::new(),
            last_id: LISTENER,
        };
        host.watch(LISTENER, &host.listener)
            .map_err(|e| VsockError::Epoll(e.into()))?;
        Ok(host)
    }

    /// What tells that something has happened.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    fn watch(&self, id: Id, socket: &OwnedFd) -> rustix::io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, socket, EventData::new_u64(id), flags)
    }

    /// Watches one more socket. Its id.
    fn adopt(&mut self, socket: &OwnedFd) -> rustix::io::Result<Id> {
        self.last_id += 1;
        self.watch(self.last_id, socket)?;
        Ok(self.last_id)
    }

    /// Calls `visit` with what has happened to sockets; whether there may be more.
    pub(super) fn take_events(&mut self, mut visit: impl FnMut(&mut Self, Id, EventFlags)) -> bool {
        let none = Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        };
        let mut events = [none; EVENTS];
        let count = epoll::wait(&self.epoll, &mut events, Some(&Timespec::default()));
        let count = count.unwrap_or(0);
        for event in &events[..count] {
            match event.data.u64() {
                LISTENER => self.accepting = true,
                id => visit(self, id, event.flags),
            }
        }
        count == EVENTS
    }

    /// Takes in one program that wants to reach the guest, if there is one. What it asks for, if it
    /// has said so already.
    pub(super) fn accept(&mut self) -> Option<Call> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        match accept_with(&self.listener, flags) {
            Ok(socket) => {
                // A socket that cannot be watched is closed: its program sees that.
                let id = self.adopt(&socket).ok()?;
                if self.callers.len() >= MAX_CALLERS {
                    self.callers.pop_front();
                }
                self.callers.push_back((id, socket));
                self.note_caller(id, EventFlags::IN)
            }
            // Nobody is there, or no descriptors are left: the next connection tells again, and so
            // does one that ends.
            Err(_) => {
                self.accepting = false;
                None
            }
        }
    }

    /// Programs that have not said which port they want.
    pub(super) fn callers(&self) -> usize {
        self.callers.len()
    }

    /// Something has happened to a program that has not said which port it wants: what it asks for.
    pub(super) fn note_caller(&mut self, id: Id, events: EventFlags) -> Option<Call> {
        let place = self.callers.iter().position(|(other, _)| *other == id)?;
        let socket = &self.callers[place].1;
        let mut line = [0; LONGEST_LINE];
        let seen = recv(socket, &mut line, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        let ask = match seen {
            Ok((0, _)) => Ask::Nonsense,
            Ok((len, _)) => handshake::parse(&line[..len]),
            Err(Errno::AGAIN | Errno::INTR) => Ask::Incomplete,
            Err(_) => Ask::Nonsense,
        };
        let ended = events.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        match ask {
            Ask::Incomplete if !ended => None,
            Ask::Port { port, line: len } => {
                let (id, socket) = self.callers.remove(place)?;
                // These bytes were seen above; nobody else reads them.
                let taken = recv(&socket, &mut line[..len], RecvFlags::DONTWAIT);
                taken.is_ok().then_some(Call { id, socket, port })
            }
            _ => {
                self.callers.remove(place);
                None
            }
        }
    }

    /// Connects to the program that serves `port` of the host.
    pub(super) fn connect(&mut self, port: u32) -> rustix::io::Result<(Id, OwnedFd)> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(port_path(&self.dir, port))?)?;
        let id = self.adopt(&socket)?;
        Ok((id, socket))
    }

    /// Forgets who has not said which port it wants.
    pub(super) fn drop_callers(&mut self) {
        self.callers.clear();
        self.accepting = true;
    }
}

fn port_path(dir: &Path, port: u32) -> PathBuf {
    dir.join(format!("{port}.sock"))
}

fn file_of(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Listens on a new socket that only this user may connect to.
fn listen_on(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The file is made with the socket's mode (unix(7)): at no moment may others connect.
    fchmod(&listener, Mode::RUSR | Mode::WUSR)?;
    bind(&listener, &SocketAddrUnix::new(path)?)?;
    listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// Removes a socket on which nobody listens, left by a monitor that was killed.
fn remove_stale(path: &Path) -> Result<(), VsockError> {
    let error = |what| {
        move |source| VsockError::File {
            what,
            path: path.to_owned(),
            source,
        }
    };
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(error("look at")(e)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(VsockError::NoSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let probe = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .and_then(|socket| connect(&socket, &SocketAddrUnix::new(path)?));
    match probe {
        Err(Errno::CONNREFUSED) => fs::remove_file(path).map_err(error("remove")),
        Err(Errno::NOENT) => Ok(()),
        Ok(()) | Err(Errno::AGAIN) => Err(VsockError::InUse(path.to_owned())),
        Err(errno) => Err(error("connect to")(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn only_its_owner_may_connect() {
        let dir = tempfile::tempdir().unwrap();
        let _host = GuestSocket::open(dir.path()).unwrap();
        let mode = fs::metadata(dir.path().join(GUEST_SOCKET)).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
    }

    #[test]
    fn the_socket_goes_with_its_owner_and_a_stale_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(GUEST_SOCKET);
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let host = GuestSocket::open(dir.path()).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(host);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_in_use_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let host = GuestSocket::open(dir.path()).unwrap();
        let error = GuestSocket::open(dir.path()).unwrap_err();
        assert!(matches!(error, VsockError::InUse(_)), "{error}");
        UnixStream::connect(dir.path().join(GUEST_SOCKET)).unwrap();
        drop(host);
    }

    #[test]
    fn a_successor_s_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(GUEST_SOCKET);
        let host = GuestSocket::open(dir.path()).unwrap();
        fs::remove_file(&path).unwrap();
        let successor = GuestSocket::open(dir.path()).unwrap();
        drop(host);
        assert!(path.exists());
        drop(successor);
    }

    #[test]
    fn a_file_in_the_way_is_kept_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(GUEST_SOCKET);
        fs::write(&path, "precious").unwrap();
        let error = GuestSocket::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains(GUEST_SOCKET), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_directory_that_is_missing_or_too_long_is_told() {
        let dir = tempfile::tempdir().unwrap();
        for (missing, what) in [("no", "guest.sock"), (&*"x".repeat(100), "too long")] {
            let error = GuestSocket::open(&dir.path().join(missing)).unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
        }
    }
}
