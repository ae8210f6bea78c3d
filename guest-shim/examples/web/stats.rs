//! What the server has done, and what its sliver is granted and has used.

use core::fmt::{self, Display};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;

use guest_shim::time::Instant;
use guest_shim::{quota, slice_name, sliver_name};

use crate::json::Quoted;
use crate::or_null::OrNull;

/// Counters.
#[derive(Debug)]
pub(crate) struct Stats {
    start: Instant,
    requests: AtomicU64,
    connections: AtomicU64,
    open: AtomicUsize,
}

impl Stats {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            open: AtomicUsize::new(0),
        }
    }

    /// Counts a request.
    pub(crate) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that begins.
    pub(crate) fn begin(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that ends.
    pub(crate) fn end(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// As a JSON object.
impl Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{{\"sliver\":{},\"slice\":{},\"uptime_seconds\":{:.3},\"requests\":{},\
             \"connections\":{},\"open\":{},\"quota\":",
            Quoted(sliver_name()),
            Quoted(slice_name()),
            self.start.elapsed().as_secs_f64(),
            self.requests.load(Ordering::Relaxed),
            self.connections.load(Ordering::Relaxed),
            self.open(),
        )?;
        write_quota(f, &quota::read())?;
        f.write_str("}\n")
    }
}

/// The quota page, without what is only of interest for an instant.
fn write_quota(f: &mut fmt::Formatter<'_>, quota: &quota::Quota) -> fmt::Result {
    let seconds = |time: Option<Duration>| OrNull(time.map(|time| time.as_secs_f64()));
    write!(
        f,
        "{{\"cpu_cap_milli\":{},\"cpu_reserve_milli\":{},\"cpu_share\":{},\
         \"cpu_consumed_seconds\":{},\"cpu_throttled_seconds\":{},\
         \"net_tx_left_today\":{},\"net_rx_left_today\":{},\"net_tx_rate\":{},\"net_rx_rate\":{}}}",
        OrNull(quota.cpu_cap_milli),
        OrNull(quota.cpu_reserve_milli),
        OrNull(quota.cpu_share),
        seconds(quota.cpu_consumed),
        seconds(quota.cpu_throttled),
        OrNull(quota.net_tx_left_today),
        OrNull(quota.net_rx_left_today),
        OrNull(quota.net_tx_rate),
        OrNull(quota.net_rx_rate),
    )
}
