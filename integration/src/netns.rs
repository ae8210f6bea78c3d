//! Network namespaces of a test's or benchmark's own: nothing of the host's network is touched, and
//! all of it is gone when the last descriptor is.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// A namespace.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// A new one, with its loopback up.
    pub fn new() -> Result<Self> {
        let made = thread::spawn(|| {
            enter_new()?;
            File::open("/proc/thread-self/ns/net").context("the namespace of a thread")
        });
        let file = made.join().expect("a thread that makes a namespace")?;
        let namespace = Self(file);
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Does something inside: sockets made there and processes started there belong to it.
    pub fn inside<T>(&self, action: impl FnOnce() -> Result<T>) -> Result<T> {
        let outside = File::open("/proc/thread-self/ns/net")?;
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(self.0.as_fd(), network).context("entering a namespace")?;
        let result = action();
        move_into_link_name_space(outside.as_fd(), network).context("leaving a namespace")?;
        result
    }

    /// Runs `ip` with these words inside.
    pub fn ip(&self, words: &str) -> Result<()> {
        self.tool("ip", words)
    }

    /// Runs a program with these words inside, to its end.
    pub fn tool(&self, program: &str, words: &str) -> Result<()> {
        self.inside(|| {
            let output = Command::new(program)
                .args(words.split_whitespace())
                .output()
                .with_context(|| format!("{program} (resources/setup.sh benches installs it)"))?;
            if !output.status.success() {
                let error = String::from_utf8_lossy(&output.stderr);
                bail!("{program} {words}: {}", error.trim());
            }
            Ok(())
        })
    }

    /// A path to it, for `ip`.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

#[allow(unsafe_code, reason = "a thread leaves the namespaces of its process")]
fn enter_new() -> Result<()> {
    // SAFETY: leaves the network namespace only: no memory or descriptors are unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("making a namespace (are you root?)")
}

/// Turns everything off that lets one packet stand for several, or leaves its checksum to others.
pub fn without_offloads(namespace: &Namespace, device: &str) -> Result<()> {
    let words = format!("-K {device} tx off rx off sg off tso off gso off gro off");
    namespace.tool("ethtool", &words)
}
