//! How much a guest may ask of its disks: bytes and requests per second, of each disk and of all
//! disks of the sliver together.
//!
//! A request is begun when nothing is owed, and charged when its size is known, whatever that is: it
//! stays in the guest's ring until then, and a rate is kept in the long run. Nothing is held, so
//! a reset has nothing to give back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::nanos::Nanos;
use crate::net::bucket::Bucket;
use crate::spec::DiskLimits;

/// What may be done at once after a pause is this part of what a second brings.
const BURSTS_PER_SECOND: u64 = 20;
/// Who waits looks again after this time at the latest: limits may have been changed.
const LOOK_AGAIN: Nanos = Nanos::from_millis(50);
/// Who has had the last of a budget that others wait for leaves them this much time.
const AFTER_OTHERS: Nanos = Nanos::from_micros(200);

/// The budget of one disk or of several.
#[derive(Debug, Default)]
pub struct DiskBudget {
    limits: DiskLimits,
    bytes: Option<Bucket>,
    requests: Option<Bucket>,
    /// The disk that was let through last, and whether another was not since.
    last: usize,
    contested: bool,
}

/// A budget of several disks, whose limits can be changed.
#[derive(Debug, Clone, Default)]
pub struct SharedBudget(Arc<Mutex<DiskBudget>>);

impl SharedBudget {
    /// A full budget.
    pub fn new(limits: &DiskLimits) -> Self {
        Self(Arc::new(Mutex::new(DiskBudget::new(limits))))
    }

    /// Other limits from now on.
    pub fn set_limits(&self, limits: &DiskLimits, now: Nanos) {
        self.lock().set(limits, now);
    }

    /// The limits in force.
    pub fn limits(&self) -> DiskLimits {
        self.lock().limits
    }

    fn lock(&self) -> MutexGuard<'_, DiskBudget> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskBudget {
    fn new(limits: &DiskLimits) -> Self {
        let mut budget = Self::default();
        budget.set(limits, Nanos::ZERO);
        budget
    }

    fn set(&mut self, limits: &DiskLimits, now: Nanos) {
        self.limits = *limits;
        set(&mut self.bytes, limits.bytes_per_second(), now);
        set(&mut self.requests, limits.requests_per_second(), now);
    }

    /// Whether disk number `disk` may begin a request; if not, when to ask again.
    fn check(&mut self, disk: usize, now: Nanos) -> Result<(), Nanos> {
        let buckets = [&mut self.bytes, &mut self.requests];
        let waits = buckets.into_iter().flatten();
        let until = waits.filter_map(|bucket| bucket.check(1, now).err()).max();
        let Some(until) = until else {
            if self.last != disk {
                (self.last, self.contested) = (disk, false);
            }
            return Ok(());
        };
        if self.last != disk {
            self.contested = true;
        } else if self.contested {
            return Err(until + AFTER_OTHERS);
        }
        Err(until)
    }

    fn charge(&mut self, requests: u64, bytes: u64) {
        if let Some(bucket) = &mut self.requests {
            bucket.take(requests);
        }
        if let Some(bucket) = &mut self.bytes {
            bucket.take(bytes);
        }
    }
}

fn set(bucket: &mut Option<Bucket>, rate: Option<u64>, now: Nanos) {
    match (bucket.as_mut(), rate) {
        (_, None) => *bucket = None,
        (Some(bucket), Some(rate)) => bucket.set(rate, rate / BURSTS_PER_SECOND, now),
        (None, Some(rate)) => *bucket = Some(Bucket::new(rate, rate / BURSTS_PER_SECOND)),
    }
}

/// What holds one disk back.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    disk: usize,
    own: DiskBudget,
    shared: SharedBudget,
    waits: bool,
    throttled: u64,
}

impl Throttle {
    pub(super) fn new(disk: usize, own: &DiskLimits, shared: SharedBudget) -> Self {
        Self {
            disk,
            own: DiskBudget::new(own),
            shared,
            ..Self::default()
        }
    }

    /// Whether a request may be begun; if not, when to look again, which is not now.
    pub(super) fn check(&mut self, now: Nanos) -> Result<(), Nanos> {
        let own = self.own.check(self.disk, now);
        let until = own.and_then(|()| self.shared.lock().check(self.disk, now));
        self.throttled += u64::from(until.is_err() && !self.waits);
        self.waits = until.is_err();
        until.map_err(|until| until.min(now + LOOK_AGAIN))
    }

    /// Charges a request.
    pub(super) fn charge_request(&mut self, bytes: u64) {
        self.own.charge(1, bytes);
        self.shared.lock().charge(1, bytes);
    }

    /// Charges what a request did besides.
    pub(super) fn charge_bytes(&mut self, bytes: u64) {
        if bytes > 0 {
            self.own.charge(0, bytes);
            self.shared.lock().charge(0, bytes);
        }
    }

    /// Nobody waits any more.
    pub(super) fn reset(&mut self) {
        self.waits = false;
    }

    /// How often requests had to wait.
    pub(super) fn throttled(&self) -> u64 {
        self.throttled
    }
}
