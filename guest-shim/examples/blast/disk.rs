//! Reads from or writes to a disk, with many requests at once.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_shim::block::{Buffer, Disk, Error};
use guest_shim::prelude::*;
use guest_shim::time::Instant;
use guest_shim::{alloc, rand, task};

use crate::histogram::Histogram;
use crate::json::Quoted;
use crate::options::DiskWork;
use crate::or_null::OrNull;

/// What one of the requesters has measured.
struct Share {
    requests: Histogram,
    flushes: Histogram,
}

/// What came of it, as JSON.
pub(crate) async fn measure(work: DiskWork) -> Result<String, String> {
    let disk = Disk::open(work.name).map_err(|error| error.to_string())?;
    let blocks = disk.size() / work.block as u64;
    if blocks == 0 {
        return Err(format!(
            "{} has {} bytes, less than a block",
            disk.name(),
            disk.size()
        ));
    }
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let requester = |_| {
        task::spawn(request(
            disk.clone(),
            work,
            blocks,
            Arc::clone(&next),
            start,
        ))
    };
    let requesters: Vec<_> = (0..work.depth).map(requester).collect();
    let (mut requests, mut flushes) = (Histogram::new(), Histogram::new());
    for requester in requesters {
        let share = requester.await.map_err(|error| error.to_string())?;
        requests.merge(&share.requests);
        flushes.merge(&share.flushes);
    }
    let seconds = start.elapsed().as_secs_f64();
    let bytes = requests.count() * work.block as u64;
    Ok(format!(
        "{{\"disk\":{},\"requests\":{},\"bytes\":{bytes},\"seconds\":{seconds:.6},\"iops\":{:.1},\
         \"bytes_per_second\":{:.0},\"p50_us\":{},\"p99_us\":{},\"max_us\":{},\
         \"flushes\":{},\"flush_p50_us\":{},\"flush_p99_us\":{}}}",
        Quoted(disk.name()),
        requests.count(),
        requests.count() as f64 / seconds,
        bytes as f64 / seconds,
        OrNull(requests.quantile_us(500)),
        OrNull(requests.quantile_us(990)),
        OrNull(requests.quantile_us(1000)),
        flushes.count(),
        OrNull(flushes.quantile_us(500)),
        OrNull(flushes.quantile_us(990)),
    ))
}

/// One request after another until the time is over.
async fn request(
    disk: Disk,
    work: DiskWork,
    blocks: u64,
    next: Arc<AtomicU64>,
    start: Instant,
) -> Result<Share, Error> {
    let mut share = Share {
        requests: Histogram::new(),
        flushes: Histogram::new(),
    };
    let mut buffer = Buffer::zeroed(work.block);
    rand::fill(&mut buffer);
    let mut random = rand::u64() | 1;
    while start.elapsed() < work.time {
        let block = if work.random {
            random = after(random);
            random % blocks
        } else {
            next.fetch_add(1, Ordering::Relaxed) % blocks
        };
        let offset = block * work.block as u64;
        if !work.think.is_zero() {
            task::sleep(work.think).await;
        }
        let begun = Instant::now();
        let result;
        (result, buffer) = if work.write {
            disk.write_owned(offset, buffer).await
        } else {
            disk.read_owned(offset, buffer).await
        };
        result?;
        share.requests.add(begun.elapsed());
        let due = |every: u64| work.write && share.requests.count().is_multiple_of(every);
        if work.flush_every.is_some_and(due) {
            let begun = Instant::now();
            disk.flush().await?;
            share.flushes.add(begun.elapsed());
        }
    }
    Ok(share)
}

/// Marsaglia's xorshift, 64 bits: quick, and random enough to jump about.
fn after(mut random: u64) -> u64 {
    random ^= random << 13;
    random ^= random >> 7;
    random ^ random << 17
}
