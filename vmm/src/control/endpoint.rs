//! A sliver's directory and the socket in it, by which anybody allowed finds and steers it.
//!
//! `ROOT/NAME` belongs to the monitor that holds a lock on the file `lock` in it. A directory whose
//! lock is free was left by a monitor that was killed; the next sliver of that name takes it over. The
//! lock is a file's, not the directory's: what a monitor holds must not lead anywhere.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};

use crate::say::shown_path;

/// Name of the control socket in a sliver's directory.
pub const SOCKET: &str = "control.sock";
/// Name of the exit record in a sliver's directory.
pub const EXIT_RECORD: &str = "exit.json";

/// Name of the file that its owner keeps locked.
pub const LOCK: &str = "lock";

/// Connections that wait to be taken in.
pub(super) const BACKLOG: i32 = 128;

/// How often, and after how long each time, a locked directory is tried again.
const LOCK_RETRIES: u32 = 5;
const LOCK_RETRY: Duration = Duration::from_millis(2);

/// A sliver's directory could not be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub enum EndpointError {
    #[error("a sliver named {0} is already running on this node")]
    NameTaken(String),
    #[error("cannot {what} {}: {source}", shown_path(path))]
    File {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// The directory, locked, with its socket.
#[derive(Debug)]
pub struct Endpoint {
    directory: PathBuf,
    listener: UnixListener,
    /// Holds the lock.
    lock: File,
}

impl Endpoint {
    /// Makes and locks `root/name` and listens in it.
    pub fn open(root: &Path, name: &str) -> Result<Self, EndpointError> {
        let error = |what, path: &Path| {
            let path = path.to_owned();
            move |source| EndpointError::File { what, path, source }
        };
        let directory = root.join(name);
        let path = directory.join(LOCK);
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        let mut patience = LOCK_RETRIES;
        let lock = loop {
            builder
                .create(&directory)
                .map_err(error("create directory", &directory))?;
            let lock = match open_lock(&path) {
                // Its last owner has removed it just now.
                Err(gone) if gone.kind() == io::ErrorKind::NotFound && patience > 0 => {
                    patience -= 1;
                    continue;
                }
                opened => opened.map_err(error("open", &path))?,
            };
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                // Who clears a dead sliver's directory away holds its lock for a moment.
                Err(rustix::io::Errno::WOULDBLOCK) if patience > 0 => {
                    patience -= 1;
                    thread::sleep(LOCK_RETRY);
                    continue;
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(EndpointError::NameTaken(name.to_owned()));
                }
                Err(errno) => return Err(error("lock", &path)(errno.into())),
            }
            // Its last owner may have removed it between the two steps above.
            if same_file(&lock, &path) {
                break lock;
            }
        };
        let socket = directory.join(SOCKET);
        for leftover in [SOCKET, EXIT_RECORD] {
            let leftover = directory.join(leftover);
            match fs::remove_file(&leftover) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(error("remove old file", &leftover)(e));
                }
                _ => {}
            }
        }
        let listener =
            listen_on(&socket).map_err(|errno| error("listen on", &socket)(errno.into()))?;
        Ok(Self {
            directory,
            listener,
            lock,
        })
    }

    /// Where clients connect.
    pub fn socket(&self) -> PathBuf {
        self.directory.join(SOCKET)
    }

    /// The listening socket.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Where the exit record goes: an empty file, which says as little as none.
    pub fn make_record(&self) -> Result<File, EndpointError> {
        let path = self.directory.join(EXIT_RECORD);
        let made = File::options().write(true).create_new(true).open(&path);
        made.map_err(|source| EndpointError::File {
            what: "create",
            path,
            source,
        })
    }

    /// Its listening socket and its lock, for the monitor, and the directory to clear away when that
    /// has ended.
    pub fn into_parts(self) -> (UnixListener, File, Leftover) {
        let leftover = Leftover {
            directory: self.directory,
        };
        (self.listener, self.lock, leftover)
    }

    /// Removes the directory with everything in it.
    pub fn remove(self) {
        clear(&self.directory);
    }
}

/// A directory whose monitor has ended or will have.
#[derive(Debug)]
pub struct Leftover {
    directory: PathBuf,
}

impl Leftover {
    /// Removes the directory, but for an exit record; not if it has become another sliver's.
    pub fn clear(&self) {
        // What cannot be cleared away harms nobody.
        let _ = self.try_clear();
    }

    fn try_clear(&self) -> io::Result<()> {
        let path = self.directory.join(LOCK);
        let lock = File::open(&path)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        if same_file(&lock, &path) {
            clear(&self.directory);
        }
        Ok(())
    }
}

fn clear(directory: &Path) {
    let _ = fs::remove_file(directory.join(SOCKET));
    // Last: whoever comes from now on has a lock of its own.
    let _ = fs::remove_file(directory.join(LOCK));
    let _ = fs::remove_dir(directory);
}

fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).mode(0o600);
    options.open(path)
}

/// Listens on a new socket that only this user, and root, may connect to: the monitor, which does not
/// know users by their numbers here, leaves that to the file.
fn listen_on(path: &Path) -> rustix::io::Result<UnixListener> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The file is made with the socket's mode (unix(7)): at no moment may others connect.
    fchmod(&listener, Mode::RUSR | Mode::WUSR)?;
    bind(&listener, &SocketAddrUnix::new(path)?)?;
    listen(&listener, BACKLOG)?;
    Ok(listener.into())
}

fn same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_use_is_refused_and_free_again_afterwards() {
        let root = tempfile::tempdir().unwrap();
        let first = Endpoint::open(root.path(), "a").unwrap();
        assert!(matches!(
            Endpoint::open(root.path(), "a"),
            Err(EndpointError::NameTaken(_))
        ));
        first.remove();
        assert!(fs::read_dir(root.path()).unwrap().next().is_none());
        Endpoint::open(root.path(), "a").unwrap();
    }

    #[test]
    fn what_a_killed_monitor_left_is_taken_over() {
        let root = tempfile::tempdir().unwrap();
        let dead = Endpoint::open(root.path(), "a").unwrap();
        drop(dead);
        assert!(root.path().join("a").join(SOCKET).exists());
        Endpoint::open(root.path(), "a").unwrap();
    }

    #[test]
    fn the_exit_record_stays_and_the_socket_goes() {
        let root = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::open(root.path(), "a").unwrap();
        drop(endpoint.make_record().unwrap());
        let (_, lock, leftover) = endpoint.into_parts();
        leftover.clear();
        assert!(root.path().join("a").join(SOCKET).exists(), "it is locked");
        drop(lock);
        leftover.clear();
        assert!(root.path().join("a").join(EXIT_RECORD).exists());
        assert!(!root.path().join("a").join(SOCKET).exists());
    }

    #[test]
    fn only_its_owner_may_connect() {
        let root = tempfile::tempdir().unwrap();
        let _endpoint = Endpoint::open(root.path(), "a").unwrap();
        let metadata = fs::metadata(root.path().join("a").join(SOCKET)).unwrap();
        let mode = std::os::unix::fs::MetadataExt::mode(&metadata);
        assert_eq!(mode & 0o077, 0, "{mode:o}");
    }
}
