//! A sliver's directory and the socket in it, by which anybody allowed finds and steers it.
//!
//! `ROOT/NAME` belongs to the monitor that holds a lock on it. A directory whose lock is free was
//! left by a monitor that was killed; the next sliver of that name takes it over.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::exit::ExitRecord;
use crate::say::shown_path;

/// Name of the control socket in a sliver's directory.
pub const SOCKET: &str = "control.sock";
/// Name of the exit record in a sliver's directory.
pub const EXIT_RECORD: &str = "exit.json";

/// Name under which the exit record is written before it is complete.
const PARTIAL_RECORD: &str = "exit.json.new";

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
    _lock: File,
}

impl Endpoint {
    /// Makes and locks `root/name` and listens in it.
    pub fn open(root: &Path, name: &str) -> Result<Self, EndpointError> {
        let error = |what, path: &Path| {
            let path = path.to_owned();
            move |source| EndpointError::File { what, path, source }
        };
        let directory = root.join(name);
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        let mut patience = LOCK_RETRIES;
        let lock = loop {
            builder
                .create(&directory)
                .map_err(error("create directory", &directory))?;
            let lock = File::open(&directory).map_err(error("open directory", &directory))?;
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
                Err(errno) => return Err(error("lock directory", &directory)(errno.into())),
            }
            // Its last owner may have removed it between the two steps above.
            if same_file(&lock, &directory) {
                break lock;
            }
        };
        let socket = directory.join(SOCKET);
        for leftover in [SOCKET, EXIT_RECORD, PARTIAL_RECORD] {
            let leftover = directory.join(leftover);
            match fs::remove_file(&leftover) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(error("remove old file", &leftover)(e));
                }
                _ => {}
            }
        }
        let listener = UnixListener::bind(&socket).map_err(error("listen on", &socket))?;
        listener
            .set_nonblocking(true)
            .map_err(error("listen on", &socket))?;
        Ok(Self {
            directory,
            listener,
            _lock: lock,
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

    /// Leaves the exit record for whoever comes to look, and nothing to connect to.
    pub fn close_with_record(self, record: &ExitRecord) -> Result<(), EndpointError> {
        let path = self.directory.join(EXIT_RECORD);
        let error = |source| EndpointError::File {
            what: "write",
            path: path.clone(),
            source,
        };
        let text = serde_json::to_vec_pretty(record).map_err(|e| error(e.into()))?;
        // Written aside and renamed: a reader sees a whole record or none.
        let partial = self.directory.join(PARTIAL_RECORD);
        fs::write(&partial, text).map_err(error)?;
        fs::rename(&partial, &path).map_err(error)?;
        let _ = fs::remove_file(self.socket());
        Ok(())
    }

    /// Removes the directory with everything in it.
    pub fn remove(self) {
        let _ = fs::remove_file(self.socket());
        let _ = fs::remove_dir(&self.directory);
    }
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
        let record = ExitRecord::of_error("a", "s_x", "it broke");
        endpoint.close_with_record(&record).unwrap();
        let text = fs::read(root.path().join("a").join(EXIT_RECORD)).unwrap();
        assert_eq!(serde_json::from_slice::<ExitRecord>(&text).unwrap(), record);
        assert!(!root.path().join("a").join(SOCKET).exists());
    }
}
