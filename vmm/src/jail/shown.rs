//! A directory of the host for a jailed process, whose user is nobody there: shown as if what belongs to
//! the directory's owner were the process's (mount_setattr(2), "ID-mapped mounts").
#![allow(
    unsafe_code,
    reason = "clone3 and mount_setattr, which no library offers"
)]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{Pid, Signal, WaitOptions, pidfd_send_signal, waitpid};

/// The directory, to be put up by the process of this user and group. Takes root.
pub(super) fn as_if_owned_by(path: &Path, (uid, gid): (u32, u32)) -> io::Result<OwnedFd> {
    let owner = fs::metadata(path)?;
    let users = user_namespace((owner.uid(), uid), (owner.gid(), gid))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, path, flags)?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP | libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: users.as_raw_fd() as u64,
    };
    // SAFETY: the kernel reads the empty path and the structure, of the size that is said, and both
    // outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    match done {
        0 => Ok(tree),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A user namespace in which the first user of each pair is the second outside.
fn user_namespace(uids: (u32, u32), gids: (u32, u32)) -> io::Result<File> {
    let mut pidfd: RawFd = -1;
    // SAFETY: the structure is one of numbers, for which zeros are valid.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = (libc::CLONE_NEWUSER | libc::CLONE_PIDFD) as u32 as u64;
    arguments.pidfd = &raw mut pidfd as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    let size = size_of::<libc::clone_args>();
    // SAFETY: a fork; the new process only waits to be killed, which a copy of one thread of many may
    // do. The kernel reads `arguments` and writes `pidfd`, both of which outlive the call.
    let pid = match unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size) } {
        0 => loop {
            // SAFETY: takes nothing and changes nothing.
            unsafe { libc::pause() };
        },
        -1 => return Err(io::Error::last_os_error()),
        pid => pid as i32,
    };
    // SAFETY: the kernel has just opened it for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let process = format!("/proc/{pid}");
    let map = |file, (inside, outside): (u32, u32)| {
        fs::write(
            format!("{process}/{file}"),
            format!("{inside} {outside} 1\n"),
        )
    };
    let mapped = map("gid_map", gids).and_then(|()| map("uid_map", uids));
    let namespace = mapped.and_then(|()| File::open(format!("{process}/ns/user")));
    // The namespace lives on with its descriptor.
    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    let _ = waitpid(Pid::from_raw(pid), WaitOptions::empty());
    namespace
}
