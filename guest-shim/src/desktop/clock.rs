//! The host's clocks.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The start, which counts as 1 ns: 0 is no moment to wait for.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Sets the monotonic clock going; otherwise the first look at it does.
pub(crate) fn start() {
    LazyLock::force(&START);
}

pub(crate) fn monotonic_ns() -> u64 {
    1 + START.elapsed().as_nanos() as u64
}

pub(crate) fn unix_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}
