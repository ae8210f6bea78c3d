//! Descriptors that the parent process has left open for this one.
#![allow(
    unsafe_code,
    reason = "takes ownership of descriptors by their numbers"
)]

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Mutex;

/// The numbers that have been taken.
static TAKEN: Mutex<Vec<i32>> = Mutex::new(Vec::new());

/// A number that cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its variant means")]
pub enum TakeError {
    #[error("descriptor {0} is one of the standard three")]
    Standard(i32),
    #[error("descriptor {0} is given twice")]
    Twice(i32),
    #[error("descriptor {0} is not open")]
    NotOpen(i32),
}

/// Takes descriptor `number`, which the parent left open, and keeps it from any child.
///
/// Call it before anything else opens a file: afterwards the number may be somebody else's.
pub fn take(number: i32) -> Result<OwnedFd, TakeError> {
    if number <= 2 {
        return Err(TakeError::Standard(number));
    }
    let mut taken = TAKEN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if taken.contains(&number) {
        return Err(TakeError::Twice(number));
    }
    // SAFETY: changes a flag of the descriptor, if there is one.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(TakeError::NotOpen(number));
    }
    taken.push(number);
    // SAFETY: the descriptor is open (the call above succeeded), the standard three belong to std
    // and are refused, and no number is taken twice.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    #[test]
    fn an_open_descriptor_is_taken_once() {
        let number = std::fs::File::open("/dev/null").unwrap().into_raw_fd();
        let taken = take(number).unwrap();
        assert_eq!(take(number).unwrap_err(), TakeError::Twice(number));
        drop(taken);
        assert_eq!(take(1).unwrap_err(), TakeError::Standard(1));
        assert_eq!(take(i32::MAX).unwrap_err(), TakeError::NotOpen(i32::MAX));
    }
}
