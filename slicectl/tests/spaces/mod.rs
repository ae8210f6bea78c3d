//! Network namespaces of a test's own, and doing things in them. Needs to be root. Where it is not,
//! SLICEVISOR_NO_NET=1 leaves these tests out.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(
    unsafe_code,
    reason = "a thread leaves its process's network namespace"
)]

use std::fs::{self, File};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// When to give up waiting for what should come at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Whether these tests can run here.
pub(crate) fn can_run() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var_os("SLICEVISOR_NO_NET").is_some(),
        "network namespaces are root's to make (SLICEVISOR_NO_NET=1 leaves this out)"
    );
    println!("left out: not root");
    false
}

/// A new network namespace, which lasts as long as its descriptor.
pub(crate) fn new() -> OwnedFd {
    let maker = thread::spawn(|| {
        // SAFETY: this thread parts with the others' network only, and ends at once. All else that
        // code of this process could count on stays shared.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
        File::open("/proc/thread-self/ns/net").unwrap().into()
    });
    maker.join().unwrap()
}

/// Does something in a network namespace.
pub(crate) fn inside<T: Send>(namespace: BorrowedFd<'_>, action: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network)).unwrap();
            action()
        });
        thread.join().unwrap()
    })
}

/// Names of the interfaces of the calling thread's namespace.
pub(crate) fn interfaces() -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let names = table
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next());
    names.map(|name| name.trim().to_owned()).collect()
}

/// Waits for what should come at once.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(10));
    }
}
