//! What the host counts of a tap's interface, in whatever network namespace that is: above all the
//! frames for which the tap had no room.
#![allow(
    unsafe_code,
    reason = "the namespace of a tap comes as a raw descriptor"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where a thread finds the figures of the interfaces of its namespace.
const FIGURES: &str = "/proc/thread-self/net/dev";

/// Opens the figures of the interfaces beside a tap's.
pub(super) fn figures(tap: BorrowedFd<'_>) -> io::Result<File> {
    // SAFETY: TUNGETDEVNETNS takes no argument, and gives a new descriptor or an error.
    let opened = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNGETDEVNETNS) };
    super::check(opened)?;
    // SAFETY: the descriptor was just opened and is nobody else's.
    let namespace = unsafe { OwnedFd::from_raw_fd(opened) };
    // The file stays with the namespace in which it was opened. No other thread leaves its own.
    let there = std::thread::Builder::new()
        .name("tap".to_owned())
        .spawn(move || {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), network)?;
            File::open(FIGURES)
        })?;
    there
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
}

/// Frames that the host had for the reader of the interface called `name`, and dropped.
pub(super) fn dropped(figures: &File, name: &str) -> Option<u64> {
    let mut table = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match figures.read_at(&mut piece, table.len() as u64).ok()? {
            0 => return dropped_in(str::from_utf8(&table).ok()?, name),
            len => table.extend_from_slice(&piece[..len]),
        }
    }
}

/// The fourth of what an interface has sent: bytes, packets, errors and drops come after the eight
/// numbers of what it has received (proc(5)).
fn dropped_in(table: &str, name: &str) -> Option<u64> {
    let mut lines = table.lines().filter_map(|line| line.split_once(':'));
    let (_, numbers) = lines.find(|(of, _)| of.trim() == name)?;
    numbers.split_whitespace().nth(8 + 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_found_by_its_whole_name() {
        let table = "Inter-|   Receive                    |  Transmit\n\
             face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop\n\
             tap10: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n\
             \x20 tap1:1 2 3 4 5 6 7 8 9 10 11 99 13 14 15 16\n";
        assert_eq!(dropped_in(table, "tap1"), Some(99));
        assert_eq!(dropped_in(table, "tap10"), Some(12));
        assert_eq!(dropped_in(table, "tap"), None);
    }
}
