//! What a monitor is given: open descriptors of all that it will ever use, and what each is for.
//!
//! They come over the tie, before anything else, in one message; behind it comes a frame that says
//! what they are. A monitor sees no file system and opens nothing by a name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use crate::control::proto::{read_frame, write_frame};
use crate::jail::Layers;

/// The most descriptors that one message carries (unix(7), `SCM_MAX_FD`).
pub const MOST: usize = 253;

/// The byte that descriptors travel with: without one they would not arrive.
const MARK: u8 = b'g';

/// What a descriptor is for. Numbers are those of the spec's lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(
    missing_docs,
    reason = "named after the parts of a spec and of a sliver's directory"
)]
pub enum Role {
    Spec,
    Kvm,
    Image,
    Initrd,
    Console,
    Input,
    Core,
    Disk(usize),
    Tap(usize),
    /// What the host counts of a tap.
    Figures(usize),
    /// What the host counts of the uplink.
    Uplink,
    /// The listening socket for those who want a port of the guest.
    Vsock,
    LedgerReader,
    LedgerWriter,
    /// The listening control socket.
    Control,
    /// The lock of the sliver's directory.
    Lock,
    /// Where the exit record goes, if somebody may come to look for it.
    Record,
    /// Who can get another slot in the ledger.
    Keeper,
    /// The monitor's own directory of proc(5).
    Process,
}

/// What is said of the descriptors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What each of them is for, in their order.
    pub roles: Vec<Role>,
    /// The monitor's process, by its number on the node.
    pub pid: u32,
    /// Whether the sliver ends when the tie does.
    pub tied: bool,
    /// `CLOCK_MONOTONIC` in nanoseconds when its start began.
    pub began: u64,
    /// Where its control socket is.
    pub control: String,
    /// Where its ledger is, for messages.
    pub ledger: PathBuf,
    /// Its slot there.
    pub slot: usize,
    /// The layers of the jail that it does without.
    pub without: Layers,
    /// Where the monitor finds the sockets of the host's vsock ports.
    pub vsock: PathBuf,
}

/// What is not as it was announced.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub enum GivenError {
    #[error("cannot hear from who starts the sliver: {0}")]
    Receive(io::Error),
    #[error("who starts the sliver has gone")]
    Gone,
    #[error("{came} descriptors came, {said} were announced")]
    Count { came: usize, said: usize },
    #[error("there is no descriptor for {0:?}")]
    Missing(Role),
}

/// Descriptors by what they are for.
#[derive(Debug, Default)]
pub struct Given(BTreeMap<Role, OwnedFd>);

impl Given {
    /// Adds one.
    pub fn add(&mut self, role: Role, descriptor: impl Into<OwnedFd>) {
        self.0.insert(role, descriptor.into());
    }

    /// Adds one, if there is one.
    pub fn add_some(&mut self, role: Role, descriptor: Option<impl Into<OwnedFd>>) {
        if let Some(descriptor) = descriptor {
            self.add(role, descriptor);
        }
    }

    /// What they are for, in the order in which they travel.
    pub fn roles(&self) -> Vec<Role> {
        self.0.keys().copied().collect()
    }

    /// Takes one out, if it is there.
    pub fn take(&mut self, role: Role) -> Option<OwnedFd> {
        self.0.remove(&role)
    }

    /// Takes out a file that has to be there.
    pub fn file(&mut self, role: Role) -> Result<File, GivenError> {
        let taken = self.take(role).map(File::from);
        taken.ok_or(GivenError::Missing(role))
    }

    /// Sends them, and what is to be said of them.
    pub fn send(self, tie: &UnixStream, hello: &Hello) -> io::Result<()> {
        let descriptors: Vec<BorrowedFd<'_>> =
            self.0.values().map(std::os::fd::AsFd::as_fd).collect();
        send_with(tie, &descriptors)?;
        write_frame(tie, hello)
    }

    /// Receives them.
    pub fn receive(tie: &UnixStream) -> Result<(Self, Hello), GivenError> {
        let descriptors = receive_with(tie).map_err(GivenError::Receive)?;
        let hello: Option<Hello> = read_frame(tie).map_err(GivenError::Receive)?;
        let hello = hello.ok_or(GivenError::Gone)?;
        let (came, said) = (descriptors.len(), hello.roles.len());
        if came != said {
            return Err(GivenError::Count { came, said });
        }
        let given = hello.roles.iter().copied().zip(descriptors).collect();
        Ok((Self(given), hello))
    }
}

/// Sends a mark and descriptors with it.
pub(crate) fn send_with(to: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other(format!(
            "{} descriptors do not fit into a message, {MOST} do",
            descriptors.len()
        )));
    }
    sendmsg(
        to,
        &[IoSlice::new(&[MARK])],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Receives a mark and the descriptors with it.
pub(crate) fn receive_with(from: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut mark = [0];
    let mut bytes = [IoSliceMut::new(&mut mark)];
    let received = loop {
        match recvmsg(from, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            received => break received?,
        }
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            descriptors.extend(some);
        }
    }
    match received.bytes {
        1 if mark == [MARK] => Ok(descriptors),
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    use crate::jail::Layer;

    fn hello(roles: Vec<Role>) -> Hello {
        Hello {
            roles,
            pid: 7,
            tied: true,
            began: 1,
            control: "/run/a/control.sock".to_owned(),
            ledger: PathBuf::from("/run/.ledger"),
            slot: 3,
            without: [Layer::Uts].into_iter().collect(),
            vsock: PathBuf::new(),
        }
    }

    #[test]
    fn each_arrives_for_what_it_was_given() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut one, other) = std::io::pipe().unwrap();
        let mut given = Given::default();
        given.add(Role::Disk(1), other);
        given.add(Role::Kvm, File::open("/dev/null").unwrap());
        let sent = hello(given.roles());
        given.send(&ours, &sent).unwrap();
        let (mut given, hello) = Given::receive(&theirs).unwrap();
        assert_eq!(hello, sent);
        let mut disk = given.file(Role::Disk(1)).unwrap();
        disk.write_all(b"here").unwrap();
        drop(disk);
        let mut text = String::new();
        one.read_to_string(&mut text).unwrap();
        assert_eq!(text, "here");
        assert!(matches!(
            given.file(Role::Disk(0)),
            Err(GivenError::Missing(Role::Disk(0)))
        ));
    }

    #[test]
    fn fewer_than_announced_are_refused() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        send_with(&ours, &[]).unwrap();
        write_frame(&ours, &hello(vec![Role::Kvm])).unwrap();
        let error = Given::receive(&theirs).unwrap_err();
        assert!(
            matches!(error, GivenError::Count { came: 0, said: 1 }),
            "{error}"
        );
    }

    #[test]
    fn an_end_and_nonsense_are_told() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (&ours).write_all(b"x").unwrap();
        assert!(matches!(
            Given::receive(&theirs),
            Err(GivenError::Receive(_))
        ));
        drop(ours);
        assert!(matches!(
            Given::receive(&theirs),
            Err(GivenError::Receive(_))
        ));
    }
}
