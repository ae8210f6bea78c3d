//! The host's generator.

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

pub(crate) fn fill(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => panic!("the host gives no random bytes: {error}"),
        }
    }
}
