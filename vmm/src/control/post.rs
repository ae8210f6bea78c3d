//! A monitor's hold on its sliver's directory, which it does not see: the socket that it listens on,
//! the lock that says it lives, and where it leaves its exit record.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::net::listen;

use super::endpoint::BACKLOG;
use crate::exit::ExitRecord;
use crate::given::{Given, GivenError, Hello, Role};
use crate::jail::Layers;

/// Held until the end.
#[derive(Debug)]
pub struct Post {
    listener: UnixListener,
    control: String,
    pid: u32,
    without: Layers,
    record: Option<File>,
    _lock: File,
}

impl Post {
    /// What was handed in.
    pub fn take(given: &mut Given, hello: &Hello) -> Result<Self, GivenError> {
        let listener = OwnedFd::from(given.file(Role::Control)?);
        // Once more, by this process: clients are told who listens (SO_PEERCRED, unix(7)).
        listen(&listener, BACKLOG).map_err(|errno| GivenError::Receive(errno.into()))?;
        Ok(Self {
            listener: listener.into(),
            control: hello.control.clone(),
            pid: hello.pid,
            without: hello.without,
            record: given.take(Role::Record).map(File::from),
            _lock: given.file(Role::Lock)?,
        })
    }

    /// The listening socket, which does not wait.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Takes in who has connected.
    pub fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().map(|(stream, _)| stream)
    }

    /// Where clients connect.
    pub fn control(&self) -> &str {
        &self.control
    }

    /// This process, by its number on the node.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The layers of the jail that it does without.
    pub fn without(&self) -> Layers {
        self.without
    }

    /// Leaves the exit record for whoever comes to look, if somebody may. A reader may find half of
    /// it, which says as little as none.
    pub fn leave_record(&self, record: &ExitRecord) -> io::Result<()> {
        let Some(file) = &self.record else {
            return Ok(());
        };
        let text = serde_json::to_vec_pretty(record)?;
        file.write_all_at(&text, 0)
    }
}
