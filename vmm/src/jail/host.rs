//! What this host can provide for a jail, found out by trying.
#![allow(
    unsafe_code,
    reason = "clone3 and Landlock's version, which no library offers"
)]

use std::io;

use rustix::process::{Pid, WaitOptions, geteuid, waitpid};

use super::layers::{Layer, Layers};

/// A layer that this host does not provide, and why.
#[derive(Debug)]
pub struct Missing {
    /// The layer.
    pub layer: Layer,
    /// Why.
    pub source: io::Error,
}

/// Those of these layers that this host does not provide. Takes a moment: each is tried with a process
/// that ends at once.
pub fn missing(wanted: Layers) -> Vec<Missing> {
    let tried = wanted.iter().map(|layer| (layer, provides(layer)));
    let missing = tried.filter_map(|(layer, result)| Some((layer, result.err()?)));
    missing
        .map(|(layer, source)| Missing { layer, source })
        .collect()
}

/// Whether this host provides a layer to this process.
pub(crate) fn provides(layer: Layer) -> io::Result<()> {
    if layer == Layer::Landlock {
        return landlock();
    }
    // Who is not root makes all others inside a user namespace.
    let user = match geteuid().is_root() {
        true => 0,
        false => Layer::User.clone_flag(),
    };
    namespace(layer.clone_flag() | user)
}

/// Makes a process in new namespaces that ends at once.
fn namespace(flags: i32) -> io::Result<()> {
    // SAFETY: the structure is one of numbers, for which zeros are valid.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags as u32 as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    let size = size_of::<libc::clone_args>();
    // SAFETY: a fork; the new process only ends, which a copy of one thread of many may do. The kernel
    // reads `arguments`, which outlives the call.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size) } {
        // SAFETY: ends the process without running anything that this one has registered.
        0 => unsafe { libc::_exit(0) },
        -1 => Err(io::Error::last_os_error()),
        pid => {
            let _ = waitpid(Pid::from_raw(pid as i32), WaitOptions::empty());
            Ok(())
        }
    }
}

/// Asks the kernel for its version of Landlock (landlock_create_ruleset(2)).
fn landlock() -> io::Result<()> {
    const VERSION: libc::c_ulong = 1;
    let none: *const libc::c_void = std::ptr::null();
    // SAFETY: with this flag the kernel reads nothing and only gives a number.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0usize, VERSION) };
    match version {
        1.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_wanted_is_not_missing() {
        assert!(missing(Layers::NONE).is_empty());
    }

    #[test]
    fn a_namespace_that_cannot_be_is_told() {
        // Threads cannot be put into another process namespace (clone(2)).
        let error = namespace(libc::CLONE_NEWPID | libc::CLONE_THREAD | libc::CLONE_SIGHAND);
        assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
